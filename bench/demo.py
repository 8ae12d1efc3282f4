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
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bench.compare import CKF, GRAPH, NAMES, OURS, Found, compare, machine, make_events, stage_rates
from bench.tables import STAGES, heads, legend, rows, stage_table
from bench.tracks import numbers, write
from cloudchamber.data import open_events
from cloudchamber.errors import UserError
from cloudchamber.evaluate import ETA_BINS, PT_BINS
from cloudchamber.event import Event
from cloudchamber.reconstruct import Reconstructor
from cloudchamber.report import Curve, console_table, markdown_table, plot_efficiency, plot_event, write_display
from cloudchamber.report.scores import stage_rows

EXAMPLE = Path(str(files("cloudchamber") / "data" / "example.parquet"))


@contextmanager
def progress(console: Console) -> Iterator[Progress]:
    """Bars with the time that has gone by, one per step."""
    columns = SpinnerColumn(), TextColumn("{task.description:42}"), BarColumn(20), MofNCompleteColumn()
    with Progress(*columns, TimeElapsedColumn(), console=console) as bars:
        yield bars


def draw(found: Sequence[Found], event: Event, directory: Path, bars: Progress) -> list[Path]:
    """Plots of all finders and the display of our tracks in the first ``event``; the paths written."""
    paths = [directory / name for name in ("display.html", "event.png", "efficiency-pt.png", "efficiency-eta.png")]
    step = bars.add_task("Drawing", total=len(paths))
    tracks = found[0].tracks[0]
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


def run(options: argparse.Namespace, console: Console) -> None:
    """Everything, in order."""
    start, facts = time.perf_counter(), machine()
    path, finders = options.directory / "events", [OURS, GRAPH, *(f"ckf-{c}" for c in options.ckf)]
    facts |= {"seed": options.seed, "pileup": options.pileup}
    can_simulate = all(find_spec(name) for name in ("acts", "pythia8mc"))
    if not can_simulate:
        console.print(
            "pyacts or pythia8mc is not installed (they need Linux with glibc >= 2.34): this runs on the one simulated "
            "event that ships with the package (tt̄ + 60 pile-up), without the Kalman filter.\n"
        )
        path, finders = EXAMPLE, [OURS, GRAPH]
        facts |= {"seed": None, "pileup": 60}
    with progress(console) as bars:
        if can_simulate:
            step = bars.add_task(f"Simulating tt̄ + {options.pileup:g} pile-up", total=options.events)
            make_events(path, options.events, options.pileup, options.seed, partial(bars.advance, step))
        events = open_events(path)
        steps = {f: bars.add_task(f"Finding tracks: {NAMES[f]}", total=len(events)) for f in finders}
        found = compare(finders, events, options.directory, options.model, advance=lambda f: bars.advance(steps[f]))
        step = bars.add_task("Following true pairs of hits through the stages", total=len(events))
        stages = stage_rates(Reconstructor(options.model), events, partial(bars.advance, step))
        paths = draw(found, events[0], options.directory, bars)
    names = [one.name for one in found]
    text = "\n\n".join([markdown_table(rows(found), heads(found)), legend(names), stage_table(stages, len(events))])
    hits = [event.rows("point") for event in events]
    values = {"setting": {**facts, "hits": hits}, **numbers(found, stages)}
    paths += write(options.directory, {"tables.md": text, "scores.json": json.dumps(values, indent=1)})
    about = f"{len(hits)} event{'s' if len(hits) > 1 else ''}, {sum(hits) / len(hits) / 1e3:.1f}k hits each"
    console.print(console_table(rows(found), heads(found), f"tt̄ + {facts['pileup']:g} pile-up: {about}"))
    console.print(legend(names), style="dim", highlight=False)
    console.print(console_table(stage_rows(stages, len(hits)), STAGES, "Pairs of hits, stage by stage"))
    if (load := facts["load_before"]) > 0.5:
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
    parser.add_argument("--ckf", nargs="*", choices=CKF, default=["E", "G"], help="configurations of bench/ckf.py")
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
