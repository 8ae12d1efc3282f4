"""Throughput per core and memory of ``cloudchamber reconstruct`` with one worker on one core and two on two.

    python -m bench.workers -o workers.md

Events: the shipped one (tt̄ + 60 pile-up) several times, and many small ones, each of other ones of its particles and
noise hits. All runs are of the command line, in turn, on as many cores as workers; the first two events of each worker
do not count. On a busy machine only the CPU seconds mean something. Needs Linux.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from bench.compare import machine
from bench.demo import EXAMPLE
from bench.tracks import describe, write
from cloudchamber.data import open_events, store
from cloudchamber.errors import UserError
from cloudchamber.event import Event
from cloudchamber.report import Column, markdown_table, memory

TICKS = os.sysconf("SC_CLK_TCK")
COLUMNS = ("id", "x", "y", "z", "volume", "layer", "module")
#: Events of which memory is still allowed to grow: buffers find their size.
WARM = 100


@dataclass(frozen=True)
class Sample:
    """When an event was done: seconds, CPU seconds of all processes, resident memory (bytes) of main and workers."""

    wall: float
    cpu: float
    memory: tuple[int, ...]


def copies(number: int) -> Iterator[Event]:
    """The shipped event, several times, without truth."""
    event = open_events(EXAMPLE)[0]
    for index in range(number):
        yield _some(event, torch.ones(event.rows("point"), dtype=torch.bool), index)


def small(number: int) -> Iterator[Event]:
    """A share, 2 to 10%, of the particles and of the noise of the shipped event."""
    event, random = open_events(EXAMPLE)[0], torch.Generator().manual_seed(1)
    owner = event.point["object"]
    for index in range(number):
        share = 0.02 + 0.08 * torch.rand(1, generator=random)
        kept = torch.rand(event.rows("object"), generator=random)[owner] < share
        noise = torch.rand(len(owner), generator=random) < share
        yield _some(event, torch.where(owner < 0, noise, kept), index)


def _some(event: Event, rows: torch.Tensor, number: int) -> Event:
    return Event(point={name: event.point[name][rows] for name in COLUMNS}, scene={"id": torch.tensor([number])})


def run(events: Path, directory: Path, workers: int, model: Path | None) -> list[Sample]:
    """A sample for every event, as long as all processes are there."""
    command = [sys.executable, "-m", "cloudchamber", "reconstruct", str(events), "-o", str(directory)]
    command += ["--workers", str(workers), *(["--model", str(model)] if model else [])]
    pin = partial(os.sched_setaffinity, 0, sorted(os.sched_getaffinity(0))[:workers])
    samples = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=pin) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.endswith(": done\n") and (sample := _sample(process.pid, workers)):
                samples.append(sample)
    if process.returncode:
        raise UserError(f"{' '.join(command)}: ended with status {process.returncode}")
    return samples


def _sample(main: int, workers: int) -> Sample | None:
    try:
        children = [
            pid for pid in _read(main, f"task/{main}/children").split() if "spawn_main" in _read(pid, "cmdline")
        ]
        pids = [main, *children]
        times = [_read(pid, "stat").rpartition(")")[2].split()[11:13] for pid in pids]
        sizes = [int(_read(pid, "statm").split()[1]) * os.sysconf("SC_PAGE_SIZE") for pid in pids]
    except OSError:  # one has just ended
        return None
    cpu = sum(int(ticks) for pair in times for ticks in pair) / TICKS
    return Sample(time.perf_counter(), cpu, tuple(sizes)) if len(pids) == 1 + workers * (workers > 1) else None


def _read(pid: object, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text()


def rates(samples: list[Sample], workers: int) -> tuple[float, float]:
    """Events per second and core, and CPU seconds per event."""
    first, last = samples[2 * workers - 1], samples[-1]
    events = len(samples) - 2 * workers
    return events / (last.wall - first.wall) / workers, (last.cpu - first.cpu) / events


def growth(samples: list[Sample]) -> list[dict[str, Any]]:
    """For every process its memory after ``WARM`` events and at the end, and the slope of a line fitted in between."""
    sizes = np.array([sample.memory for sample in samples[WARM:]], np.float64)
    events = np.arange(len(sizes)) / 1000
    rows = []
    for number, size in enumerate(sizes.T):
        (slope, _), errors = np.polyfit(events, size, 1, cov=True)
        text = f"{slope / 1e6:+.2f} ± {errors[0, 0] ** 0.5 / 1e6:.2f}"
        row = {"process": f"worker {number}" if number else "main", "slope": text}
        rows.append(row | {"first": size[:50].mean(), "last": size[-50:].mean(), "peak": size.max()})
    return rows


def throughput(name: str, events: Path, options: argparse.Namespace, directory: Path) -> tuple[list[Any], list[Sample]]:
    """A row of the table for one and for two workers, and the samples of the last run with two."""
    found: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    for _ in range(options.rounds):
        for workers in found:
            samples = run(events, directory, workers, options.model)
            found[workers].append(rates(samples, workers))
            print(f"{name}, {workers}: {found[workers][-1][0]:.3g}/s per core", file=sys.stderr)
    rows = []
    for workers, values in found.items():
        speed, cpu = zip(*values, strict=True)
        row = {"events": name, "workers": workers, "rate": median(speed), "cpu": median(cpu)}
        for key, of in (("ratio", 0), ("cpu ratio", 1)):
            ratios = [one[of] / alone[of] for one, alone in zip(values, found[1], strict=True)]
            row[key] = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        rows.append(row)
    return rows, samples


def main() -> None:
    """Measure, and write tables in Markdown."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("-o", dest="path", type=Path, default=Path("workers.md"), help="where to write")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind; the median counts")
    parser.add_argument("--small", type=int, default=1000, help="small events")
    parser.add_argument("--copies", type=int, default=12, help="copies of the shipped event")
    parser.add_argument("--model", type=Path, help="checkpoint of another model than the one that ships")
    options = parser.parse_args()
    facts, rows = machine(), []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for kind, events in (("tt̄ + 60 pile-up", copies(options.copies)), ("small", small(options.small))):
            path = directory / f"{kind}.parquet"
            store.write(path, events)
            hits = np.mean([event.rows("point") for event in open_events(path)])
            more, samples = throughput(f"{kind}, {hits / 1000:.1f}k hits", path, options, directory / "out")
            rows += more
    heads = [Column("events"), Column("workers"), Column("rate", "events/s per core"), Column("ratio", "over 1 worker")]
    heads += [Column("cpu", "CPU s per event"), Column("cpu ratio", "over 1 worker")]
    sizes = [
        Column("process"),
        *(
            Column(key, text, memory)
            for key, text in (("first", f"memory after {WARM} events"), ("last", "at the end"), ("peak", "most"))
        ),
    ]
    text = "\n\n".join(
        [
            f"Median of {options.rounds} runs (least to most), workers on as many cores. {describe(facts)}",
            markdown_table(rows, heads),
            f"Resident memory over {options.small} small events in a row, two workers:",
            markdown_table(growth(samples), [*sizes, Column("slope", "MB per 1000 events")]),
        ]
    )
    write(options.path.parent, {options.path.name: text})
    print(text)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
