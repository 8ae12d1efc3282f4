"""Simulated jets: Pythia 8, the particles clustered by FastJet, the hardest jet of each collision kept if it fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from cloudchamber.data import pythia
from cloudchamber.data.ancestry import by_appearance
from cloudchamber.data.jetfinder import INSTALL, Jet, JetFinder, Record
from cloudchamber.data.processes import PROCESSES, Process, matched
from cloudchamber.data.smear import smear
from cloudchamber.data.transport import Table
from cloudchamber.errors import UserError
from cloudchamber.event import Event
from cloudchamber.pool import Lost, in_processes

#: Jets of one process that are made together: what one process of the computer is given.
BLOCK = 200
#: Collisions that Pythia makes at a time, and after how many without a jet it is given up.
COLLISIONS, PATIENCE = 50, 5000
#: Neutrinos are not seen.
NEUTRINOS = (12, 14, 16)


@dataclass(frozen=True, kw_only=True)
class JetsConfig:
    """Which jets to make.

    ``process``: names of ``PROCESSES``; jets come from them in turns, and ``scene.label`` is the place in this list.
    Jets are those of anti-kT of ``radius``, with pT from ``pt_min`` to ``pt_max`` (GeV) and |eta| below ``eta_max``,
    clustered from all visible particles with |eta| < ``reach_eta``. Of each, the ``constituents`` hardest particles
    are kept. ``smeared``: as a detector sees them (``smear``), or else as generated. ``hard``: the pT of the hard
    collision reaches from the first of these times ``pt_min`` to the second times ``pt_max``; radiation changes the pT,
    and at 550-650 GeV about a quarter of the hardest jets have a hard collision below 0.87 ``pt_min``. A lower value
    brings these in, at more collisions per jet. ``seed``: jets depend on it, on their process and their number alone.

    The defaults are the recipe of the top tagging reference set (arXiv:1902.09914) but for its detector simulation.
    """

    process: tuple[str, ...] = ("top", "qcd")
    pt_min: float = 550.0
    pt_max: float = 650.0
    eta_max: float = 2.0
    radius: float = 0.8
    constituents: int = 200
    smeared: bool = False
    hard: tuple[float, float] = (0.87, 1.25)
    energy_gev: float = 14000.0
    reach_eta: float = 5.0
    seed: int = 1

    def __post_init__(self) -> None:
        if unknown := [name for name in self.process if name not in PROCESSES]:
            raise UserError(f"jets: unknown process {unknown[0]!r}: expected some of {', '.join(PROCESSES)}")
        if not self.process or len(set(self.process)) < len(self.process):
            raise UserError(f"jets: expected each process once, one at least; got {', '.join(self.process) or 'none'}")
        if not 10 <= self.pt_min < self.pt_max < self.energy_gev / 2:
            wanted = f"10 <= pt_min < pt_max < {self.energy_gev / 2:g} GeV"
            raise UserError(f"jets: expected {wanted}; got {self.pt_min:g} and {self.pt_max:g}")
        for name, low, high in (("radius", 0.1, 1.5), ("eta_max", 0.1, 4.0), ("constituents", 1, 10_000)):
            if not low <= getattr(self, name) <= high:
                raise UserError(f"jets: expected {name} from {low:g} to {high:g}; got {getattr(self, name):g}")
        if not 0 < self.hard[0] <= 1 <= self.hard[1]:
            raise UserError(f"jets: expected 0 < hard[0] <= 1 <= hard[1]; got {self.hard[0]:g} and {self.hard[1]:g}")
        if self.seed < 0:
            raise UserError(f"jets: seed is a number from 0 on; got {self.seed}")


def simulate(config: JetsConfig, jets: int, workers: int = 1) -> Iterator[Event]:
    """Simulate so many jets, as batches of consecutive numbers, by ``workers`` processes; see ``pool.in_processes``.

    Jets are the same to the bit for any number of processes, and the first ones of any longer run. Columns of
    ``point``, in falling pT: ``px``, ``py``, ``pz``, ``energy`` (float32, GeV); smeared, also those of ``smear``, and
    of truth ``origin`` (see ``ancestry.ORIGINS``) and ``vertex``, which numbers the vertices of a jet by their hardest
    particle, 0 being the collision. Of ``scene``: ``id``, ``label`` (int64), ``pt``, ``eta``, ``phi``, ``mass``
    (float32, GeV) of the jet with all its constituents. Pythia 8.3: arXiv:2203.11601; FastJet: arXiv:1111.6097.

    Raises ``UserError`` when pythia8mc or fastjet is missing, jets as asked for do not occur, or processes are killed.
    """
    kinds = len(config.process)
    blocks = range(-(-jets // (BLOCK * kinds)))
    left = [len(range(kind, jets, kinds)) for kind in range(kinds)]
    items = [
        (kind, block, min(BLOCK, left[kind] - BLOCK * block))
        for block in blocks
        for kind in range(kinds)
        if left[kind] > BLOCK * block
    ]
    with closing(in_processes(partial(_start, config), items, workers)) as results:
        parts: list[dict[str, Table]] = []
        for number, (item, result) in enumerate(zip(items, results, strict=True), start=1):
            if isinstance(result, Lost):
                raise UserError(f"jets of process {config.process[item[0]]}: {result.reason}")
            parts.append(result)
            if number == len(items) or items[number][1] != item[1]:
                yield _in_turns(parts, BLOCK * kinds * item[1])
                parts = []


def _in_turns(parts: list[dict[str, Table]], first: int) -> Event:
    """The jets of a block, one of each process in turn, numbered from ``first``."""
    levels = {level: _joined([part[level] for part in parts]) for level in ("point", "scene", "count")}
    turn = np.concatenate([np.arange(len(part["count"]["point"])) for part in parts])
    order = torch.from_numpy(np.argsort(turn, kind="stable"))
    count = {"point": levels["count"]["point"], "scene": torch.ones(len(order), dtype=torch.int64)}
    event = Event(point=levels["point"], scene=levels["scene"], count=count).take(order)
    return event.with_level("scene", {"id": torch.arange(first, first + len(order)), **event.scene}, count["scene"])


def _joined(tables: list[Table]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.concatenate([table[name] for table in tables])) for name in tables[0]}


def _start(config: JetsConfig) -> Callable[[tuple[int, int, int]], dict[str, Table]]:
    return _Simulator(config).jets


class _Simulator:
    """One process's generators, each started when it is first needed, and its jet finder."""

    def __init__(self, config: JetsConfig) -> None:
        self.config = config
        self.generators: dict[str, tuple[Any, pythia.Charges]] = {}
        self.finder = JetFinder(config.radius, config.pt_min, config.pt_max, config.eta_max)

    def jets(self, item: tuple[int, int, int]) -> dict[str, Table]:
        """A block of jets: the place of the process in the config, the number of the block, how many jets of it."""
        kind, block, wanted = item
        name, config = self.config.process[kind], self.config
        generator, charges = self._generator(name)
        rng = np.random.default_rng([config.seed, list(PROCESSES).index(name), block])
        generator.rndm.init(int(rng.integers(1, 900_000_000)))
        found: list[dict[str, Table]] = []
        tried = 0
        while len(found) < wanted:
            if tried >= PATIENCE * (1 + len(found)):
                raise UserError(f"jets of process {name}: {len(found)} in {tried} collisions; change pT or radius")
            record = Record(generator.nextBatch(COLLISIONS).prt, charges)
            seen = _seen(record, config, rng)
            jets = self.finder.hardest(seen, np.searchsorted(seen["row"], record.starts))
            fit = (jet for jet in jets if self._comes_from(PROCESSES[name], record, jet))
            found += [_tables(record, seen, jet, kind, config.constituents) for jet in fit]
            tried += COLLISIONS
        joined = {level: [jet[level] for jet in found[:wanted]] for level in found[0]}
        return {
            level: {column: np.concatenate([table[column] for table in tables]) for column in tables[0]}
            for level, tables in joined.items()
        }

    def _generator(self, name: str) -> tuple[Any, pythia.Charges]:
        if name not in self.generators:
            low, high = self.config.hard[0] * self.config.pt_min, self.config.hard[1] * self.config.pt_max
            reach = (f"PhaseSpace:pTHatMin = {low}", f"PhaseSpace:pTHatMax = {min(high, self.config.energy_gev / 2)}")
            settings = (*PROCESSES[name].settings, *reach, "PartonLevel:MPI = off")
            generator = pythia.start(settings, self.config.energy_gev, INSTALL)
            self.generators[name] = generator, pythia.Charges(generator)
        return self.generators[name]

    def _comes_from(self, process: Process, record: Record, jet: Jet) -> bool:
        axis = jet.scene["eta"], jet.scene["phi"]
        return matched(process, record.of(jet.collision), axis, self.config.radius)


def _seen(record: Record, config: JetsConfig, rng: np.random.Generator) -> Table:
    """What is clustered: columns of ``point``, and the ``row`` of the particle behind each."""
    names = ("px", "py", "pz", "energy")
    column = record.columns
    seen = (column["status"] > 0) & ~np.isin(np.abs(column["pdg"]), NEUTRINOS)
    seen &= np.abs(column["pz"]) < np.sinh(config.reach_eta) * np.hypot(column["px"], column["py"])
    rows = np.flatnonzero(seen)
    if not config.smeared:
        return {name: column[name][rows] for name in names} | {"row": rows}
    table = {name: column[name][rows] for name in (*names, "pdg")}
    table |= {name: place[rows] for name, place in record.vertices.items()}
    found, behind = smear(table | {"charge": record.charges(table["pdg"])}, rng)
    return found | {"row": rows[behind]}


def _tables(record: Record, seen: Table, jet: Jet, kind: int, most: int) -> dict[str, Table]:
    """One jet as tables ``point`` (its ``most`` hardest constituents, hardest first), ``scene`` and ``count``."""
    rows = jet.rows[np.lexsort((jet.rows, -np.hypot(seen["px"][jet.rows], seen["py"][jet.rows])))][:most]
    columns = {name: column[rows] for name, column in seen.items() if name != "row"}
    point = {name: column if name == "type" else column.astype(np.float32) for name, column in columns.items()}
    if "type" in seen:
        behind = seen["row"][rows]
        point["origin"] = record.ancestry["origin"][behind]
        point["vertex"] = by_appearance(record.ancestry["vertex"][behind])
    scene = {"label": np.array([kind])} | {name: np.array([x], np.float32) for name, x in jet.scene.items()}
    return {"point": point, "scene": scene, "count": {"point": np.array([len(rows)])}}
