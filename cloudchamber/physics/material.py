"""Where the material of a detector is: cylinders and discs, as the helix fit needs them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


def cylinder(radius: float, half_length: float, thickness: float, loss: float = 0.0) -> tuple[float, ...]:
    """A row of walls: a cylinder around the beam line, mm; ``thickness`` and ``loss`` as in ``walls``."""
    return 0.0, radius, -half_length, half_length, thickness, loss


def disc(z: float, inner: float, outer: float, thickness: float, loss: float = 0.0) -> tuple[float, ...]:
    """A row of walls: a disc across the beam line between two radii, mm; ``thickness`` and ``loss`` as in ``walls``."""
    return 1.0, z, inner, outer, thickness, loss


def walls(rows: Iterable[tuple[float, ...]] = ()) -> Float:
    """Rows of ``cylinder`` and ``disc`` as an array ``(walls, 6)``; none by default.

    ``thickness`` in radiation lengths, ``loss`` the energy in GeV that a minimum ionising particle loses, both for
    crossing at a right angle.
    """
    return np.array(list(rows), np.float64).reshape(-1, 6)


def _trackml() -> Float:
    silicon, beryllium = 95.7, 352.8  # mm per radiation length
    rows = [cylinder(19.0, 3000.0, 0.8 / beryllium, 0.236e-3), cylinder(200.0, 2800.0, 1.8 / beryllium, 0.53e-3)]
    rows += [cylinder(r, 493.0, 1.65 / silicon) for r in (35.51, 74.96, 118.79, 174.7)]
    rows += [cylinder(r, 1086.0, 2.25 / silicon) for r in (255.39, 355.08, 494.86, 654.72)]
    rows += [cylinder(r, 1086.0, 2.85 / silicon) for r in (814.59, 1014.52)]
    for side in (-1, 1):
        near, far = (600, 700, 820, 960, 1100, 1300, 1500), (1220, 1500, 1800, 2150, 2550, 2950)
        rows += [disc(side * z, 29.0, 177.2, 1.65 / silicon) for z in near]
        rows += [disc(side * z, 235.0, 706.1, 2.75 / silicon) for z in far]
        rows += [disc(side * z, 745.0, 1027.5, 3.85 / silicon) for z in far]
    return walls(rows)


#: The TrackML detector, from the surfaces of ACTS's generic detector: beam pipe, pixels and their support tube, strips.
#: Silicon loses nothing there: in pyacts 48.1 its density is 1000 times too low (beryllium's is right).
TRACKML = _trackml()
