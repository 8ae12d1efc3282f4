"""From scored edges to objects: components, the walk-through that splits merged ones, and how it is completed."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from cloudchamber.ops import connected_components, group

Array = NDArray[Any]


def components(sender: Array, receiver: Array, points: int, *, min_points: int = 3) -> Array:
    """Connected components of at least ``min_points`` points: their number per point, shape ``(points,)``, or -1."""
    _, label = connected_components(sender, receiver, points)
    return _renumber(label, min_points)


def _renumber(label: Array, min_points: int) -> Array:
    """Number labels of at least ``min_points`` points consecutively; others, and -1, become -1."""
    size = np.bincount(label + 1, minlength=1)
    kept = size >= min_points
    kept[0] = False
    number = np.where(kept, np.cumsum(kept) - 1, -1)
    return np.asarray(number[label + 1])


@numba.njit(cache=True)
def _extend(
    sender: Array, gain: Array, offset: Array, incoming: Array, by_distance: Array, used: Array
) -> tuple[Array, Array]:
    """Gain of the best path that ends in each free point, and the point before it on that path, -1 at its start."""
    best, before = np.zeros(len(used)), np.full(len(used), -1, np.int64)
    seen = used.copy()
    for point in by_distance:
        if used[point]:
            continue
        seen[point] = True
        for edge in incoming[offset[point] : offset[point + 1]]:
            start = sender[edge]
            if start == point or not seen[start]:
                continue  # against the order, as between points at one distance: a path with it could be a circle
            if not used[start] and best[start] + gain[edge] > best[point]:
                best[point], before[point] = best[start] + gain[edge], start
    return best, before


@numba.njit(cache=True)
def _take(best: Array, before: Array, label: Array, first: int, min_points: int) -> int:
    """Take paths, best first, that meet no point taken earlier; returns the next free label."""
    path = np.empty(len(label), np.int64)
    for end in np.argsort(-best, kind="mergesort"):
        if best[end] <= 0:
            break
        point, length = end, 0
        while point >= 0 and label[point] < 0:
            path[length] = point
            length += 1
            point = before[point]
        if point < 0 and length >= min_points:
            label[path[:length]] = first
            first += 1
    return first


def walk(
    sender: Array,
    receiver: Array,
    gain: Array,
    distance: Array,
    *,
    min_points: int = 3,
    rounds: int = 8,
) -> Array:
    """Split a directed graph into paths of the largest total gain: object per point, shape ``(points,)``, or -1.

    ``gain`` (edges,) is the log-likelihood ratio of an edge against a threshold, so that the best path through a
    component is its most likely track; ``distance`` (points,) grows along every edge: one along which it falls is left
    out. The longest-path recursion of the walk-through of Exa.TrkX (arXiv:2103.06995) runs over all components at once;
    the best paths are taken, their points removed, and the rest is walked again, at most ``rounds`` times. Linear in
    points and edges but for one sort.
    """
    offset, incoming = group(receiver, len(distance))
    by_distance = np.argsort(distance, kind="stable")
    label = np.full(len(distance), -1, np.int64)
    first = 0
    for _ in range(rounds):
        best, before = _extend(sender, gain, offset, incoming, by_distance, label >= 0)
        taken = _take(best, before, label, first, min_points)
        if taken == first:
            break
        first = taken
    return label


@numba.njit(cache=True)
def _join(piece: Array, edges: Array, sender: Array, receiver: Array, pieces: int) -> Array:
    """Piece after piece: the given edges join, in their order, a piece without a next one to one without a previous."""
    after, taken = np.full(pieces, -1, np.int64), np.zeros(pieces, np.bool_)
    for edge in edges:
        a, b = piece[sender[edge]], piece[receiver[edge]]
        if after[a] < 0 and not taken[b]:
            after[a], taken[b] = b, True
    chain = np.arange(pieces)
    for start in range(pieces):
        if not taken[start]:
            member = after[start]
            while member >= 0:
                chain[member] = start
                member = after[member]
    return chain[piece]


def link(label: Array, sender: Array, receiver: Array, gain: Array, distance: Array, *, min_points: int = 3) -> Array:
    """Join paths, and points on none, end to end along edges of positive gain: object per point ``(points,)``, or -1.

    Of all edges from the last point of one piece to the first of another the most likely are taken first, and a piece
    gets at most one before and one after it. This mends paths that ``walk``, asked to be sure of every edge, broke.
    ``distance`` (points,) grows along a path; edges along which it does not are left out.
    """
    alone = label < 0
    pieces = int(label.max(initial=-1)) + 1
    piece = np.where(alone, pieces + np.cumsum(alone) - 1, label)
    pieces += int(alone.sum())
    low, high = np.full(pieces, np.inf), np.full(pieces, -np.inf)
    np.minimum.at(low, piece, distance)
    np.maximum.at(high, piece, distance)
    ends = (distance[sender] == high[piece[sender]]) & (distance[receiver] == low[piece[receiver]])
    edges = np.flatnonzero((gain > 0) & ends & (distance[sender] < distance[receiver]))
    edges = edges[np.argsort(-gain[edges], kind="stable")]
    return _renumber(_join(piece, edges, sender, receiver, pieces), min_points)


def attach(label: Array, sender: Array, receiver: Array, gain: Array) -> Array:
    """Give points on no path to the object at the other end of their best edge of positive gain: ``(points,)``, or -1.

    It picks up the second hit in a layer where modules overlap, which a path may have passed by.
    """
    free, result = label < 0, label.copy()
    out = np.flatnonzero((gain > 0) & free[sender] & ~free[receiver])
    into = np.flatnonzero((gain > 0) & free[receiver] & ~free[sender])
    point = np.concatenate([sender[out], receiver[into]])
    owner = np.concatenate([label[receiver[out]], label[sender[into]]])
    order = np.argsort(gain[np.concatenate([out, into])], kind="stable")
    result[point[order]] = owner[order]  # of several the last stays: the best
    return result
