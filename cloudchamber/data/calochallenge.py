"""Showers of the CaloChallenge: HDF5 files of data sets 2 and 3, electrons in a calorimeter of rings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from cloudchamber.data.jetfile import opened_hdf5, reading
from cloudchamber.errors import UserError
from cloudchamber.event import Event

#: Voxels of a shower -> layers, sectors in the angle and rings, and the width of a ring (mm); layers lie 3.4 mm apart.
BINNING = {45 * 16 * 9: (45, 16, 9, 4.65), 45 * 50 * 18: (45, 50, 18, 2.325)}
PITCH = 3.4
COLUMNS = ("incident_energies", "showers")


def rows(path: Path) -> int:
    """How many showers a file has; 0 if it is no HDF5 file of the challenge. Raises ``UserError`` if it is damaged."""
    if path.suffix not in (".h5", ".hdf5"):
        return 0
    with opened_hdf5(path) as file, reading(path):
        return len(file["showers"]) if set(COLUMNS) <= set(file) else 0


def read(path: Path, row: int) -> Event:
    """One shower: its voxels with energy as points.

    C. Krause et al., arXiv:2410.21611; voxels run along the radius first, then the angle, then the layer. ``point``:
    ``x``, ``y``, ``z`` (mm, of the middle of a voxel; the shower goes along z from the origin), ``energy`` (GeV, as in
    the file: in those of the challenge the deposit in the silicon), ``layer``, ``object`` 0. ``object``: ``pdg``,
    ``energy`` (GeV), ``x``, ``y``, ``dx``, ``dy``. Raises ``UserError`` when the file is damaged, a number is negative
    or none, or it is of data set 1, whose cells differ from layer to layer.
    """
    with opened_hdf5(path) as file, reading(path):
        energy, voxels = (np.asarray(file[name][row], np.float64) / 1e3 for name in COLUMNS)
    if voxels.size not in BINNING:
        raise UserError(f"{path}: showers: expected {' or '.join(map(str, BINNING))} voxels, found {voxels.size}")
    bad = np.flatnonzero(~(voxels >= 0) | np.isinf(voxels))
    if len(bad):
        raise UserError(f"{path}: row {row}, showers[{bad[0]}]: expected an energy, found {voxels[bad[0]] * 1e3}")
    layers, sectors, rings, width = BINNING[voxels.size]
    hit = np.flatnonzero(voxels)
    layer, sector, ring = np.unravel_index(hit, (layers, sectors, rings))
    radius, angle = (ring + 0.5) * width, (sector + 0.5) * 2 * np.pi / sectors
    places = {"x": radius * np.cos(angle), "y": radius * np.sin(angle), "z": (layer + 0.5) * PITCH}
    floats = {name: torch.from_numpy(values.astype(np.float32)) for name, values in places.items()}
    floats["energy"] = torch.from_numpy(voxels[hit].astype(np.float32))
    whole = {"layer": torch.from_numpy(layer), "object": torch.zeros(len(hit), dtype=torch.int64)}
    truth = {"pdg": torch.tensor([11]), "energy": torch.tensor([float(energy.ravel()[0])])}
    axis = {name: torch.zeros(1) for name in ("x", "y", "dx", "dy")}
    return Event(
        point={"id": torch.from_numpy(hit)} | floats | whole, object=truth | axis, scene={"id": torch.tensor([row])}
    )
