"""Jets of other formats as events: checked, sorted, in our units and names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from cloudchamber.data.jetfile import require_finite
from cloudchamber.data.transport import Array, Table
from cloudchamber.event import Event

#: Whole numbers among the columns of constituents.
INTEGERS = ("type", "origin", "vertex")


def to_event(
    path: Path, first: int, count: Array, point: Table, scene: Table, names: Mapping[str, str] | None = None
) -> Event:
    """A batch of jets, the first of them number ``first`` of the file.

    ``count`` (jets,): constituents of each; ``point``: their columns end to end, with ``px``, ``py``, ``pz``,
    ``energy`` (GeV); ``scene``: columns of the jets, where ``pt``, ``eta``, ``phi`` and ``mass`` may lack and are then
    those of the sum of the constituents. ``names``: what the file calls a column, for messages.

    Raises ``UserError`` naming row, column and what was expected for a value that is not finite.
    """
    owner = np.repeat(np.arange(len(count)), count)
    require_finite(path, first + owner, point, names)
    require_finite(path, first + np.arange(len(count)), scene, names)
    if not {"pt", "eta", "phi", "mass"} <= scene.keys():
        scene = {**scene, **_sums(len(count), owner, point)}
    order = np.lexsort((-np.hypot(point["px"], point["py"]), owner))
    whole = {"label": np.int64, "id": np.int64} | dict.fromkeys(INTEGERS, np.int64)
    levels = {
        level: {name: torch.from_numpy(column.astype(whole.get(name, np.float32))) for name, column in table.items()}
        for level, table in (("point", {name: column[order] for name, column in point.items()}), ("scene", scene))
    }
    rows_of = {"point": torch.from_numpy(count.astype(np.int64)), "scene": torch.ones(len(count), dtype=torch.int64)}
    return Event(**levels, count=rows_of)


def _sums(jets: int, owner: Array, point: Table) -> Table:
    """``pt``, ``eta``, ``phi`` and ``mass`` of the sums of four-momenta."""
    px, py, pz, energy = (
        np.bincount(owner, point[name].astype(np.float64), jets) for name in ("px", "py", "pz", "energy")
    )
    pt = np.hypot(px, py)
    with np.errstate(divide="ignore", invalid="ignore"):
        eta = np.where(pt > 0, np.arcsinh(pz / pt), 0.0)
    mass = np.sqrt(np.maximum(energy**2 - pt**2 - pz**2, 0.0))
    return {"pt": pt, "eta": eta, "phi": np.arctan2(py, px), "mass": mass}


def from_angles(pt: Array, eta: Array, phi: Array, mass: Array | float) -> Table:
    """``px``, ``py``, ``pz``, ``energy`` of the same shape, in the unit of ``pt`` and ``mass``; float64."""
    pt, eta, phi = (np.asarray(column, np.float64) for column in (pt, eta, phi))
    pz = pt * np.sinh(eta)
    return {"px": pt * np.cos(phi), "py": pt * np.sin(phi), "pz": pz, "energy": np.sqrt(pt**2 + pz**2 + mass**2)}
