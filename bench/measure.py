"""A track finder in a process of its own: its tracks, its time and its memory.

    python -m bench.measure network demo/events -o demo/network
    python -m bench.measure ckf-D demo/events -o demo/ckf-D

writes the tracks, ``PATH.parquet``, and the cost, ``PATH.json``, and prints the name of each event when it is done.
``network`` is the model that ships (``--model`` takes another), ``ckf-X`` configuration X of ``bench/ckf.py``.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cloudchamber.data import open_events, store
from cloudchamber.errors import UserError
from cloudchamber.event import Event

#: Event -> tracks, seconds, CPU seconds.
Finder = Callable[[Event], tuple[Event, float, float]]


def network(model: str | None, first: Event) -> Finder:
    """The model: hits in memory to fitted tracks in memory. Runs the first event once before, which compiles."""
    from cloudchamber.reconstruct import Reconstructor

    finder = Reconstructor(model)
    finder(first)

    def find(event: Event) -> tuple[Event, float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        tracks = finder(event)
        return tracks, time.perf_counter() - wall, time.process_time() - cpu

    return find


def kalman(config: str) -> Finder:
    """The combinatorial Kalman filter: its algorithms only, without the hand-over of hits and tracks through Python."""
    from bench.ckf import Ckf, geometry

    finder = Ckf(config)
    geometry()

    def find(event: Event) -> tuple[Event, float, float]:
        result = finder(event)
        return result.tracks, sum(result.seconds.values()), sum(result.cpu.values())

    return find


def peak_memory() -> int:
    """The largest memory that this process ever had, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the process that started this one, too
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    """Measure one finder on the events of a directory or file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("finder", help="network, or ckf-C to ckf-G")
    parser.add_argument("events", type=Path)
    parser.add_argument("-o", dest="path", type=Path, required=True, help="where to write, without suffix")
    parser.add_argument("--model", help="checkpoint of another model")
    arguments = parser.parse_args()
    try:
        source = open_events(arguments.events)
        name, _, config = arguments.finder.partition("-")
        finder = kalman(config) if name == "ckf" else network(arguments.model, source[0])
        tracks: list[Event] = []
        cost: dict[str, Any] = {"finder": arguments.finder, "seconds": [], "cpu": []}
        for event_name, event in zip(source.names, source, strict=True):
            found, wall, cpu = finder(event)
            tracks.append(found)
            cost["seconds"].append(wall)
            cost["cpu"].append(cpu)
            print(event_name, flush=True)
        cost["memory"] = peak_memory()
        store.write(arguments.path.with_suffix(".parquet"), tracks)
        with store.atomic(arguments.path.with_suffix(".json")) as path:
            path.write_text(json.dumps(cost))
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
