"""The shape of a cluster and the direction of the track that left it. Compiled.

A track crosses more channels the flatter it meets a sensor: their number along v, which points along the beam or, in a
disc, along r, tells |dz/dr|; that along u, which points around the beam, tells ``lean``. What a number tells is learned
from tracks, layer by layer, and with it the tilt of the modules and the drift of charges in them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[Any]

DIRECTIONS = ("steep_low", "steep_high", "lean_low", "lean_high")
LENGTHS = 32  # numbers of channels that are told apart, the last of them or more; 0 where there are none


@njit(cache=True, error_model="numpy")
def lean(x: float, y: float, dx: float, dy: float, dz: float, disc: bool) -> float:
    """Tangent of the angle around the beam from the way out at (x, y), that along z in a disc, to (dx, dy, dz)."""
    across: float = x * dy - y * dx
    return across / (np.hypot(x, y) * dz) if disc else across / (x * dx + y * dy)


@njit(cache=True, error_model="numpy")
def fits(hit: Any, layer: Any, steep: float, dx: float, dy: float, dz: float) -> bool:
    """Whether a track may have left the cluster of a hit on its way (dx, dy, dz), of which ``steep`` is |dz/dr|."""
    if not layer.steep_low[hit.length] <= steep <= layer.steep_high[hit.length]:
        return False
    if hit.width == 0:
        return True
    tangent = lean(hit.x, hit.y, dx, dy, dz, layer.disc)
    return bool(layer.lean_low[hit.width] <= tangent <= layer.lean_high[hit.width])


@njit(cache=True, error_model="numpy")
def ways(x: Array, y: Array, z: Array, disc: Array, inner: Array, outer: Array) -> Array:
    """Of tracks that come from ``inner`` to ``outer`` points |dz/dr| and ``lean`` at either, ``(pairs, 3)``."""
    result = np.empty((len(inner), 3))
    for i in range(len(inner)):
        p, q = inner[i], outer[i]
        dx, dy, dz = x[q] - x[p], y[q] - y[p], z[q] - z[p]
        result[i, 0] = abs(dz / (np.hypot(x[q], y[q]) - np.hypot(x[p], y[p])))
        result[i, 1], result[i, 2] = lean(x[p], y[p], dx, dy, dz, disc[p]), lean(x[q], y[q], dx, dy, dz, disc[q])
    return result


@njit(cache=True)
def cluster_sizes(point: Array, channel: Array, points: int) -> Array:
    """Channels from the first to the last cell of each point, at most ``LENGTHS`` - 1; 0 where there are none."""
    least, most = np.full(points, 1 << 62), np.full(points, -1)
    for i in range(len(point)):
        if point[i] < 0:
            continue
        least[point[i]] = min(least[point[i]], channel[i])
        most[point[i]] = max(most[point[i]], channel[i])
    sizes: Array = np.minimum(np.maximum(most - least + 1, 0), LENGTHS - 1)
    return sizes
