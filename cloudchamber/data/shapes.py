"""What the shape of a cluster tells of the direction of its track, learned from events with truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from cloudchamber.errors import UserError
from cloudchamber.event import Event
from cloudchamber.follow import DIRECTIONS, HIT, LAYER, LENGTHS, cluster_sizes, fits, ways

Array = NDArray[Any]


def lengths(event: Event) -> tuple[Array, Array]:
    """Channels that the cluster of each hit takes along v and along u, ``(points,)`` each; 0 without cells.

    Raises ``UserError`` for a cell of a hit that is not there.
    """
    if not {"point", "u", "v"} <= event.cell.keys():
        none = np.zeros(event.rows("point"), np.int64)
        return none, none
    point, points = event.cell["point"].numpy(), event.rows("point")
    if len(point) and not (point.min() >= -1 and point.max() < points):
        raise UserError(f"cell.point: expected rows of {points} hits, found {point.min()} to {point.max()}")
    return cluster_sizes(point, event.cell["v"].numpy(), points), cluster_sizes(point, event.cell["u"].numpy(), points)


def directions(
    events: Sequence[Event], layer: Sequence[Array], pairs: Sequence[Sequence[Array]], disc: Array, share: float
) -> Array:
    """Least and most |dz/dr|, least and most ``lean`` by layer and length of a cluster, ``(layers, 4, LENGTHS)``.

    All but a ``share`` at either end, of the pairs of hits that follow one another; any where there are too few.
    ``layer``: that of the hits of each event, a row of ``disc``, or beyond it: then they do not count.
    """
    found: list[list[Array]] = [[], []]
    for event, where, (inner, outer) in zip(events, layer, pairs, strict=True):
        x, y, z = (event.point[name].double().numpy() for name in "xyz")
        long, wide = lengths(event)
        known = (where[inner] != where[outer]) & (np.maximum(where[inner], where[outer]) < len(disc))
        known &= np.hypot(x, y)[outer] - np.hypot(x, y)[inner] >= 1
        inner, outer = inner[known], outer[known]
        way = ways(x, y, z, np.append(disc, False)[where], inner, outer)
        for hit, tangent in ((inner, way[:, 1]), (outer, way[:, 2])):
            found[0].append(np.stack([where[hit] * LENGTHS + long[hit], way[:, 0]]))
            found[1].append(np.stack([where[hit] * LENGTHS + wide[hit], tangent]))
    rows = len(disc) * LENGTHS
    windows = [_windows(np.concatenate(part, 1), rows, share).reshape(2, len(disc), LENGTHS) for part in found]
    return np.ascontiguousarray(np.concatenate(windows).transpose(1, 0, 2))


def _windows(found: Array, rows: int, share: float) -> Array:
    """Of the values (2nd row) in each of so many cells (1st row) all but a share at either end, ``(2, rows)``."""
    cell, value = found[:, np.lexsort(found[::-1])]
    ends = np.searchsorted(cell, np.arange(rows + 1))
    result = np.tile([[-np.inf], [np.inf]], rows)
    for row in range(rows):
        own = value[ends[row] : ends[row + 1]]
        if row % LENGTHS > 0 and len(own) * share > 1:
            result[:, row] = np.quantile(own, [share, 1 - share])
    return result


def agree(event: Event, layer: Array, disc: Array, directions: Array, sender: Array, receiver: Array) -> Array:
    """Of edges between hits whether a track may have left the clusters at both ends, bool ``(edges,)``.

    ``directions``: see there. True for edges within a layer, or which do not lead away from the beam.
    """
    hits, layers = np.zeros(event.rows("point"), HIT), np.zeros(len(disc), LAYER)
    hits["x"], hits["y"], hits["z"] = (event.point[name].numpy() for name in "xyz")
    hits["radius"], hits["layer"] = np.hypot(hits["x"], hits["y"]), layer
    hits["length"], hits["width"] = lengths(event)
    layers["disc"] = disc
    for name, column in zip(DIRECTIONS, directions.transpose(1, 0, 2), strict=True):
        layers[name] = column
    result: Array = _agree(hits, layers, sender, receiver)
    return result


@numba.njit(cache=True, parallel=True)
def _agree(hits: Array, layers: Array, sender: Array, receiver: Array) -> Array:
    result = np.ones(len(sender), np.bool_)
    for i in numba.prange(len(sender)):
        p, q = hits[sender[i]], hits[receiver[i]]
        dx, dy, dz, run = q.x - p.x, q.y - p.y, q.z - p.z, q.radius - p.radius
        if p.layer != q.layer and run >= 1:
            steep = abs(dz) / run
            result[i] = fits(p, layers[p.layer], steep, dx, dy, dz) and fits(q, layers[q.layer], steep, dx, dy, dz)
    return result
