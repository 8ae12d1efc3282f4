"""The TrackML format: an event is a set of CSV tables, ``event000000001-hits.csv[.gz]``, ``-cells``, ``-particles`` and
``-truth``, as described at https://www.kaggle.com/c/trackml-particle-identification/data."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cloudchamber.data import csvtable
from cloudchamber.data.csvtable import Index, Kinds, Table
from cloudchamber.data.weights import hit_weights
from cloudchamber.errors import UserError
from cloudchamber.event import LEVELS, Event

FILE = re.compile(r"(event(\d{1,18}))-(hits|cells|particles|truth|derived)\.csv(\.gz)?")

#: TrackML column -> column of the event.
HITS = {"hit_id": "id", "x": "x", "y": "y", "z": "z", "volume_id": "volume", "layer_id": "layer", "module_id": "module"}
TRUTH = {"tx": "tx", "ty": "ty", "tz": "tz", "tpx": "tpx", "tpy": "tpy", "tpz": "tpz", "weight": "weight"}
PARTICLES = {"particle_id": "id", "particle_type": "pdg", "vx": "vx", "vy": "vy", "vz": "vz"}
PARTICLES |= {"px": "px", "py": "py", "pz": "pz", "q": "charge", "nhits": "hits"}
CELLS = {"hit_id": "point", "ch0": "u", "ch1": "v", "value": "value"}

OPTIONAL = ("particle_type", "nhits")
INTEGERS = ("hit_id", "particle_id", "particle_type", "nhits", "volume_id", "layer_id", "module_id", "ch0", "ch1")


def names(directory: str | Path) -> list[str]:
    """The events in a directory, by name (``event000000001``), sorted. Raises ``OSError`` when it cannot be listed."""
    found = (FILE.fullmatch(path.name) for path in Path(directory).iterdir())
    return sorted({match[1] for match in found if match})


def read(directory: str | Path, name: str) -> Event:
    """Read one event, ``name`` being ``event`` and its number; only its hits table is obligatory.

    Truth comes from ``-truth``, or else ``-derived`` (columns ``hit_id``, ``particle_id``). Weights that it lacks are
    computed when particles are given. Particle 0 is noise; any other must be in the particles table, as in the
    published data, since no efficiency could be had without. Lacking that table, the objects are the particles named
    by truth. Other columns are not read; zero hits are a valid event.

    Raises ``UserError`` naming file, row (from 1, the header not counted), column and what was expected.
    """
    match = FILE.fullmatch(f"{name}-hits.csv")
    if match is None:
        raise ValueError(f"trackml: expected a name like event000000001, found {name!r}")
    base = Path(directory) / name
    path = _path(base, "hits")
    if path is None:
        raise UserError(f"{base}-hits.csv: no such file, neither with .gz: an event needs its hits")
    hits = csvtable.read(path, _kinds(HITS))
    index = Index.of(hits, "hit_id")
    point, cell = _columns(hits, HITS), {}
    particles = _particles(base)
    objects = {} if particles is None else _columns(particles, PARTICLES)
    if (path := _path(base, "truth") or _path(base, "derived")) is not None:
        truth, known = _truth(path, index, particles)
        point |= truth
        objects |= {column: rows for column, rows in known.items() if column not in objects}
    if (path := _path(base, "cells")) is not None:
        cells = csvtable.read(path, _kinds(CELLS))
        row = index.rows(cells["hit_id"])
        cells.require("hit_id", row >= 0, f"a hit_id of {hits.path.name}")
        cell = _columns(cells, CELLS) | {"point": torch.from_numpy(row)}
    scene = {"id": torch.tensor([int(match[2])])}
    return Event(point=point, object=objects, scene=scene, cell=cell)


def _path(base: Path, table: str) -> Path | None:
    plain = base.with_name(f"{base.name}-{table}.csv")
    found = [path for path in (plain, plain.with_name(f"{plain.name}.gz")) if path.exists()]
    if len(found) > 1:
        raise UserError(f"{plain}: expected this or {found[1].name}, found both")
    return found[0] if found else None


def _kinds(names: Any) -> Kinds:
    kinds: dict[str, type[np.generic]] = {}
    for name in names:
        kinds[name] = np.int64 if name in INTEGERS else np.float64 if name == "weight" else np.float32
    return kinds


def _columns(table: Table, names: dict[str, str]) -> dict[str, Tensor]:
    return {new: torch.from_numpy(np.array(table[old])) for old, new in names.items() if old in table}


def _particles(base: Path) -> Table | None:
    path = _path(base, "particles")
    if path is None:
        return None
    kinds = _kinds(PARTICLES)
    required = {name: kind for name, kind in kinds.items() if name not in OPTIONAL}
    table = csvtable.read(path, required, {name: kinds[name] for name in OPTIONAL})
    table.require("particle_id", table["particle_id"] != 0, "a particle_id other than 0, which means noise")
    Index.of(table, "particle_id")
    return table


def _truth(path: Path, hits: Index, particles: Table | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The truth columns in the order of the hits, and what they tell of the objects: number of hits, identity."""
    table = csvtable.read(path, _kinds(["hit_id", "particle_id"]), _kinds(TRUTH))
    place = hits.rows(table["hit_id"])
    table.require("hit_id", place >= 0, f"a hit_id of {hits.table.path.name}")
    order = Index.of(table, "hit_id").rows(hits.table["hit_id"])
    hits.table.require("hit_id", order >= 0, f"a hit_id of {path.name}")
    ids = table["particle_id"]
    known = np.unique(ids[ids != 0]) if particles is None else particles["particle_id"]
    if particles is None:
        owner = np.where(ids == 0, -1, np.searchsorted(known, ids))
    else:
        owner = Index.of(particles, "particle_id").rows(ids)
        table.require("particle_id", (owner >= 0) | (ids == 0), f"0 or a particle_id of {particles.path.name}")
    count = np.bincount(owner[owner >= 0], minlength=len(known))
    objects = {"id": torch.from_numpy(np.array(known)), "hits": torch.from_numpy(count)}
    point = {"object": torch.from_numpy(owner[order])}
    point |= {new: column[order] for new, column in _columns(table, TRUTH).items()}
    if "weight" in table:
        table.require("weight", table["weight"] >= 0, "a weight of at least 0")
    elif particles is not None:
        point["weight"] = torch.from_numpy(_weights(owner[order], hits.table, particles))
    return point, objects


def _weights(owner: NDArray[np.int64], hits: Table, particles: Table) -> NDArray[np.float64]:
    position, vertex = (np.stack([t[k] for k in ks], 1) for t, ks in ((hits, "xyz"), (particles, ("vx", "vy", "vz"))))
    pt = np.hypot(particles["px"].astype(np.float64), particles["py"].astype(np.float64))
    return hit_weights(owner, pt, position=position, vertex=vertex)


def write(directory: str | Path, event: Event, *, name: str | None = None, gzip: bool = True) -> Path:
    """Write one event as TrackML tables, each atomically and the hits last; numbers come back exactly.

    The name is ``event`` and ``scene.id`` unless given. Particles are written when their kinematics are known, truth
    when ``point.object`` is. Warns of columns for which the format has no place. Returns the path of the hits. Raises
    ``UserError`` when the event lacks a column of the format or a file cannot be written, ``ValueError`` for a batch.
    """
    if len(event) != 1:
        raise ValueError(f"trackml: expected one event, found {len(event)}")
    if name is None:
        if "id" not in event.scene:
            raise UserError("trackml: event has no column scene.id to name its files by")
        name = f"event{int(event.scene['id'][0]):09d}"
    tables = {}
    if event.cell:
        cells = _table(event, "cell", CELLS, name)
        tables["cells"] = cells | {"hit_id": _get(event, "point", "id", name)[cells["hit_id"]]}
    if "object" in event.point:
        tables["truth"] = _truth_table(event, name)
    if not {"id", "hits"} >= set(event.object):
        tables["particles"] = _table(event, "object", PARTICLES, name)
    tables["hits"] = _table(event, "point", HITS, name)
    _warn_of_rest(event, name, tables)
    for table, columns in tables.items():
        path = Path(directory) / f"{name}-{table}.csv{'.gz' if gzip else ''}"
        csvtable.write(path, columns)
    return path


def _get(event: Event, level: str, column: str, name: str) -> NDArray[Any]:
    columns = getattr(event, level)
    if column not in columns:
        raise UserError(f"{name}: the TrackML format needs a column {level}.{column}, which the event has not")
    array: NDArray[Any] = columns[column].detach().cpu().numpy()
    return array


def _table(event: Event, level: str, columns: dict[str, str], name: str) -> dict[str, NDArray[Any]]:
    present = getattr(event, level)
    return {old: _get(event, level, new, name) for old, new in columns.items() if old not in OPTIONAL or new in present}


def _truth_table(event: Event, name: str) -> dict[str, NDArray[Any]]:
    owner = _get(event, "point", "object", name)
    ids = np.append(_get(event, "object", "id", name), 0) if event.object or (owner >= 0).any() else np.zeros(1, int)
    table = {"hit_id": _get(event, "point", "id", name), "particle_id": ids[owner]}
    return table | {old: _get(event, "point", new, name) for old, new in TRUTH.items() if new in event.point}


def _warn_of_rest(event: Event, name: str, tables: dict[str, Any]) -> None:
    places: dict[str, set[str]] = {
        "point": {*HITS.values(), *TRUTH.values(), "object"},
        "object": set(PARTICLES.values()) if {"particles", "truth"} & set(tables) else set(),
        "edge": set(),
        "scene": {"id"},
        "cell": set(CELLS.values()),
    }
    rest = [f"{level}.{column}" for level in LEVELS for column in getattr(event, level) if column not in places[level]]
    if rest:
        warnings.warn(f"{name}: no place in the TrackML format for {', '.join(rest)}: not written", stacklevel=3)
