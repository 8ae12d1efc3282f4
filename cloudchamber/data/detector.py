"""The generic detector of the TrackML challenge: its modules, and the way between global and local coordinates."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import csv
from scipy.spatial import cKDTree

from cloudchamber.errors import UserError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Read-out of a volume: pitch along u and v, and sensor thickness, in mm. The long strips of the end caps are 10.4 mm.
PIXEL, SHORT_STRIP = (0.05, 0.05625, 0.15), (0.08, 1.2, 0.25)
READOUT = {7: PIXEL, 8: PIXEL, 9: PIXEL, 12: SHORT_STRIP, 13: SHORT_STRIP, 14: SHORT_STRIP}
READOUT |= {16: (0.12, 10.4, 0.35), 17: (0.12, 10.8, 0.35), 18: (0.12, 10.4, 0.35)}

_AXES = ("xu", "xv", "xw", "yu", "yv", "yw", "zu", "zv", "zw")
_TABLE = "generic.parquet"


@dataclass(frozen=True)
class Detector:
    """Planar modules, sorted by (volume, layer, module); lengths in mm.

    ``centre`` (modules, 3); ``rotation`` (modules, 3, 3) turns local (u, v, w) into global (x, y, z), w being the
    normal; ``half_u_min`` and ``half_u_max`` are the half widths at -``half_v`` and +``half_v`` (a trapezoid; equal for
    a rectangle), ``thickness`` that of the sensor, ``pitch_u`` and ``pitch_v`` the size of a channel. Channels are
    counted from the corner (-max half width, -``half_v``). ``surface`` is the number that ACTS gives to the module in
    its layer (in the end caps not TrackML's ``module``), -1 if unknown. All but ``centre`` and ``rotation`` have shape
    (modules,).
    """

    volume: Ints
    layer: Ints
    module: Ints
    surface: Ints
    centre: Floats
    rotation: Floats
    half_u_min: Floats
    half_u_max: Floats
    half_v: Floats
    thickness: Floats
    pitch_u: Floats
    pitch_v: Floats

    def __len__(self) -> int:
        """The number of modules."""
        return len(self.volume)

    @property
    def half_u(self) -> Floats:
        """The largest half width, mm: channel 0 along u starts at minus this."""
        return np.maximum(self.half_u_min, self.half_u_max)

    def rows(self, volume: Ints, layer: Ints, module: Ints) -> Ints:
        """The row of each (volume, layer, module), same shape; raises ``UserError`` naming one that does not exist."""
        return _find(_key(self.volume, self.layer, self.module), volume, layer, module, "module")

    def surface_rows(self, volume: Ints, layer: Ints, surface: Ints) -> Ints:
        """Like ``rows``, from ACTS's numbers."""
        return _find(_key(self.volume, self.layer, self.surface), volume, layer, surface, "surface")

    def to_local(self, rows: Ints, position: Floats) -> Floats:
        """Global (x, y, z) to the local (u, v, w) of the modules in ``rows``; both (hits, 3), mm."""
        return self.turn_local(rows, position - self.centre[rows])

    def to_global(self, rows: Ints, local: Floats) -> Floats:
        """Local (u, v, w) of the modules in ``rows`` to global (x, y, z); both (hits, 3), mm."""
        turned: Floats = np.einsum("nij,nj->ni", self.rotation[rows], local)
        return turned + self.centre[rows]

    def turn_local(self, rows: Ints, direction: Floats) -> Floats:
        """Turn global vectors (hits, 3) into the local frame of the modules in ``rows``, without shifting them."""
        turned: Floats = np.einsum("nji,nj->ni", self.rotation[rows], direction)
        return turned


@cache
def load() -> Detector:
    """The generic detector, 18,728 modules, from the table shipped with the package."""
    return from_table(_shipped())


def from_table(table: pa.Table) -> Detector:
    """A detector from a table with the column names of TrackML's ``detectors.csv`` (``volume_id``, ``cx``, ...)."""

    def floats(name: str) -> Floats:
        return np.asarray(table[name].to_numpy(), dtype=np.float64)[order]

    ids = [table[name].to_numpy().astype(np.int64) for name in ("volume_id", "layer_id", "module_id")]
    order = np.argsort(_key(*ids))
    known = "surface_id" in table.column_names
    ids.append(table["surface_id"].to_numpy().astype(np.int64) if known else np.full(table.num_rows, -1))
    names = ("module_minhu", "module_maxhu", "module_hv", "module_t", "pitch_u", "pitch_v")
    columns = [*(column[order] for column in ids), np.stack([floats(name) for name in ("cx", "cy", "cz")], axis=1)]
    columns.append(np.stack([floats(f"rot_{axes}") for axes in _AXES], axis=1).reshape(-1, 3, 3))
    return Detector(*columns, *(floats(name) for name in names))


def build(geometry: Any, numbering: Detector) -> pa.Table:
    """The module table of an ACTS generic detector (``acts.TrackingGeometry``), named as in TrackML's detectors.csv.

    ``numbering`` gives the TrackML module at each place, because ACTS counts the modules of a disc ring by ring and
    TrackML does not. Raises ``UserError`` when the two do not have the same modules within 0.01 mm.
    """
    import acts

    context = acts.GeometryContext.dangerouslyDefaultConstruct()
    rows = []
    for identifier, surface in geometry.geoIdSurfaceMap().items():
        if not identifier.sensitive:
            continue
        transform = surface.localToGlobalTransform(context)
        turn, centre, bounds = transform.rotation, transform.translation, list(surface.bounds.values())
        rectangle = len(bounds) == 4 and bounds[0] < 0  # (u min, v min, u max, v max), not a trapezoid's half widths
        half = (bounds[2], bounds[2], bounds[3]) if rectangle else bounds[:3]
        pitch_u, pitch_v, thickness = READOUT[identifier.volume]
        ids = (identifier.volume, identifier.layer, identifier.sensitive)
        rotation = [turn[i, j] for i in range(3) for j in range(3)]
        rows.append([*ids, *(centre[i] for i in range(3)), *rotation, thickness, *half, pitch_u, pitch_v])
    columns = np.array(rows, dtype=np.float64)
    distance, match = cKDTree(numbering.centre).query(columns[:, 3:6])
    if len(set(match)) != len(numbering) or distance.max() > 0.01:
        raise UserError("the numbering is that of another detector: its modules lie elsewhere")
    columns = np.insert(columns, 2, numbering.module[match], axis=1)
    columns = columns[np.lexsort(columns[:, 2::-1].T)]
    names = ["volume_id", "layer_id", "module_id", "surface_id", "cx", "cy", "cz", *(f"rot_{axes}" for axes in _AXES)]
    names += ["module_t", "module_minhu", "module_maxhu", "module_hv", "pitch_u", "pitch_v"]
    kinds = [np.int16] * 4 + [np.float32] * (len(names) - 4)
    return pa.table({name: column.astype(kind) for name, kind, column in zip(names, kinds, columns.T, strict=True)})


def _shipped() -> pa.Table:
    return pq.read_table(Path(str(resources.files("cloudchamber.data") / _TABLE)))


def _find(known: Ints, volume: Ints, layer: Ints, number: Ints, what: str) -> Ints:
    order = np.argsort(known)
    wanted = _key(volume, layer, number)
    row: Ints = order[np.minimum(np.searchsorted(known, wanted, sorter=order), len(known) - 1)]
    wrong = np.flatnonzero(known[row] != wanted)
    if len(wrong):
        i = int(wrong[0])
        name = f"volume {volume[i]}, layer {layer[i]}, {what} {number[i]}"
        raise UserError(f"the detector has no {name} (hit {i}, and {len(wrong) - 1} others)")
    return row


def _key(volume: Ints, layer: Ints, module: Ints) -> Ints:
    return (volume.astype(np.int64) << 40) | (layer.astype(np.int64) << 20) | module.astype(np.int64)


def main() -> None:
    """Write the shipped table anew: ``python -m cloudchamber.data.detector [detectors.csv]``.

    The geometry comes from pyacts, the module numbers from TrackML's file or else from the table shipped so far.
    """
    import acts
    import acts.examples

    detector = acts.examples.GenericDetector(logLevel=acts.logging.ERROR)
    numbering = from_table(csv.read_csv(sys.argv[1]) if len(sys.argv) > 1 else _shipped())
    table = build(detector.trackingGeometry(), numbering)
    pq.write_table(table, Path(__file__).with_name(_TABLE), compression="zstd", compression_level=19)


if __name__ == "__main__":
    main()
