"""The field along the beam, relative to that in the middle, as the tracks of an event themselves show it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

NODES = 11  # along |z|, where the field is known; linear between them
ANCHOR = 0.1  # mm, error of the beam line as the first point of a track
KNOWN = 0.02  # error from which the field of a node is rather the continuation of the ones before it
ROUNDS = 5  # of least squares, by turns in the curvatures of the tracks and in the field
SCATTER = 2e-3  # rad, of a track in a layer


def field_at(field: Array, reach: float, z: Array) -> Array:
    """The relative field at ``z`` (mm), given that of the nodes from 0 to ``reach``."""
    return np.asarray(np.interp(np.abs(z), np.linspace(0, reach, NODES), field))


def measure_field(hits: Array, reach: float) -> Array:
    """The relative field ``(NODES,)`` up to ``reach`` (mm) from rows of ``HIT`` that have a track.

    Three hits in a row of a track, the beam line first, give its curvature at the middle one. The field is what makes
    these, over one curvature per track, agree: bilinear least squares. It is 1 at the first node.
    """
    hits = hits[np.lexsort((hits["radius"] ** 2 + hits["z"] ** 2, hits["track"]))]
    track = hits["track"].astype(np.int64)
    new = np.diff(track, prepend=-1) != 0
    once = new | (np.diff(hits["layer"], prepend=-1) != 0)
    hits, track, new = hits[once], track[once], new[once]
    first = np.flatnonzero(new)
    x, y, z = (np.insert(hits[name], first, 0.0) for name in "xyz")
    error, track = np.insert(hits["error_t"], first, ANCHOR), np.insert(track, first, track[first])
    a = np.flatnonzero(track[2:] == track[:-2])
    number, middle = track[a], np.abs(z[a + 1])
    dx, dy = np.diff(x), np.diff(y)
    length = np.hypot(dx, dy)
    one, two, whole = length[a], length[a + 1], np.hypot(x[a + 2] - x[a], y[a + 2] - y[a])
    with np.errstate(all="ignore"):
        curvature = 2 * (dx[a] * dy[a + 1] - dy[a] * dx[a + 1]) / (one * two * whole)
        kinks = (error[a] / one) ** 2 + (error[a + 1] * (1 / one + 1 / two)) ** 2 + (error[a + 2] / two) ** 2
        weight = 1 / ((kinks + SCATTER**2) * (2 / (one + two)) ** 2)
    good = np.isfinite(curvature * weight)
    number, curvature, weight = number[good], curvature[good], weight[good]
    node = np.minimum(np.rint(middle[good] * (NODES - 1) / reach).astype(np.int64), NODES - 1)
    node = np.maximum(node, 1)  # all of the middle is one
    field, tracks = np.ones(NODES), int(number.max(initial=-1)) + 1
    for _ in range(ROUNDS):
        own = _ratio(number, weight * curvature * field[node], weight * field[node] ** 2, tracks)[0]
        field, precision = _ratio(node, weight * curvature * own[number], weight * own[number] ** 2, NODES)
        if precision[1] < KNOWN**-2:
            return np.ones(NODES)
        field /= field[1]
        field[0] = 1.0
        for i in range(2, NODES):
            if precision[i] < KNOWN**-2:
                field[i] = 2 * field[i - 1] - field[i - 2]
        field = np.clip(field, 0.1, 2.0)
    return field


def _ratio(group: Array, above: Array, below: Array, groups: int) -> tuple[Array, Array]:
    """Of sums by group; and the lower one."""
    lower = np.bincount(group, below, groups)
    return np.bincount(group, above, groups) / np.maximum(lower, 1e-30), lower
