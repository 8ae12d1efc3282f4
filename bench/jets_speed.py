"""Taggers on ragged batches of jets beside the same networks, with the same weights, on padded ones.

    python -m bench.jets_speed JETS -o jets-speed.md

first checks that both give the same, then lets them take turns on every batch, in one process; cells are medians.
Features are made before, and padded batches filled up to their longest jet; what the ragged network needs to find its
way is made while the clock runs. Memory is what a process of its own needs on top of its inputs at most.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.compare import machine
from bench.measure import peak_memory
from bench.padded import Padded, Ragged, padded_inputs, ragged_inputs
from bench.tracks import describe
from cloudchamber import checkpoint
from cloudchamber.config import load
from cloudchamber.data.jetsource import open_jets
from cloudchamber.data.store import atomic
from cloudchamber.errors import UserError
from cloudchamber.event import Event
from cloudchamber.export import Network, export
from cloudchamber.losses import cross_entropy
from cloudchamber.report import Column, markdown_table, memory
from cloudchamber.tasks.tag import Tag
from cloudchamber.threads import use_threads

CONFIGS = Path(__file__).parent.parent / "configs"
NETWORKS = ("jets-pfn", "jets-particlenet", "jets-part")
SAME = 1e-4  # of logits
ONNX = "ONNX Runtime"
PATIENCE = 1800  # seconds, for the memory of one way
Row = dict[str, Any]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Batch:
    """Some jets: the inputs of each way, and their labels."""

    inputs: dict[str, tuple[Tensor, ...]]
    label: Tensor


Way = Callable[[Batch], Any]


def made(name: str, jets: Event) -> Tag:
    """The network of a configuration with random weights."""
    _, task = checkpoint.start(load(CONFIGS / f"{name}.toml"))
    assert isinstance(task, Tag)
    task.fit([jets])
    return task


def batches(task: Tag, jets: Event, size: int, number: int) -> list[Batch]:
    """``number`` batches of ``size`` random jets, the same for every network."""
    random = torch.Generator().manual_seed(1)
    found = []
    for _ in range(number):
        event = task.prepare(jets.take(torch.randint(len(jets), (size,), generator=random)))
        inputs = {"ragged": ragged_inputs(task, event), "padded": padded_inputs(task, event)}
        found.append(Batch({**inputs, ONNX: tuple(task.arrays(event).values())}, event.scene["label"]))
    return found


def check(modules: dict[str, nn.Module], given: Sequence[Batch]) -> float:
    """The largest difference of logits between the two; raises ``RuntimeError`` above ``SAME``."""
    with torch.inference_mode():
        pairs = [[module(*one.inputs[name]) for name, module in modules.items()] for one in given]
    worst = max(float((first - second).abs().max()) for first, second in pairs)
    if not worst <= SAME:
        raise RuntimeError(f"ragged and padded differ by {worst:.1e}")
    return worst


def infer(modules: Mapping[str, Callable[..., Any]]) -> dict[str, Way]:
    """What is timed of a batch: the logits."""

    def logits(name: str, one: Batch) -> Any:
        with torch.inference_mode():
            return modules[name](*one.inputs[name])

    return {name: partial(logits, name) for name in modules}


def learn(modules: Mapping[str, nn.Module]) -> dict[str, Way]:
    """What is timed of a batch: loss, gradient and step, of copies."""

    def step(name: str, module: nn.Module, optimizer: torch.optim.Optimizer, one: Batch) -> None:
        torch.autograd.backward([cross_entropy(module(*one.inputs[name]), one.label)])
        optimizer.step()
        optimizer.zero_grad()

    copies = {name: deepcopy(module) for name, module in modules.items()}
    return {name: partial(step, name, c, torch.optim.AdamW(c.parameters(), 1e-3)) for name, c in copies.items()}


def turns(ways: dict[str, Way], given: Sequence[Batch], clock: Clock = time.perf_counter) -> dict[str, list[float]]:
    """Seconds of each way for each batch; they begin in turn, and the first batch is done once before."""
    for way in ways.values():
        way(given[0])
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for number, one in enumerate(given):
        for name in list(ways) if number % 2 else list(ways)[::-1]:
            start = clock()
            ways[name](one)
            spent[name].append(clock() - start)
    return spent


def measured(name: str, jets: Event, size: int, number: int, threads: int) -> list[Row]:
    """Rows of one network, one size of batches and one number of threads."""
    use_threads(threads)
    task = made(name, jets).eval()
    given = batches(task, jets, size, number)
    modules: dict[str, nn.Module] = {"ragged": Ragged(task), "padded": Padded(task)}
    difference = check(modules, given[:4])
    # CPU time of a single thread is what other programs disturb least
    clock = time.process_time if threads == 1 else time.perf_counter
    with tempfile.TemporaryDirectory() as directory:
        network = exported(task, name, Path(directory), threads)
        spent = {"inference": turns(infer(modules | ({ONNX: network} if network else {})), given, clock)}
        if size > 1:
            spent["training"] = turns(learn(modules), given, clock)
    rows = []
    for what, times in spent.items():
        base = np.array(times["ragged"])
        for way, seconds in times.items():
            ratio = np.array(seconds) / base
            spread = np.quantile(ratio, [0.16, 0.84])
            row = {
                "network": name,
                "what": what,
                "batch": size,
                "threads": threads,
                "way": way,
                "difference": difference,
            }
            row |= {"rate": size / float(np.median(seconds)), "ratio": float(np.median(ratio))}
            rows.append(row | {"low": float(spread[0]), "high": float(spread[1])})
    return rows


def exported(task: Tag, name: str, directory: Path, threads: int) -> Network | None:
    """The network in ONNX Runtime; None where that is not installed."""
    run = load(CONFIGS / f"{name}.toml")
    path = directory / "model.safetensors"
    checkpoint.save(path, {f"weights/{key}": tensor for key, tensor in task.state_dict().items()}, run)
    try:
        manifest = export(path, directory / "onnx")
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return None
    return Network(directory / "onnx" / json.loads(manifest.read_text())["stages"][0]["file"], threads=threads)


def probe(name: str, what: str, way: str, path: Path, size: int) -> int:
    """Bytes that some batches need at most, beyond what the process had before. For a process of its own."""
    use_threads(1)
    jets = open_jets(path).range(0, 4 * size)
    task = made(name, jets).eval()
    small, given = batches(task, jets, 2, 1), batches(task, jets, size, 4)
    modules: dict[str, nn.Module] = {"ragged": Ragged(task), "padded": Padded(task)}
    ways = infer(modules) if what == "inference" else learn(modules)
    ways[way](small[0])  # compiles, and makes the state of the optimizer
    before = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    Path("/proc/self/clear_refs").write_text("5")  # the largest memory so far is forgotten
    for one in given:
        ways[way](one)
    return peak_memory() - before


def memories(names: Sequence[str], path: Path, size: int) -> list[Row]:
    """A row for each network: what ``probe`` finds, training and inference, ragged and padded."""
    rows = []
    for name in names:
        row: Row = {"network": name}
        for what in ("training", "inference"):
            for way in ("ragged", "padded"):
                command = [sys.executable, "-m", "bench.jets_speed", str(path), "--probe", name, what, way, str(size)]
                said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout
                row[f"{what} {way}"] = int(said)
        rows.append(row)
    return rows


def tables(rows: list[Row], needs: list[Row], jets: Event, size: int) -> str:
    """Markdown."""
    count = jets.count["point"].double()
    speed = [Column("network"), Column("what"), Column("batch"), Column("threads"), Column("way")]
    speed += [Column("rate", "jets/s"), Column("time", "time, ragged = 1")]
    for row in rows:
        row["time"] = f"{row['ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
    heads = [Column("network"), *(Column(key, key, memory) for key in needs[0] if key != "network")] if needs else []
    worst = max(row["difference"] for row in rows)
    intro = (
        f"{len(jets)} jets of {count.mean():.0f} constituents on average, {int(count.max())} at most. "
        f"Logits of ragged and padded differ by at most {worst:.0e}. "
        f"Ratios of batches: median (68% of them); with one thread of CPU time. {describe(machine())}"
    )
    parts = [intro, markdown_table(rows, speed)]
    if needs:
        parts += [f"Memory beyond the inputs at most, batches of {size}, one thread:", markdown_table(needs, heads)]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Measure on the jets of a directory or file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("jets", type=Path)
    parser.add_argument("-o", dest="path", type=Path, default=Path("jets-speed.md"), help="Markdown file to write")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--sizes", nargs="+", type=int, default=(1, 256), help="jets in a batch")
    parser.add_argument("--threads", nargs="+", type=int, default=(1, 2))
    parser.add_argument("--batches", type=int, default=12, help="of the larger sizes; of single jets 20 times as many")
    parser.add_argument("--limit", type=int, default=4000, help="jets at most")
    parser.add_argument("--probe", nargs=4, metavar=("NETWORK", "WHAT", "WAY", "SIZE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        if options.probe:
            name, what, way, size = options.probe
            print(probe(name, what, way, options.jets, int(size)))
            return
        source = open_jets(options.jets)
        jets, rows = source.range(0, min(len(source), options.limit)), []
        for name in options.networks:
            for size in options.sizes:
                for threads in options.threads:
                    number = options.batches * (20 if size == 1 else 1)
                    rows += measured(name, jets, size, number, threads)
                    print(*rows[-5:], sep="\n", file=sys.stderr)
        needs = memories(options.networks, options.jets, max(options.sizes))
        with atomic(options.path) as path:
            path.write_text(tables(rows, needs, jets, max(options.sizes)))
        print(options.path.read_text(), end="")
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
