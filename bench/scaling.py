"""How time and memory grow with the number of hits: pile-up 20 to 400.

    python -m bench.scaling -o bench-scaling

simulates events for every pile-up, reconstructs each size several times in a fresh process, fits
time ∝ hits^k and writes ``scaling.md``, ``scaling.json`` and ``scaling.png``. ``--help`` lists the settings.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import NDArray

from bench.compare import NAMES, OURS, Cost, machine, make_events, run_in_turns
from bench.tracks import describe, write
from cloudchamber.data import open_events
from cloudchamber.data.store import atomic
from cloudchamber.errors import UserError
from cloudchamber.report import COLOURS, Column, markdown_table, memory, seconds
from cloudchamber.report.plots import STYLE

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Size:
    """One pile-up: ``hits`` (events,), and what they cost."""

    pileup: float
    hits: Array
    cost: Cost

    def time(self, name: str) -> Array:
        """``seconds`` or ``cpu`` of every event, ``(events,)``: the median of the repetitions."""
        return np.asarray(np.median(getattr(self.cost, name), axis=0))

    def row(self) -> dict[str, Any]:
        """A row of the table: medians over the events."""
        times = {name: float(np.median(self.time(name))) for name in ("seconds", "cpu")}
        per_hit = float(np.median(self.time("cpu") / self.hits))
        hits = int(np.median(self.hits))
        return {"pileup": self.pileup, "hits": hits, **times, "per_hit": per_hit, "memory": self.cost.memory}


COLUMNS = (
    Column("pileup", "pile-up"),
    Column("hits", "hits"),
    Column("seconds", "time per event", seconds),
    Column("cpu", "CPU time per event", seconds),
    Column("per_hit", "CPU time per hit", seconds),
    Column("memory", "peak memory", memory),
)


def power(x: Array, y: Array) -> tuple[float, float, float]:
    """Exponent k of y = a x^k, its standard error, and a: least squares of log y over log x, all points alike.

    The error is that of the scatter about the line; nan for fewer than three points.
    """
    u, v = np.log(x), np.log(y)
    u0, v0 = u.mean(), v.mean()
    spread = float(((u - u0) ** 2).sum())
    k = float(((u - u0) * (v - v0)).sum()) / spread
    rest = float(((v - v0 - k * (u - u0)) ** 2).sum())
    error = (rest / (len(u) - 2) / spread) ** 0.5 if len(u) > 2 else float("nan")
    return k, error, float(np.exp(v0 - k * u0))


def fits(sizes: Sequence[Size]) -> dict[str, tuple[float, float, float]]:
    """``power`` of wall and CPU time over hits, and of the memory over the hits of the largest event."""
    hits = np.concatenate([size.hits for size in sizes])
    found = {name: power(hits, np.concatenate([size.time(name) for size in sizes])) for name in ("seconds", "cpu")}
    peak = np.array([float(size.cost.memory) for size in sizes])
    return found | {"memory": power(np.array([size.hits.max() for size in sizes]), peak)}


def say(fitted: Mapping[str, tuple[float, float, float]]) -> str:
    """The exponents, with their errors where they have one, in words."""
    names = {"seconds": "wall time", "cpu": "CPU time", "memory": "peak memory"}
    errors = {what: f" ± {error:.2f}" if error == error else "" for what, (_, error, _) in fitted.items()}
    return ", ".join(f"{names[what]} ∝ hits^({k:.2f}{errors[what]})" for what, (k, _, _) in fitted.items())


def draw(sizes: Sequence[Size], fitted: dict[str, tuple[float, float, float]], title: str, path: Path) -> None:
    """Time and memory over hits, both axes logarithmic, with the fitted powers."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.9), layout="constrained")
        left, right = figure.subplots(1, 2)
        hits = np.concatenate([size.hits for size in sizes])
        ends = np.array([hits.min(), hits.max()])
        for name, label, colour, marker in (("seconds", "Wall time", COLOURS[0], "o"), ("cpu", "CPU", COLOURS[1], "s")):
            k, error, a = fitted[name]
            left.plot(hits, np.concatenate([size.time(name) for size in sizes]), marker, color=colour, ms=4)
            left.plot(ends, a * ends**k, "-", color=colour, lw=1, label=f"{label}: hits$^{{{k:.2f} \\pm {error:.2f}}}$")
        left.set(xlabel="Hits per event", ylabel="Time per event [s]", title=title)
        left.legend()
        largest = [size.hits.max() for size in sizes]
        right.plot(largest, [size.cost.memory / 1e9 for size in sizes], "o-", color=COLOURS[0], ms=4, lw=1)
        right.set(xlabel="Hits of the largest event", ylabel="Peak memory of the process [GB]")
        for axes in (left, right):
            axes.set(xscale="log", yscale="log")
            for axis, unit, steps in ((axes.xaxis, "k", (1, 2, 5)), (axes.yaxis, "", (1, 1.5, 2, 3, 5, 7))):
                scale = 1e3 if unit else 1.0
                axis.set_major_locator(LogLocator(subs=steps))
                axis.set_major_formatter(FuncFormatter(lambda v, _, scale=scale, unit=unit: f"{v / scale:g}{unit}"))
                axis.set_minor_locator(NullLocator())
            axes.grid(alpha=0.3, lw=0.4)
        with atomic(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], dpi=150)


def run(options: argparse.Namespace) -> None:
    """Simulate, measure, fit, and write the files."""
    facts = machine()
    paths = {pileup: options.directory / f"pileup-{pileup:g}" for pileup in options.pileup}
    for pileup, path in paths.items():
        make_events(path, options.events, pileup, options.seed)
    sizes = []
    for pileup, path in paths.items():
        events = open_events(path)
        cost = run_in_turns([options.finder], events, options.directory, options.model, options.repeat)[options.finder]
        sizes.append(Size(pileup, np.array([float(event.rows("point")) for event in events]), cost))
        print(json.dumps(sizes[-1].row()), flush=True)
    fitted = fits(sizes)
    name = NAMES[options.finder]
    about = (
        f"{options.events} events of each pile-up, {options.repeat} repetitions, medians; memory of a fresh process."
    )
    text = "\n\n".join(
        [
            f"# {name}: time and memory over hits",
            f"{describe(facts)} {about}",
            markdown_table([size.row() for size in sizes], COLUMNS),
            f"Fitted over all events (memory: over the sizes): {say(fitted)}.",
            f"Between the two largest sizes, where what every process needs counts least: {say(fits(sizes[-2:]))}.",
        ]
    )
    numbers = [{**size.row(), "events": size.hits.tolist(), **size.cost.to_dict()} for size in sizes]
    powers = {what: {"exponent": k, "error": error, "factor": a} for what, (k, error, a) in fitted.items()}
    values = {"machine": facts, "sizes": numbers, "powers": powers}
    draw(sizes, fitted, name, options.directory / "scaling.png")
    print(text)
    for path in write(options.directory, {"scaling.md": text, "scaling.json": json.dumps(values, indent=1)}):
        print(path)


def main() -> None:
    """Measure how time and memory grow with the number of hits."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("-o", dest="directory", type=Path, default=Path("bench-scaling"), help="where to write")
    parser.add_argument("--pileup", type=float, nargs="+", default=[20, 50, 100, 200, 400], help="means, at least two")
    parser.add_argument("--events", type=int, default=4, help="how many of each pile-up")
    parser.add_argument("--seed", type=int, default=2026, help="not 1, 2 or 3, which training and tests use")
    parser.add_argument("--repeat", type=int, default=3, help="how often every event is reconstructed")
    parser.add_argument("--finder", choices=NAMES, default=OURS)
    parser.add_argument("--model", type=Path, help="checkpoint of another model than the one that ships")
    options = parser.parse_args()
    options.directory = options.directory.absolute()
    try:
        run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
