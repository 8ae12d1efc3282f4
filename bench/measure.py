"""A track finder in a process of its own: its tracks, its time and its memory.

    python -m bench.measure follow events -o PATH

says "ready", reads numbers of events, one per line, from standard input, finds the tracks of each and answers with one
line of JSON (wall and CPU seconds, peak memory). When the input ends it writes the tracks of all events it was asked
for, in the order of the source, to ``PATH.parquet``. ``follow`` and ``graph`` are models that ship (``--model`` takes
another, under any name), ``follow@0.9`` is one with that threshold, ``follow-2`` with two passes alone, ``follow-hits``
without the cells of the hits, ``ckf-X`` configuration X of ``bench/ckf.py``.
``Worker`` is the other side of the pipe.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from cloudchamber.data import open_events, store
from cloudchamber.errors import UserError
from cloudchamber.event import Event

#: Event -> tracks, seconds, CPU seconds.
Finder = Callable[[Event], tuple[Event, float, float]]


def trained(
    model: str, first: Event, threshold: float | None = None, passes: int | None = None, cells: bool = True
) -> Finder:
    """The model: hits in memory to fitted tracks in memory. Runs the first event once before, which compiles."""
    from cloudchamber.reconstruct import Reconstructor

    finder = Reconstructor(model, threshold=threshold, passes=passes)
    finder(first)

    def find(event: Event) -> tuple[Event, float, float]:
        event = event if cells else event.with_level("cell", {})
        wall, cpu = time.perf_counter(), time.process_time()
        tracks = finder(event)
        return tracks, time.perf_counter() - wall, time.process_time() - cpu

    return find


def kalman(config: str) -> Finder:
    """The combinatorial Kalman filter: its algorithms only, without the hand-over of hits and tracks through Python."""
    try:
        from bench.acts_io import geometry
        from bench.ckf import Ckf
    except ImportError as error:
        raise UserError(f"the Kalman filter needs pyacts: pip install 'cloudchamber[simulate]' ({error})") from None

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


@dataclass(frozen=True)
class Spent:
    """What one event cost: wall and CPU seconds, and the largest memory of the process so far, in bytes."""

    seconds: float
    cpu: float
    memory: int


class Worker:
    """A process with one finder in it, which may be asked for events one by one, so that finders can take turns.

    ``finder`` and ``model``: see above. Use it as a context; the tracks are in ``tracks`` when it is left. Raises
    ``UserError`` with the last line that the process wrote to its standard error when that ends before its time.
    """

    def __init__(self, finder: str, events: Path, path: Path, model: Path | None = None) -> None:
        command = [sys.executable, "-m", "bench.measure", finder, str(events.absolute()), "-o", str(path.absolute())]
        command += ["--model", str(model.absolute())] if model else []
        self.finder, self.tracks = finder, path.with_name(f"{path.name}.parquet")
        self.log = path.with_name(f"{path.name}.log")
        path.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, cwd=_ROOT
            )
        self._answer()  # it is ready, so that its start takes no time from another

    def __call__(self, index: int) -> Spent:
        """Find the tracks of the event with this number in the source."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended: its last words follow
            self.process.stdin.write(f"{index}\n")
            self.process.stdin.flush()
        return Spent(**json.loads(self._answer()))

    def _answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self._fail()
        return line

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self.process.kill()
        if self.process.returncode is None:
            self.process.communicate()
        if kind is None and self.process.returncode:
            self._fail()
        self.log.unlink(missing_ok=True)

    def _fail(self) -> NoReturn:
        self.process.communicate()
        status = self.process.returncode
        last = (self.log.read_text().strip().splitlines() or [f"it ended with status {status}"])[-1]
        raise UserError(f"{self.finder}: {last.removeprefix('error: ')}")


_ROOT = Path(__file__).parents[1]


def main() -> None:
    """Measure one finder on events of a directory or file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument(
        "finder",
        help="follow, graph, follow@0.9, follow-2, follow-hits, ckf-X, or any name with --model: see above",
    )
    parser.add_argument("events", type=Path)
    parser.add_argument("-o", dest="path", type=Path, required=True, help="where to write, without suffix")
    parser.add_argument("--model", help="checkpoint of another model")
    arguments = parser.parse_args()
    try:
        source = open_events(arguments.events)
        name, _, threshold = arguments.finder.partition("@")
        kind, _, config = name.partition("-")
        least = float(threshold) if threshold else None
        passes = int(config) if kind == "follow" and config.isdecimal() else None
        bare = kind == "follow" and config == "hits"
        model = arguments.model or (kind if passes or bare else name)
        finder = kalman(config) if kind == "ckf" else trained(model, source[0], least, passes, not bare)
        tracks: dict[int, Event] = {}
        answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what libraries print must not come between the answers
        print("ready", file=answers, flush=True)
        for line in sys.stdin:
            index = int(line)
            tracks[index], wall, cpu = finder(source[index])
            print(json.dumps({"seconds": wall, "cpu": cpu, "memory": peak_memory()}), file=answers, flush=True)
        store.write(
            arguments.path.with_name(f"{arguments.path.name}.parquet"), [tracks[index] for index in sorted(tracks)]
        )
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
