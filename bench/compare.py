"""Track finders on the same events, in turns: their tracks, their scores and what they cost."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.measure import Spent, Worker
from cloudchamber.checkpoint import SHIPPED
from cloudchamber.data import DATASETS, EventSource, open_events
from cloudchamber.data.collisions import CollisionsConfig, simulate
from cloudchamber.evaluate import Scores, evaluate
from cloudchamber.event import Event
from cloudchamber.metrics import Fraction, Match, Selection, fake_rate
from cloudchamber.reconstruct import Reconstructor

OURS, GRAPH = SHIPPED
STRICT, FAST, BARE = f"{OURS}@0.95", f"{OURS}-2", f"{OURS}-hits"
NAMES = {OURS: "cloudchamber", STRICT: "cloudchamber, threshold 0.95", FAST: "cloudchamber, 2 passes"}
NAMES |= {BARE: "cloudchamber, no cells", GRAPH: "its graph network"}
NAMES |= {f"ckf-{c}": f"CKF {c}, pT > 0.5" for c in "DE"}
NAMES |= {"ckf-F": "CKF F, all pT", "ckf-G": "CKF G, all pT, 3 passes"}
CKF = tuple(finder.removeprefix("ckf-") for finder in NAMES if finder.startswith("ckf"))
#: Tracks such as any finder here looks for.
LONG = Selection(pt_min=0.5, eta_max=4.0, min_track_hits=7)
_PACKAGES = ("torch", "numba", "numpy", "pyacts", "onnxruntime")

Progress = Callable[[], object]


@dataclass(frozen=True)
class Cost:
    """Wall and CPU seconds, ``(repetitions, events)``, and the largest memory of the process in bytes."""

    seconds: NDArray[np.float64]
    cpu: NDArray[np.float64]
    memory: int

    @classmethod
    def of(cls, spent: Sequence[Sequence[Spent]]) -> Cost:
        """From what the events cost, repetition by repetition."""
        seconds, cpu = ([[getattr(one, name) for one in turn] for turn in spent] for name in ("seconds", "cpu"))
        return cls(np.array(seconds), np.array(cpu), max(one.memory for turn in spent for one in turn))

    def per_event(self, name: str) -> tuple[float, float]:
        """``seconds`` or ``cpu`` of a mean event: the median of the repetitions, and half of their range."""
        turns = getattr(self, name).mean(axis=1)
        return float(np.median(turns)), float(np.ptp(turns) / 2)

    def ratio(self, other: Cost, name: str) -> float:
        """How many times more than the ``other`` this took: the median of the ratios within a repetition."""
        return float(np.median(getattr(self, name).sum(axis=1) / getattr(other, name).sum(axis=1)))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON."""
        return {"seconds": self.seconds.tolist(), "cpu": self.cpu.tolist(), "memory": self.memory}


@dataclass(frozen=True)
class Found:
    """What one finder made of the events: its tracks, their scores, and its cost."""

    name: str
    tracks: Sequence[Event]
    scores: Scores
    cost: Cost
    long_fakes: Fraction  # of the tracks of ``LONG``


def make_events(directory: Path, events: int, pileup: float, seed: int, advance: Progress = lambda: None) -> None:
    """Simulate events, as ``cloudchamber simulate collisions`` does, and write them; others there are removed."""
    for path in directory.glob("event*.parquet"):
        path.unlink()
    for number, event in enumerate(simulate(CollisionsConfig(pileup=pileup, seed=seed), events)):
        DATASETS["parquet"].write(directory, f"event{number:09d}", event)
        advance()


def run_in_turns(
    finders: Sequence[str],
    events: EventSource,
    directory: Path,
    model: Path | None = None,
    repeat: int = 1,
    advance: Callable[[str], object] = lambda finder: None,
    models: Mapping[str, Path] = MappingProxyType({}),
) -> dict[str, Cost]:
    """Every finder on every event, one after the other, ``repeat`` times; the tracks go to ``directory``.

    ``models`` are the checkpoints of finders that do not ship, ``model`` stands for that of ours. Each finder has a
    process of its own, which waits while another works. Raises ``UserError`` when one fails.
    """
    spent: dict[str, list[list[Spent]]] = {finder: [] for finder in finders}
    with ExitStack() as stack:
        given = {**(dict.fromkeys((OURS, STRICT, FAST, BARE), model) if model else {}), **models}
        workers = [stack.enter_context(Worker(f, events.path, directory / f, given.get(f))) for f in finders]
        for _ in range(repeat):
            for turns in spent.values():
                turns.append([])
            for index in range(len(events)):
                for worker in workers:
                    spent[worker.finder][-1].append(worker(index))
                    advance(worker.finder)
    return {finder: Cost.of(turns) for finder, turns in spent.items()}


def compare(
    finders: Sequence[str],
    events: EventSource,
    directory: Path,
    model: Path | None = None,
    repeat: int = 1,
    advance: Callable[[str], object] = lambda finder: None,
    models: Mapping[str, Path] = MappingProxyType({}),
) -> list[Found]:
    """As ``run_in_turns``, and score the tracks against the truth of the events."""
    costs = run_in_turns(finders, events, directory, model, repeat, advance, models)
    found = []
    for finder, cost in costs.items():
        tracks = open_events(directory / f"{finder}.parquet")
        matches = ((Match.of(one, event), one) for one, event in zip(tracks, events, strict=True))
        fakes = [fake_rate(match, tracks=LONG.tracks(match, one)) for match, one in matches]
        scores = evaluate(tracks, events)
        found.append(Found(NAMES.get(finder, finder), tracks, scores, cost, sum(fakes[1:], fakes[0])))
    return found


def stage_rates(
    finder: Reconstructor, events: Sequence[Event], advance: Progress = lambda: None
) -> dict[str, dict[str, Fraction]]:
    """Efficiency and purity of the edges after each stage, all events together."""
    total: dict[str, dict[str, Fraction]] = {}
    for event in events:
        for stage, rates in finder.stage_rates(event).items():
            known = total.setdefault(stage, {})
            for name, fraction in rates.items():
                known[name] = known[name] + fraction if name in known else fraction
        advance()
    return total


def machine() -> dict[str, Any]:
    """Processor, cores, load before the run, and versions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "packages": versions,
    }
