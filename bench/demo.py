"""Two collisions from the simulation to the tracks, ours beside the Kalman filter of ACTS on the same hits.

    python -m bench.demo -o demo

simulates, runs each finder in a process of its own (``bench/measure.py``), scores the tracks and writes tables, plots
and the event display. ``--help`` lists the settings. Without pyacts and pythia8mc it takes the event that ships with
the package, and leaves the filter out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bench.tables import STAGES, legend, rows
from cloudchamber.data import DATASETS, open_events, store
from cloudchamber.data.collisions import CollisionsConfig, simulate
from cloudchamber.errors import UserError
from cloudchamber.evaluate import ETA_BINS, PT_BINS, Scores, evaluate
from cloudchamber.event import Event
from cloudchamber.metrics import Fraction
from cloudchamber.reconstruct import Reconstructor
from cloudchamber.report import Column, Curve, console_table, markdown_table, plot_efficiency, plot_event, write_display
from cloudchamber.report.scores import stage_rows

NAMES = {"network": "cloudchamber"} | {f"ckf-{c}": f"CKF {c}, pT > 0.5" for c in "CDE"}
NAMES |= {f"ckf-{c}": f"CKF {c}, all pT" for c in "FG"}
SHIPPED = Path(str(files("cloudchamber") / "data" / "example.parquet"))


@dataclass(frozen=True)
class Found:
    """What one finder made of the events: its tracks, their scores, and its cost (see ``bench/measure.py``)."""

    name: str
    tracks: Sequence[Event]
    scores: Scores
    cost: dict[str, Any]


@contextmanager
def progress(console: Console) -> Iterator[Progress]:
    """Bars with the time that has gone by, one per step."""
    columns = SpinnerColumn(), TextColumn("{task.description:42}"), BarColumn(20), MofNCompleteColumn()
    with Progress(*columns, TimeElapsedColumn(), console=console) as bars:
        yield bars


def make_events(options: argparse.Namespace, directory: Path, bars: Progress) -> None:
    """Simulate the events, as ``cloudchamber simulate collisions`` does, and write them."""
    for path in directory.glob("event*.parquet"):
        path.unlink()
    step = bars.add_task(f"Simulating tt̄ + {options.pileup:g} pile-up", total=options.events)
    config = CollisionsConfig(pileup=options.pileup, seed=options.seed)
    for number, event in enumerate(simulate(config, options.events)):
        DATASETS["parquet"].write(directory, f"event{number:09d}", event)
        bars.advance(step)


def measure(finder: str, options: argparse.Namespace, events: Path, bars: Progress) -> Found:
    """Run one finder in a process of its own, and score its tracks."""
    path = options.directory / finder
    step = bars.add_task(f"Finding tracks: {NAMES[finder]}", total=options.events)
    command = [sys.executable, "-m", "bench.measure", finder, str(events), "-o", str(path)]
    if options.model and finder == "network":
        command += ["--model", str(options.model)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for _ in process.stdout:
            bars.advance(step)
        errors = process.stderr.read()
    if process.returncode:
        last = (errors.strip().splitlines() or [f"it ended with status {process.returncode}"])[-1]
        raise UserError(f"{NAMES[finder]}: {last.removeprefix('error: ')}")
    bars.stop_task(step)
    tracks = open_events(path.with_suffix(".parquet"))
    return Found(
        NAMES[finder], tracks, evaluate(tracks, open_events(events)), json.loads(path.with_suffix(".json").read_text())
    )


def stage_rates(options: argparse.Namespace, events: Path, bars: Progress) -> dict[str, dict[str, Fraction]]:
    """Efficiency and purity of the edges after each stage, all events together."""
    finder, total = Reconstructor(options.model), dict[str, dict[str, Fraction]]()
    step = bars.add_task("Following true pairs of hits through the stages", total=options.events)
    for event in open_events(events):
        for stage, rates in finder.stage_rates(event).items():
            known = total.setdefault(stage, {})
            for name, fraction in rates.items():
                known[name] = known[name] + fraction if name in known else fraction
        bars.advance(step)
    return total


def draw(found: Sequence[Found], events: Path, directory: Path, bars: Progress) -> list[Path]:
    """Plots of all finders and the display of our tracks in the first event; the paths written."""
    paths = [directory / name for name in ("display.html", "event.png", "efficiency-pt.png", "efficiency-eta.png")]
    step = bars.add_task("Drawing", total=len(paths))
    event, tracks = open_events(events)[0], found[0].tracks[0]
    write_display(event, tracks, paths[0], event)
    bars.advance(step)
    plot_event(event, tracks, paths[1], pt_min=2.0)
    bars.advance(step)
    cuts = {"pt": (PT_BINS, "|η| < 4, ≥ 7 hits"), "eta": (ETA_BINS, "pT > 1 GeV, |η| < 4, ≥ 7 hits")}
    for path, (variable, (bins, title)) in zip(paths[2:], cuts.items(), strict=True):
        curves = [Curve(one.name, bins, one.scores.binned[variable]) for one in found]
        plot_efficiency(curves, path, variable, title=title)
        bars.advance(step)
    return paths


def write_tables(
    found: Sequence[Found], stages: dict[str, dict[str, Fraction]], facts: dict[str, Any], directory: Path
) -> list[Path]:
    """The tables in Markdown, and all numbers in JSON."""
    heads = [Column("quantity", " "), *(Column(one.name, one.name) for one in found)]
    parts = [
        markdown_table(rows(found), heads),
        legend(found),
        markdown_table(stage_rows(stages, found[0].scores.events), STAGES),
    ]
    numbers = {"setting": facts, "finders": {one.name: one.scores.to_dict() | {"cost": one.cost} for one in found}}
    numbers["stages"] = {
        stage: {name: {"value": float(f), "passed": int(f.passed), "total": int(f.total)} for name, f in rates.items()}
        for stage, rates in stages.items()
    }
    texts = {"tables.md": "\n\n".join(parts) + "\n", "scores.json": json.dumps(numbers, indent=1) + "\n"}
    for name, text in texts.items():
        with store.atomic(directory / name) as path:
            path.write_text(text, encoding="utf-8")
    return [directory / name for name in texts]


def run(options: argparse.Namespace, console: Console) -> None:
    """Everything, in order."""
    start, load = time.perf_counter(), os.getloadavg()[0]
    events, finders = options.directory / "events", ["network", *(f"ckf-{c}" for c in options.ckf)]
    can_simulate = all(find_spec(name) for name in ("acts", "pythia8mc"))
    if not can_simulate:
        console.print(
            "pyacts or pythia8mc is not installed (they need Linux with glibc >= 2.34): this runs on the one simulated "
            "event that ships with the package (tt̄ + 60 pile-up), without the Kalman filter.\n"
        )
        events, finders, options.events = SHIPPED, ["network"], 1
    with progress(console) as bars:
        if can_simulate:
            make_events(options, events, bars)
        found = [measure(finder, options, events, bars) for finder in finders]
        stages = stage_rates(options, events, bars)
        paths = draw(found, events, options.directory, bars)
    hits = [event.rows("point") for event in open_events(events)]
    facts = {"events": len(hits), "hits": hits, "seed": options.seed, "pileup": options.pileup}
    facts |= {"cores": os.cpu_count(), "load_before": load, "python": platform.python_version()}
    if not can_simulate:
        facts |= {"seed": None, "pileup": 60}
    paths += write_tables(found, stages, facts, options.directory)
    heads = [Column("quantity", " "), *(Column(one.name, one.name) for one in found)]
    about = f"{len(hits)} event{'s' if len(hits) > 1 else ''}, {sum(hits) / len(hits) / 1e3:.1f}k hits each"
    title = f"tt̄ + {facts['pileup']:g} pile-up: {about}"
    console.print(console_table(rows(found), heads, title))
    console.print(legend(found), style="dim", highlight=False)
    console.print(console_table(stage_rows(stages, len(hits)), STAGES, "Pairs of hits, stage by stage"))
    if load > 0.5:
        console.print(f"The machine was busy before this began (load {load:.1f}): the times may be too long.")
    paths = [Path(os.path.relpath(path)) for path in paths]
    for path in paths:
        console.print(f"  {path}", highlight=False, soft_wrap=True)
    console.print(f"Done in {time.perf_counter() - start:.0f} s. Open {paths[0]} in a browser.", soft_wrap=True)


def main() -> None:
    """Simulate collisions, find the tracks, and compare with the Kalman filter of ACTS."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("-o", dest="directory", type=Path, default=Path("demo"), help="where to write (default: demo)")
    parser.add_argument("--events", type=int, default=2)
    parser.add_argument("--pileup", type=float, default=200.0, help="mean number of pile-up collisions")
    parser.add_argument("--seed", type=int, default=2026, help="not 1, 2 or 3, which training and tests use")
    parser.add_argument("--model", type=Path, help="checkpoint of another model than the one that ships")
    parser.add_argument("--ckf", nargs="*", choices="CDEFG", default=["D", "F"], help="configurations of bench/ckf.py")
    options = parser.parse_args()
    options.directory = options.directory.absolute()
    options.model = options.model and options.model.absolute()
    try:
        run(options, Console())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
