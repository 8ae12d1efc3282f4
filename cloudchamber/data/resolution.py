"""How well hits in the TrackML detector are measured: along the axes of their modules, from simulated events.

``python -m cloudchamber.data.resolution EVENTS`` measures the table that ships anew, from events with truth.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cloudchamber.data import detector, open_events
from cloudchamber.errors import UserError
from cloudchamber.event import Event

Floats = NDArray[np.float64]

#: Bins of |z| / r of a hit, about the |cot theta| at which its particle comes in: it sets the length of the cluster.
SLOPES = np.array([0.3, 0.7, 1.2, 2.0, 3.0, 5.0, 8.0, 12.0])
_TABLE = "resolution.parquet"
_FEWEST = 200  # hits in a bin; else that of the whole layer, else pitch / sqrt(12)
_OUTLIER = 5.0  # half widths of the middle 68.3%: the ends of modules cut clusters, and shift them far


def hit_errors(point: Mapping[str, Any]) -> dict[str, Floats]:
    """The arguments ``sigma_rphi``, ``sigma_r``, ``sigma_z`` (mm) and ``angle`` (rad) of ``helix_fit``, ``(hits,)``.

    ``point`` has x, y, z, volume, layer and module; the errors are those of the table along u and v of the module. An
    empty dictionary, hence the defaults of the fit, without ``module`` or for modules of another detector.
    """
    if not {"volume", "layer", "module"} <= point.keys():
        return {}
    x, y, z, volume, layer, module = (np.asarray(point[name]) for name in ("x", "y", "z", "volume", "layer", "module"))
    modules = detector.load()
    try:
        rows = modules.rows(volume, layer, module)
    except UserError:
        return {}
    first, second = _table()[_layers()[rows], np.digitize(np.abs(z) / np.hypot(x, y), SLOPES)].T
    u = modules.rotation[rows, :2, 0]
    barrel = np.abs(modules.rotation[rows, 2, 1]) > 0.5
    # The axis has no sign: any multiple of pi may be left out of the angle.
    angle = np.arctan2(u[:, 1], u[:, 0]) - np.arctan2(y, x) - np.pi / 2
    return {
        "sigma_rphi": first,
        "sigma_r": np.where(barrel, 0.0, second),
        "sigma_z": np.where(barrel, second, 0.0),
        "angle": angle,
    }


@cache
def _layers() -> NDArray[np.int64]:
    """The number of the layer of each module, shape (modules,), counted in the order of the modules."""
    modules = detector.load()
    return np.cumsum((np.diff(modules.volume, prepend=-1) != 0) | (np.diff(modules.layer, prepend=-1) != 0)) - 1


@cache
def _table() -> Floats:
    """The errors (layers, bins, 2) along u and v, mm."""
    table = pq.read_table(Path(str(resources.files("cloudchamber.data") / _TABLE)))
    errors: Floats = np.stack([table[name].to_numpy() for name in ("sigma_u", "sigma_v")], axis=1)
    return errors.astype(np.float64).reshape(-1, len(SLOPES) + 1, 2)


def measure(events: Iterable[Event]) -> Floats:
    """The errors (layers, bins, 2) in mm: rms of measured less true position of the hits of charged particles.

    Hits beyond ``_OUTLIER`` half widths are left out.
    """
    modules, parts = detector.load(), []
    for event in events:
        point = {name: column.numpy() for name, column in event.point.items()}
        particle = point["object"]
        kept = (particle >= 0) & (np.append(event.object["hits"].numpy(), 0)[particle] >= 4)
        rows = modules.rows(*(point[name][kept] for name in ("volume", "layer", "module")))
        apart = np.stack([point[name][kept] - point[f"t{name}"][kept].astype(np.float64) for name in "xyz"], axis=1)
        slope = np.abs(point["z"][kept]) / np.hypot(point["x"][kept], point["y"][kept])
        parts.append(
            np.column_stack([modules.turn_local(rows, apart)[:, :2], _layers()[rows], np.digitize(slope, SLOPES)])
        )
    table = np.concatenate(parts)
    errors = np.empty((_layers()[-1] + 1, len(SLOPES) + 1, 2))
    for layer in range(len(errors)):
        own, first = table[table[:, 2] == layer], np.argmax(_layers() == layer)
        for axis, pitch in enumerate((modules.pitch_u[first], modules.pitch_v[first])):
            errors[layer, :, axis] = _width(own[:, axis]) if len(own) >= _FEWEST else pitch / np.sqrt(12)
            for bin_ in range(len(SLOPES) + 1):
                here = own[own[:, 3] == bin_, axis]
                if len(here) >= _FEWEST:
                    errors[layer, bin_, axis] = _width(here)
    return errors


def _width(values: Floats) -> float:
    low, middle, high = np.quantile(values, [0.1587, 0.5, 0.8413])
    near = values[np.abs(values - middle) < _OUTLIER * (high - low) / 2]
    return float(near.std())


def main() -> None:
    """Write the shipped table anew."""
    errors = measure(open_events(sys.argv[1])).reshape(-1, 2).astype(np.float32)
    table = pa.table({"sigma_u": errors[:, 0], "sigma_v": errors[:, 1]})
    pq.write_table(table, Path(__file__).with_name(_TABLE), compression="zstd")


if __name__ == "__main__":
    main()
