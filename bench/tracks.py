"""Our reconstruction beside the Kalman filter of ACTS on the same events: scores, rates, time and memory.

    python -m bench.tracks -o bench-tracks --real DIR

simulates events, runs the finders on them in turns, each in a process of its own, and writes ``tracks.md`` and
``tracks.json``. ``--real`` adds a table for a directory of other events with truth, such as those of the TrackML
challenge. ``--help`` lists the settings.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.compare import BARE, CKF, FAST, GRAPH, NAMES, OURS, STRICT, Found, compare, machine, make_events, stage_rates
from bench.stages import stage_times
from bench.tables import TIMES, heads, legend, rows, stage_table, time_rows
from cloudchamber.data import EventSource, open_events
from cloudchamber.data.store import atomic
from cloudchamber.errors import UserError
from cloudchamber.metrics import Fraction
from cloudchamber.reconstruct import Reconstructor
from cloudchamber.report import markdown_table


def section(title: str, events: EventSource, options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """One set of events: its tables in Markdown, and all numbers for JSON."""
    print(title, flush=True)
    directory = options.directory / "tracks" / events.path.name
    without = [BARE] if any(event.cell for event in events) else []
    finders = [OURS, *without, STRICT, FAST, GRAPH, *options.also, *(f"ckf-{config}" for config in options.ckf)]

    def advance(name: str) -> None:
        print(".", end="", flush=True)

    found = compare(finders, events, directory, options.model, options.repeat, advance, options.also)
    print()
    finder = Reconstructor(options.model)
    rates, times = stage_rates(finder, events), stage_times(finder, list(events))
    hits = [event.rows("point") for event in events]
    about = f"{len(hits)} events of {sum(hits) / len(hits) / 1e3:.1f}k hits on average."
    parts = [f"## {title}", about, markdown_table(rows(found), heads(found))]
    parts += ["### Pairs of hits, stage by stage", stage_table(rates, len(hits))]
    parts += ["### Time, stage by stage", markdown_table(time_rows(times), TIMES)]
    return "\n\n".join(parts), {"title": title, "hits": hits, **numbers(found, rates), "stage_times": times}


def numbers(found: list[Found], rates: Mapping[str, Mapping[str, Fraction]]) -> dict[str, Any]:
    """Plain numbers for JSON: scores and cost of each finder, and our rates stage by stage."""
    stages = {
        stage: {name: {"value": float(f), "passed": int(f.passed), "total": int(f.total)} for name, f in own.items()}
        for stage, own in rates.items()
    }
    finders = {one.name: one.scores.to_dict() | {"cost": one.cost.to_dict()} for one in found}
    return {"finders": finders, "stages": stages}


def write(directory: Path, texts: Mapping[str, str]) -> list[Path]:
    """Write texts, by the name of their file, atomically; the paths."""
    for name, text in texts.items():
        with atomic(directory / name) as path:
            path.write_text(text.rstrip() + "\n", encoding="utf-8")
    return [directory / name for name in texts]


def describe(facts: Mapping[str, Any]) -> str:
    """The machine in one line."""
    packages = ", ".join(f"{name} {number}" for name, number in facts["packages"].items())
    busy = f", load before the run {facts['load_before']:.1f}" if facts["load_before"] > 0.5 else ""
    return f"{facts['processor']}, {facts['cores']} cores{busy}; Python {facts['python']}, {packages}."


def run(options: argparse.Namespace) -> None:
    """All sets of events, and the files."""
    facts = machine()
    path = options.events_from or options.directory / "simulated"
    if not options.events_from:
        make_events(path, options.events, options.pileup, options.seed)
    sets = {"Simulated events": open_events(path)[: options.events]}
    if options.real:
        sets["Real events"] = open_events(options.real)[: options.real_events]
    sections = {title: section(title, events, options) for title, events in sets.items()}
    head = f"# Track finders side by side\n\n{describe(facts)} Times: {options.repeat} repetitions."
    finders = list(next(iter(sections.values()))[1]["finders"])
    text = "\n\n".join([head, *(text for text, _ in sections.values()), legend(finders)])
    settings = json.loads(json.dumps(vars(options), default=str))
    values = {"machine": facts, "settings": settings, "sets": {title: found for title, (_, found) in sections.items()}}
    print(text)
    for written in write(options.directory, {"tracks.md": text, "tracks.json": json.dumps(values, indent=1)}):
        print(written)


def _named(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or name in NAMES or "/" in name:
        raise argparse.ArgumentTypeError(f"expected NAME=CHECKPOINT with a new name, found {text!r}")
    return name, Path(path)


def main() -> None:
    """Compare our reconstruction with the Kalman filter of ACTS on the same events."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("-o", dest="directory", type=Path, default=Path("bench-tracks"), help="where to write")
    parser.add_argument("--events", type=int, default=4, help="how many simulated ones")
    parser.add_argument("--pileup", type=float, default=200.0, help="mean number of pile-up collisions")
    parser.add_argument("--seed", type=int, default=2026, help="not 1, 2 or 3, which training and tests use")
    parser.add_argument("--events-from", type=Path, help="directory of events to take instead of simulating")
    parser.add_argument("--real", type=Path, help="directory of other events with truth, for a table of their own")
    parser.add_argument("--real-events", type=int, default=4, help="the first so many of them")
    parser.add_argument("--repeat", type=int, default=3, help="how often every finder is run on every event")
    parser.add_argument("--model", type=Path, help="checkpoint of another model than the one that ships")
    parser.add_argument("--also", nargs="*", type=_named, default=[], metavar="NAME=CHECKPOINT", help="further finders")
    parser.add_argument("--ckf", nargs="*", choices=CKF, default=["E", "F", "G"], help="see bench/ckf.py")
    options = parser.parse_args()
    options.directory, options.also = options.directory.absolute(), dict(options.also)
    try:
        run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
