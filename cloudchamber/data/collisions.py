"""Simulated proton collisions in the generic detector: Pythia 8, then ACTS's fast simulation, then digitization."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from cloudchamber.data import detector, pythia
from cloudchamber.data.digitize import Clusters, digitize, noise
from cloudchamber.data.interactions import LENGTHS, interact
from cloudchamber.data.transport import INSTALL, MOMENTUM, POSITION, Array, Table, Transport, count_up
from cloudchamber.data.weights import hit_weights
from cloudchamber.errors import UserError
from cloudchamber.event import Event
from cloudchamber.pool import Lost, in_processes

#: Decays of long-lived particles count up to here, mm from the beam line and from the centre.
VERTEX_R, VERTEX_Z = 500.0, 3000.0
_TOP_PAIRS = ("Top:gg2ttbar = on", "Top:qqbar2ttbar = on")


@dataclass(frozen=True, kw_only=True)
class CollisionsConfig:
    """What to collide and what to keep.

    ``process``: Pythia settings of the hard collision, one per event; none at all for pile-up alone. ``pileup``: mean
    number of further collisions, Poisson distributed, and ``soft`` their Pythia settings. ``noise``: mean fraction of
    all hits that are noise. ``interactions``: nuclear interaction lengths per radiation length of the detector, 0 for
    none at all. ``energy_gev``: centre-of-mass energy. ``beam_spot_mm``: Gaussian spread of the collisions along x, y,
    z. Charged particles and photons are followed if pT > ``pt_min`` (GeV) and |eta| < ``eta_max``; below
    ``momentum_min`` (GeV) the fast simulation drops charged particles, secondaries included. ``field_t``: magnetic
    field along z. ``seed``: events depend on it and their number alone.
    """

    process: tuple[str, ...] = _TOP_PAIRS
    pileup: float = 200.0
    soft: tuple[str, ...] = ("SoftQCD:all = on",)
    noise: float = 0.15
    interactions: float = LENGTHS
    energy_gev: float = 14000.0
    beam_spot_mm: tuple[float, float, float] = (0.0125, 0.0125, 55.5)
    pt_min: float = 0.15
    eta_max: float = 4.0
    momentum_min: float = 0.1
    field_t: float = 2.0
    seed: int = 1

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UserError(f"collisions: seed is a number from 0 on; got {self.seed}")
        if not 0 <= self.noise < 1:
            raise UserError(f"collisions: noise is a fraction of all hits, 0 <= noise < 1; got {self.noise}")
        if not 0 <= self.interactions <= 10:
            raise UserError(f"collisions: interactions is a ratio of lengths, 0 to 10; got {self.interactions}")
        if not 0 <= self.pileup <= 1500:
            raise UserError(f"collisions: pileup is a mean number of collisions, 0 to 1500; got {self.pileup}")


def is_primary(particle_id: Tensor) -> Tensor:
    """Whether particles come from the generator and not from the detector, as bool of the same shape.

    ``particle_id``, the column ``object.id``, is ``primary vertex << 52 | particle << 36 | generation << 24 |
    sub-particle << 12 | secondary vertex``; generation is 0 for generated particles and counts up for what the detector
    simulation makes of them. In the ids of the TrackML events the same bits tell them apart.
    """
    return (particle_id >> 24) & 0xFFF == 0


def simulate(config: CollisionsConfig, events: int, first: int = 0) -> Iterator[Event]:
    """Simulate events number ``first`` to ``first + events - 1``, one at a time.

    Columns as in the table of a tracking event; hits are sorted by volume, layer and module, in random order within a
    module, and their ids are 1 to n. ``object`` holds every charged particle that was simulated, hits or not. Pythia
    8.3: Bierlich et al., arXiv:2203.11601; ACTS: Ai et al., arXiv:2106.13593.

    Raises ``UserError`` when pyacts or pythia8mc is missing, or Pythia does not know a setting.
    """
    simulator = _Simulator(config)
    for number in range(first, first + events):
        yield _to_event(simulator.event(number))


def simulate_many(config: CollisionsConfig, events: int, workers: int, first: int = 0) -> Iterator[Event]:
    """The events of ``simulate``, identical and in the same order, made by ``workers`` processes.

    See ``pool.in_processes`` for what that asks of a script. Raises as ``simulate`` does, and when an event kills its
    processes.
    """
    numbers = range(first, first + events)
    with closing(in_processes(partial(_start, config), numbers, workers)) as results:
        for number, result in zip(numbers, results, strict=True):
            if isinstance(result, Lost):
                raise UserError(f"event {number}: {result.reason}")
            yield _to_event(result)


def _start(config: CollisionsConfig) -> Callable[[int], dict[str, Table]]:
    return _Simulator(config).event


def _to_event(levels: dict[str, Table]) -> Event:
    return Event(**{level: {k: torch.from_numpy(v) for k, v in table.items()} for level, table in levels.items()})


class _Simulator:
    """One process's generators and detector; the random numbers of an event come from the seed and its number."""

    def __init__(self, config: CollisionsConfig) -> None:
        self.config = config
        self.detector = detector.load()
        self.hard = _Generator(config.process, config) if config.process else None
        self.soft = _Generator(config.soft, config) if config.pileup else None
        self.transport = Transport(config.seed, config.momentum_min, config.field_t)

    def event(self, number: int) -> dict[str, Table]:
        """The levels of one event, as numpy columns."""
        rng = np.random.default_rng([self.config.seed, number])
        hits, particles = self.transport.run(self._generate(rng), number)
        hits, particles = interact(self.transport, number, hits, particles, self.config.interactions, rng)
        rows = self.detector.surface_rows(hits["volume"], hits["layer"], hits["surface"])
        position, momentum = (np.stack([hits[name] for name in names], axis=1) for names in (POSITION, MOMENTUM))
        fraction = self.config.noise
        more = noise(self.detector, rng.poisson(len(rows) * fraction / (1 - fraction)), rng)
        rows, position, direction = (
            np.concatenate(pair) for pair in zip((rows, position, momentum), more, strict=True)
        )
        clusters = digitize(self.detector, rows, position, direction, rng)
        pt = np.hypot(particles["px"], particles["py"])
        owner, momentum = (_extend(column, len(rows), fill) for column, fill in ((hits["object"], -1), (momentum, 0)))
        truth = {"object": owner}
        truth |= {name: position[:, axis].astype(np.float32) for axis, name in enumerate(POSITION)}
        truth |= {name: momentum[:, axis].astype(np.float32) for axis, name in enumerate(MOMENTUM)}
        truth["weight"] = hit_weights(owner, pt, order=_extend(hits["time"], len(rows), 0))
        particles["hits"] = np.bincount(hits["object"], minlength=len(pt))
        point, cell = _readout(self.detector, rows, clusters, truth, rng)
        return {"point": point, "object": particles, "cell": cell, "scene": {"id": np.array([number])}}

    def _generate(self, rng: np.random.Generator) -> Table:
        """The particles that enter the detector, one row each; ``collision`` 0 is the hard one."""
        parts = [self.hard.collide(1, rng)] if self.hard else []
        pileup = int(rng.poisson(self.config.pileup))
        if self.soft and pileup:
            parts.append(self.soft.collide(pileup, rng))
            parts[-1]["collision"] += len(parts) - 1
        if not parts:
            return {}
        table = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        spot = rng.normal(size=(pileup + 1, 3)) * np.array(self.config.beam_spot_mm)
        return _number(_select(table, self.config), spot)


class _Generator:
    """A Pythia 8 generator of independent collisions."""

    def __init__(self, settings: tuple[str, ...], config: CollisionsConfig) -> None:
        self.pythia = pythia.start(settings, config.energy_gev, INSTALL)
        self.charges = pythia.Charges(self.pythia)

    def collide(self, collisions: int, rng: np.random.Generator) -> Table:
        """The final-state particles of so many collisions: mm, GeV, time in mm/c; ``collision`` counts from 0."""
        import awkward

        self.pythia.rndm.init(int(rng.integers(1, 900_000_000)))
        batch = self.pythia.nextBatch(collisions).prt
        batch = batch[batch.status > 0]
        origin, momentum = batch.vProd, batch.p
        fields = {"px": momentum.px, "py": momentum.py, "pz": momentum.pz, "vx": origin.px, "vy": origin.py}
        fields |= {"vz": origin.pz, "vt": origin.e, "m": batch.m, "pdg": batch.id}
        table: Table = {name: pythia.flat(field) for name, field in fields.items()}
        table["collision"] = np.repeat(np.arange(len(batch)), awkward.to_numpy(awkward.num(batch.id)))
        table["charge"] = self.charges(table["pdg"])
        return table


def _select(table: Table, config: CollisionsConfig) -> Table:
    """The charged particles and photons that enter the detector."""
    pt = np.hypot(table["px"], table["py"])
    seen = (pt > config.pt_min) & (np.abs(table["pz"]) < np.sinh(config.eta_max) * pt)
    seen &= (table["charge"] != 0) | (table["pdg"] == 22)
    seen &= (np.hypot(table["vx"], table["vy"]) < VERTEX_R) & (np.abs(table["vz"]) < VERTEX_Z)
    return {name: column[seen] for name, column in table.items()}


def _number(table: Table, spot: Array) -> Table:
    """Number vertices and particles in each collision, and shift collisions to their ``spot`` (collisions, 3)."""
    collision = table["collision"]
    origin = np.stack([collision, table["vx"], table["vy"], table["vz"]], axis=1)
    origin[np.linalg.norm(origin[:, 1:], axis=1) < 1e-3, 1:] = 0.0  # 1 micrometre: the primary vertex itself
    vertices, which = np.unique(origin, axis=0, return_inverse=True)
    displaced = (vertices[:, 1:] != 0).any(axis=1)
    nth = count_up(np.where(displaced, vertices[:, 0].astype(np.int64), -1)) + 1
    table["vertexPrimary"] = collision + 1
    table["vertexSecondary"] = np.where(displaced, nth, 0)[which.ravel()]
    table["particle"] = count_up(collision) + 1
    for axis, name in enumerate(("vx", "vy", "vz")):
        table[name] = table[name] + spot[collision, axis]
    return table


def _extend(column: Array, rows: int, fill: float) -> Array:
    """A column with rows of ``fill`` (noise) added up to ``rows``."""
    return np.concatenate([column, np.full((rows - len(column), *column.shape[1:]), fill, column.dtype)])


def _readout(
    modules: detector.Detector, rows: Array, clusters: Clusters, truth: Table, rng: np.random.Generator
) -> tuple[Table, Table]:
    """Levels ``point`` and ``cell``: the hits in the order of their modules, at random within a module."""
    order = rng.permutation(len(rows))
    order = order[np.argsort(rows[order], kind="stable")]
    rows = rows[order]
    xyz = clusters.position[order].astype(np.float32)
    point: Table = {"id": np.arange(1, len(rows) + 1)}
    point |= {name: np.ascontiguousarray(xyz[:, axis]) for axis, name in enumerate("xyz")}
    point |= {"volume": modules.volume[rows], "layer": modules.layer[rows], "module": modules.module[rows]}
    point |= {name: column[order] for name, column in truth.items()}
    place = np.empty(len(rows), dtype=np.int64)
    place[order] = np.arange(len(rows))
    owner = place[clusters.point]
    sort = np.argsort(owner, kind="stable")
    cell = {"point": owner[sort], "u": clusters.u[sort], "v": clusters.v[sort]}
    cell["value"] = clusters.value[sort].astype(np.float32)
    return point, cell
