"""Toy events: helices through barrel layers numbered as in the TrackML detector, small and the same in every run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cloudchamber import checkpoint
from cloudchamber.config import parse
from cloudchamber.event import Event
from cloudchamber.physics import Helix, hit_sigmas
from cloudchamber.threads import use_threads

#: radius (mm) -> (volume, layer), as in the barrel of the TrackML detector
BARREL = {32: (8, 2), 72: (8, 4), 116: (8, 6), 172: (8, 8), 260: (13, 2), 360: (13, 4), 500: (13, 6), 660: (13, 8)}

Maker = Callable[..., Event]


def _floats(*columns: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(np.asarray(column, np.float32)) for column in columns]


def toy_event(seed: int = 0, tracks: int = 25, noise: int = 20) -> Event:
    """An event of ``8 * tracks + noise`` hits with every column of a tracking event; the first track flies along -x.

    Particles come from the beam line with pT from 0.5 GeV, hits are smeared by the resolution and shuffled.
    """
    random = np.random.default_rng(seed)
    charge, pt = random.choice([-1.0, 1.0], tracks), 0.5 + random.exponential(1.0, tracks)
    phi, eta, z0 = random.uniform(-np.pi, np.pi, tracks), random.uniform(-1.2, 1.2, tracks), random.normal(0, 5, tracks)
    phi[:1] = np.pi
    helix = Helix(0.0, *(column[:, None] for column in (z0, phi, eta, charge, pt)))
    radius = np.array(list(BARREL), np.float64)
    arc = helix.arc_to_radius(radius + random.uniform(-2, 2, (tracks, 8))).reshape(tracks, 8)  # modules overlap
    true = np.stack([np.broadcast_to(c, arc.shape) for c in helix.at(arc)], axis=-1).reshape(-1, 3)
    turned = (helix.phi + helix.kappa * arc).reshape(-1)
    momentum = np.repeat(pt, 8)[:, None] * np.stack(
        [np.cos(turned), np.sin(turned), np.repeat(np.sinh(eta), 8)], axis=-1
    )
    kind, angle = random.integers(0, 8, noise), random.uniform(-np.pi, np.pi, noise)
    stray = np.stack(
        [radius[kind] * np.cos(angle), radius[kind] * np.sin(angle), random.uniform(-600, 600, noise)], axis=-1
    )
    true, momentum = np.concatenate([true, stray]), np.concatenate([momentum, np.zeros((noise, 3))])
    across, _, along = hit_sigmas(*true.T)
    angle = np.arctan2(true[:, 1], true[:, 0]) + random.normal(0, across) / np.hypot(true[:, 0], true[:, 1])
    distance, z = np.hypot(true[:, 0], true[:, 1]), true[:, 2] + random.normal(0, along)
    element = np.array(list(BARREL.values()))[np.concatenate([np.tile(np.arange(8), tracks), kind])]
    order = random.permutation(len(true))
    x, y, z = _floats(distance * np.cos(angle), distance * np.sin(angle), z)
    tx, ty, tz, tpx, tpy, tpz = _floats(*true.T, *momentum.T)
    particle = np.concatenate([np.repeat(np.arange(tracks), 8), np.full(noise, -1)])
    columns = {"x": x, "y": y, "z": z} | {
        name: torch.from_numpy(np.asarray(column, np.int64))
        for name, column in (("volume", element[:, 0]), ("layer", element[:, 1]), ("module", np.arange(len(true)) % 50))
    }
    columns |= {"object": torch.from_numpy(particle), "tx": tx, "ty": ty, "tz": tz, "tpx": tpx, "tpy": tpy, "tpz": tpz}
    weight = np.where(particle >= 0, 1 / max(8 * tracks, 1), 0.0)
    columns["weight"] = torch.from_numpy(weight)
    point = {"id": torch.arange(1, len(true) + 1), **{name: column[order] for name, column in columns.items()}}
    names = ("vx", "vy", "vz", "px", "py", "pz", "charge")
    zero = np.zeros(tracks)
    values = _floats(zero, zero, z0, pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), charge)
    particles = {"id": torch.arange(tracks) + 100, "pdg": torch.full((tracks,), 211)}
    particles |= dict(zip(names, values, strict=True)) | {"hits": torch.full((tracks,), 8)}
    return Event(point=point, object=particles, scene={"id": torch.tensor([seed])})


def toy_jets(number: int = 20, seed: int = 0, least: int = 2) -> Event:
    """A batch of ``number`` jets of ``least`` to 40 constituents; those of label 1 have two prongs, of label 0 one.

    Four-momenta are massless and exact, float64; ``origin`` is the prong, which is also the ``vertex``.
    """
    random = np.random.default_rng(seed)
    count, label = random.integers(least, 41, number), random.integers(0, 2, number)
    jet = np.repeat(np.arange(number), count)
    points = len(jet)
    prong = np.where(label[jet] == 1, random.integers(0, 2, points), 0)
    axis = random.uniform(-1.5, 1.5, number), random.uniform(-np.pi, np.pi, number)
    turn, side = random.uniform(0, np.pi, number)[jet], np.where(label == 1, 0.3, 0.0)[jet] * (2 * prong - 1)
    eta = axis[0][jet] + side * np.cos(turn) + random.normal(0, 0.08, points)
    phi = axis[1][jet] + side * np.sin(turn) + random.normal(0, 0.08, points)
    pt = random.exponential(20.0, points) + 0.5
    order = np.lexsort((-pt, jet))
    pt, eta, phi, prong = pt[order], eta[order], phi[order], prong[order]
    p = np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), pt * np.cosh(eta)])
    total = np.stack([np.bincount(jet, column, minlength=number) for column in p])
    mass = np.sqrt(np.maximum(total[3] ** 2 - (total[:3] ** 2).sum(0), 0))
    point = {name: torch.from_numpy(column) for name, column in zip(("px", "py", "pz", "energy"), p, strict=True)}
    point |= {name: torch.from_numpy(prong.astype(np.int64)) for name in ("origin", "vertex")}
    (point["charge"],) = _floats(random.choice([-1.0, 0.0, 1.0], points))
    names, values = ("d0", "z0", "sigma_d0", "sigma_z0"), random.normal(0, 0.1, (4, points))
    point |= dict(zip(names, _floats(*values[:2], *np.abs(values[2:])), strict=True))
    point["type"] = torch.from_numpy(random.integers(0, 5, points))
    found = dict(zip(("pt", "eta", "phi", "mass"), _floats(np.hypot(*total[:2]), *axis, mass), strict=True))
    scene = {"id": torch.arange(number), "label": torch.from_numpy(label.astype(np.int64)), **found}
    counts = {"point": torch.from_numpy(count.astype(np.int64)), "scene": torch.ones(number, dtype=torch.int64)}
    return Event(point=point, scene=scene, count=counts)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Toy events are too small to share among threads that may have to wait for other programs."""
    use_threads(1)


@pytest.fixture(scope="session")
def toy() -> Maker:
    """The maker of toy events: ``toy(seed, tracks, noise)``."""
    return toy_event


@pytest.fixture(scope="session")
def toys(toy: Maker) -> list[Event]:
    """Four toy events of 220 hits."""
    return [toy(seed) for seed in range(4)]


@pytest.fixture(scope="session")
def jets() -> Maker:
    """The maker of toy jets: ``jets(number, seed, least)``."""
    return toy_jets


@pytest.fixture(scope="session")
def finder(tmp_path_factory: pytest.TempPathFactory, toys: list[Event]) -> Callable[[str], Path]:
    """Writes checkpoints: of track finders without training, ``finder("edges")``, ``finder("condensation")`` and
    ``finder("influencer")``, and ``finder("embed")`` of none."""
    gathered = {"kind": "condense", "columns": ["eta"], "start": ["cos_phi", "sin_phi", "eta"], "unit": 0.05}
    gathered |= {"threshold": 0.0, "helix": True, "object_hits": 4, "radius": 1.5}
    raws: dict[str, dict[str, Any]] = {
        "edges": {
            "model": {"kind": "message", "width": 6, "depth": 1},
            "task": {"kind": "edges", "threshold": 0.3, "track_hits": 3},
        },
        "condensation": {"model": {"kind": "mlp", "width": 6}, "task": gathered},
        "influencer": {"model": {"kind": "mlp", "width": 6}, "task": gathered | {"learn": "influencer"}},
        "embed": {"model": {"kind": "mlp", "width": 6}, "task": {"kind": "embed"}},
    }

    def write(kind: str) -> Path:
        path = tmp_path_factory.mktemp("finder") / f"{kind}.safetensors"
        run, task = checkpoint.start(parse(raws[kind], "test"))
        task.fit(toys)
        checkpoint.save(path, {f"weights/{name}": tensor for name, tensor in task.state_dict().items()}, run)
        return path

    return write


@pytest.fixture(scope="session")
def tagger(tmp_path_factory: pytest.TempPathFactory, jets: Maker) -> Path:
    """The checkpoint of a tagger of toy jets, trained for a moment; classes ``qcd`` and ``top``, and the mass."""
    raw = {"model": {"kind": "mlp", "width": 16}, "task": {"kind": "tag", "pool": "mean", "regress": ["mass"]}}
    run, task = checkpoint.start(parse(raw, "test"))
    event = jets(400, 1)
    task.fit([event])
    optimizer = torch.optim.Adam(task.parameters(), 0.01)
    prepared = task.prepare(event)
    for _ in range(60):
        optimizer.zero_grad()
        sum(task.loss(prepared).values(), torch.zeros(())).backward()
        optimizer.step()
    path = tmp_path_factory.mktemp("tagger") / "tagger.safetensors"
    checkpoint.save(path, {f"weights/{name}": tensor for name, tensor in task.state_dict().items()}, run)
    return path


#: A Dask cluster that prints its address; the lines that it reads are new numbers of workers.
CLUSTER = """
import sys
from distributed import LocalCluster
with LocalCluster(n_workers=int(sys.argv[1]), threads_per_worker=1, processes=sys.argv[2] == "processes",
                  protocol="tcp", dashboard_address=":0", local_directory=sys.argv[3]) as found:
    print(found.scheduler_address, flush=True)
    for line in sys.stdin:
        found.scale(int(line))
"""


class Cluster:
    """A Dask cluster in a process of its own.

    In this one its threads would draw from ``random`` during tests by Hypothesis, which cannot repeat them then.
    """

    def __init__(self, directory: Path, workers: int, kind: str) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # the workers import the tests
        command, pipe = [sys.executable, "-c", CLUSTER, str(workers), kind, str(directory)], subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()

    def scale(self, workers: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{workers}\n")
        self.process.stdin.flush()

    def end(self) -> None:
        """At once, and however often."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="session")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int, str], Cluster]]:
    """The maker of Dask clusters: ``clusters(workers, "threads")``, or "processes"."""
    pytest.importorskip("distributed", reason="needs cloudchamber[dask]")
    made: list[Cluster] = []

    def make(workers: int, kind: str) -> Cluster:
        made.append(Cluster(tmp_path_factory.mktemp("dask"), workers, kind))
        return made[-1]

    yield make
    for cluster in made:
        cluster.end()


@pytest.fixture(scope="session")
def cluster(clusters: Callable[[int, str], Cluster]) -> str:
    """The address of a Dask cluster of two workers."""
    return clusters(2, "threads").address
