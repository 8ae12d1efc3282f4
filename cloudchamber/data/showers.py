"""Events of overlapping electromagnetic showers: single ones by Geant4, overlaid, with noise and a threshold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import norm, truncnorm

from cloudchamber.data import store
from cloudchamber.data.sampling import CELL, LAYERS, MOLIERE, PITCH, SCALE, Simulator, Table
from cloudchamber.errors import UserError
from cloudchamber.event import Event
from cloudchamber.pool import Lost, in_processes

#: Single showers that are made and kept together, and the folder in which they are, beside the events.
BLOCK, FOLDER = 20, ".showers"
#: Cells of a layer along x and y, and those at the edge in which no shower has its axis.
SIDE, MARGIN = 64, 8
#: GeV at the electromagnetic scale: spread of the noise of a cell, and the least energy that is read out. A particle
#: that crosses the silicon of a layer leaves about three times the threshold.
NOISE, THRESHOLD = 0.03e-3 * SCALE, 0.1e-3 * SCALE


@dataclass(frozen=True, kw_only=True)
class ShowersConfig:
    """Which showers to overlay.

    ``energy_min``, ``energy_max`` (GeV): the energy is uniform in its logarithm between them. ``least``, ``most``:
    showers per event, each number as probable. ``photons``: the fraction of photons, the rest are electrons. ``close``:
    the fraction of showers that are placed within ``within`` Moliere radii of one before, the others are anywhere.
    ``slope``: showers enter with dx/dz and dy/dz uniform up to this. ``noise``: whether there is any. ``library``: so
    many single showers are simulated, and each is overlaid turned, mirrored and shifted at random; it says what is
    ``seed``, too, so that events of different seeds share no shower.
    """

    energy_min: float = 1.0
    energy_max: float = 50.0
    least: int = 1
    most: int = 8
    photons: float = 0.5
    close: float = 0.5
    within: float = 5.0
    slope: float = 0.1
    noise: bool = True
    library: int = 500
    seed: int = 1

    def __post_init__(self) -> None:
        if not 0.1 <= self.energy_min < self.energy_max <= 1000:
            wanted = "0.1 <= energy_min < energy_max <= 1000 GeV"
            raise UserError(f"showers: expected {wanted}; got {self.energy_min:g} and {self.energy_max:g}")
        if not 0 <= self.least <= self.most <= 200:
            raise UserError(f"showers: expected 0 <= least <= most <= 200; got {self.least} and {self.most}")
        for name, high in (("photons", 1.0), ("close", 1.0), ("slope", 0.5)):
            if not 0 <= getattr(self, name) <= high:
                raise UserError(f"showers: expected {name} from 0 to {high:g}; got {getattr(self, name):g}")
        if not 0 <= self.within <= 20:
            raise UserError(f"showers: expected within from 0 to 20 Moliere radii; got {self.within:g}")
        if self.library < 1 or self.seed < 0:
            raise UserError(f"showers: expected library >= 1 and seed >= 0; got {self.library} and {self.seed}")


def simulate(
    config: ShowersConfig, events: int, directory: str | Path, workers: int = 1, first: int = 0
) -> Iterator[Event]:
    """Simulate events number ``first`` to ``first + events - 1``; single showers are kept in ``directory``.

    Events are the same to the bit for any number of processes (``workers``, see ``pool.in_processes``). ``point``,
    cells above threshold: ``id`` (number of the channel), ``x``, ``y``, ``z`` (mm, float32), ``energy`` (GeV at the
    electromagnetic scale), ``layer``; target: ``object``, the shower with the largest share of the deposits, -1 where
    there is none. ``object``: ``pdg``, ``energy`` (GeV), ``x``, ``y`` (mm, where the axis crosses the plane z = 30 mm),
    ``dx``, ``dy`` (its slopes dx/dz, dy/dz), ``seen`` (GeV, deposits in cells above threshold). ``cell``: ``point``,
    ``object``, ``energy`` (GeV): what each shower has left in each point.

    Raises ``UserError`` when geant4-pybind or xraylib is missing, or files cannot be read or written.
    """
    showers = library(config, Path(directory) / FOLDER, workers)
    for number in range(first, first + events):
        yield overlay(config, showers, number)


def library(config: ShowersConfig, directory: Path, workers: int = 1) -> list[Event]:
    """The single showers of a config, simulated where they are not in files of the directory already.

    One event each: ``point``: ``ix``, ``iy`` (cells from that of the axis), ``layer``, ``energy`` (GeV); ``object``:
    ``pdg``, ``energy``, ``x``, ``y`` (mm from the centre of that cell), ``dx``, ``dy``.
    """
    about = {name: asdict(config)[name] for name in ("energy_min", "energy_max", "photons", "slope", "seed")}
    blocks = range(-(-config.library // BLOCK))
    paths = [directory / f"seed{config.seed}-{block:06d}.parquet" for block in blocks]
    missing = [block for block in blocks if not paths[block].exists()]
    with closing(in_processes(partial(_start, config), missing, workers)) as results:
        for block, result in zip(missing, results, strict=True):
            if isinstance(result, Lost):
                raise UserError(f"block {block} of showers: {result.reason}")
            store.write(paths[block], [_to_event(levels) for levels in result], about)
    showers: list[Event] = []
    for path in paths:
        file = store.EventFile(path)
        if any(file.about.get(name) != value for name, value in about.items()):
            raise UserError(
                f"{path}: showers of other energies, photons or slope; expected {about}: use another directory"
            )
        showers += file[:]
    return showers[: config.library]


def _to_event(levels: dict[str, Table]) -> Event:
    return Event(**{level: {k: torch.from_numpy(v) for k, v in table.items()} for level, table in levels.items()})


def _start(config: ShowersConfig) -> Callable[[int], list[dict[str, Table]]]:
    return partial(_block, config, Simulator())


def _block(config: ShowersConfig, simulator: Simulator, block: int) -> list[dict[str, Table]]:
    return [single(config, simulator, number) for number in range(block * BLOCK, (block + 1) * BLOCK)]


def single(config: ShowersConfig, simulator: Simulator, number: int) -> dict[str, Table]:
    """The levels of a single shower, which depend on the seed and on its number alone."""
    rng = np.random.default_rng([config.seed, 0, number])
    pdg = 22 if rng.random() < config.photons else 11
    energy = float(np.exp(rng.uniform(np.log(config.energy_min), np.log(config.energy_max))))
    place, slope = rng.uniform(-CELL / 2, CELL / 2, 2), rng.uniform(-config.slope, config.slope, 2)
    cells = simulator.shower(pdg, energy, place, slope, int(rng.integers(2**60)))
    truth = dict(zip(("energy", "x", "y", "dx", "dy"), (energy, *place, *slope), strict=True))
    columns = {name: np.array([value], np.float32) for name, value in truth.items()}
    return {"point": cells, "object": {"pdg": np.array([pdg])} | columns}


def overlay(config: ShowersConfig, showers: list[Event], number: int) -> Event:
    """An event of single ``showers`` chosen, turned and placed at random; columns as in ``simulate``."""
    rng = np.random.default_rng([config.seed, 1, number])
    parts: list[Table] = []
    truths: list[dict[str, float]] = []
    centres = np.empty((0, 2))
    for which in rng.integers(len(showers), size=rng.integers(config.least, config.most + 1)):
        place = _place(config, centres, rng)
        centres = np.concatenate([centres, place[None]])
        cells, truth = _turned(showers[which], int(rng.integers(8)), place)
        parts.append(cells | {"object": np.full(len(cells["ix"]), len(truths))})
        truths.append(truth)
    empty: Table = {name: np.empty(0, np.int64) for name in ("layer", "ix", "iy", "object")} | {"energy": np.empty(0)}
    deposits = {name: np.concatenate([part[name] for part in (empty, *parts)]) for name in empty}
    point, cell = _readout(config, deposits, rng)
    names = ("pdg", "energy", "x", "y", "dx", "dy")
    objects: Table = {name: np.array([truth[name] for truth in truths], np.float32) for name in names}
    objects["pdg"] = objects["pdg"].astype(np.int64)
    seen = np.bincount(cell["object"], cell["energy"], minlength=len(truths))
    levels = {"point": point, "object": objects | {"seen": seen.astype(np.float32)}, "cell": cell}
    return _to_event(levels | {"scene": {"id": np.array([number])}})


def _place(config: ShowersConfig, centres: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """The cell (ix, iy) of the axis of a shower beside those at ``centres``, shape (showers, 2)."""
    if len(centres) and rng.random() < config.close:
        distance, angle = config.within * MOLIERE / CELL * np.sqrt(rng.random()), 2 * np.pi * rng.random()
        place = centres[rng.integers(len(centres))] + np.rint(distance * np.array([np.cos(angle), np.sin(angle)]))
    else:
        place = rng.integers(MARGIN, SIDE - MARGIN, 2)
    inside: NDArray[Any] = np.clip(place, MARGIN, SIDE - MARGIN - 1).astype(np.int64)
    return inside


def _turned(shower: Event, turn: int, place: NDArray[Any]) -> tuple[Table, dict[str, float]]:
    """A shower turned by a symmetry of the cells (0 to 7) and moved to a cell: its deposits and its truth."""
    sign, swapped = np.array([1 - 2 * (turn & 1), 1 - (turn & 2)]), bool(turn & 4)
    names = ("iy", "ix") if swapped else ("ix", "iy")
    index = np.stack([shower.point[name].numpy() for name in names]) * sign[:, None] + place[:, None]
    cells = {"layer": shower.point["layer"].numpy(), "ix": index[0], "iy": index[1]}
    cells["energy"] = shower.point["energy"].numpy().astype(np.float64)
    inside = (index >= 0).all(0) & (index < SIDE).all(0) & (cells["layer"] < LAYERS) & (cells["layer"] >= 0)
    truth = {name: float(column[0]) for name, column in shower.object.items()}
    for a, b in (("x", "y"), ("dx", "dy")):
        truth[a], truth[b] = sign * ((truth[b], truth[a]) if swapped else (truth[a], truth[b]))
    truth["x"], truth["y"] = np.array([truth["x"], truth["y"]]) + (place - (SIDE - 1) / 2) * CELL
    return {name: column[inside] for name, column in cells.items()}, truth


def _readout(config: ShowersConfig, deposits: Table, rng: np.random.Generator) -> tuple[Table, Table]:
    """Levels ``point`` and ``cell``: deposits summed up by channel, noise added, what is above threshold."""
    channel = (deposits["layer"] * SIDE + deposits["iy"]) * SIDE + deposits["ix"]
    total = np.bincount(channel, deposits["energy"], minlength=LAYERS * SIDE * SIDE).astype(np.float64)
    touched, quiet = np.flatnonzero(total), np.flatnonzero(total == 0)
    if config.noise:
        total[touched] += rng.normal(scale=NOISE, size=len(touched))
        loud = rng.choice(quiet, rng.binomial(len(quiet), norm.sf(THRESHOLD / NOISE)), replace=False)
        total[loud] = NOISE * truncnorm.rvs(THRESHOLD / NOISE, np.inf, size=len(loud), random_state=rng)
    channels = np.flatnonzero(total >= THRESHOLD)
    row = np.full(len(total), -1)
    row[channels] = np.arange(len(channels))
    above = np.flatnonzero(row[channel] >= 0)
    order = above[np.lexsort((-deposits["energy"][above], row[channel[above]]))]  # the largest share first
    cell: Table = {"point": row[channel[order]], "object": deposits["object"][order]}
    cell["energy"] = deposits["energy"][order].astype(np.float32)
    lead, where = np.unique(cell["point"], return_index=True)
    owner = np.full(len(channels), -1)
    owner[lead] = cell["object"][where]
    layer, iy, ix = np.unravel_index(channels, (LAYERS, SIDE, SIDE))
    places = {"x": (ix - (SIDE - 1) / 2) * CELL, "y": (iy - (SIDE - 1) / 2) * CELL, "z": (layer + 0.5) * PITCH}
    point: Table = {"id": channels} | {name: value.astype(np.float32) for name, value in places.items()}
    return point | {"energy": total[channels].astype(np.float32), "layer": layer, "object": owner}, cell
