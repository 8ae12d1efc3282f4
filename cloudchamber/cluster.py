"""From scored edges to objects: components, the walk-through that splits merged ones, and how it is completed.
From a learned space to objects: greedy condensation, followers of influencers, density clustering."""

from __future__ import annotations

from typing import Any, Literal

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from cloudchamber.errors import UserError
from cloudchamber.ops import around, connected_components, grid, group, near_cells, squared_distance

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


@numba.njit(cache=True)
def _condense(x: Array, order: Array, radius: float) -> tuple[Array, Array]:
    """The object of each point, and the point that each object was taken by."""
    low, edge, size, offset, member = grid(x, radius)
    stop = offset[1:].copy()
    label, centre = np.full(len(x), -1, np.int64), np.zeros(len(order), np.int64)
    number = 0
    for i in order:
        if label[i] >= 0:
            continue
        centre[number] = i
        for key in near_cells(x[i], low, edge, size):
            at = offset[key]
            while at < stop[key]:
                j = member[at]
                if label[j] < 0 and squared_distance(x[i], x[j]) <= radius * radius:
                    label[j] = number
                if label[j] >= 0:  # taken: no later search of the cell meets it again
                    stop[key] -= 1
                    member[at], member[stop[key]] = member[stop[key]], j
                else:
                    at += 1
        number += 1
    return label, centre[:number]


def condense(
    space: Array,
    beta: Array,
    *,
    threshold: float,
    radius: float,
    take: float = 0.0,
    order: Literal["beta", "random"] = "beta",
    seed: int = 0,
    min_points: int = 1,
) -> Array:
    """Greedy condensation: object per point, shape ``(points,)``, or -1 (Kieseler, arXiv:2002.03605).

    Of the points with ``beta`` (points,) of at least ``threshold`` the next one that is free takes all free points
    within ``radius`` of it in ``space`` (points, dimensions): the one of largest beta, or a random one (``seed``).
    With ``take``, points then go to the nearest within this distance of those that took at least ``min_points``. One
    object after the other, so that threads change nothing; linear in the points where their density is bounded.
    """
    centre = np.flatnonzero(beta >= threshold)
    if order == "beta":
        centre = centre[np.argsort(-beta[centre], kind="stable")]
    else:
        centre = np.random.default_rng(seed).permutation(centre)
    place = _finite(space)
    label, found = _condense(place, centre, radius)
    if not take:
        return _renumber(label, min_points)
    large = np.bincount(label[label >= 0], minlength=len(found)) >= min_points
    return _renumber(_nearest(place, place[found[large]], take), min_points)


def _nearest(place: Array, centre: Array, take: float) -> Array:
    """The nearest centre within ``take`` of each place, or -1."""
    one = torch.zeros(len(place) + len(centre), dtype=torch.int64)
    at, to = torch.from_numpy(place), torch.from_numpy(centre)
    row, near = around(at, to, take, 1, one[: len(place)], one[len(place) :])
    label = np.full(len(place), -1)
    label[row] = near
    return label


@numba.njit(cache=True, parallel=True)
def _follow(user: Array, leader: Array, radius: float) -> Array:
    """Points are taken in the order of a grid: what neighbours look at is still in the cache."""
    low, edge, size, offset, users = grid(user, radius)
    low2, edge2, size2, offset2, leaders = grid(leader, radius)
    placed, placed2 = user[users], leader[leaders]
    followers = np.zeros(len(leader), np.int64)
    for row in numba.prange(len(leader)):
        for key in near_cells(placed2[row], low, edge, size):
            for i in range(offset[key], offset[key + 1]):
                followers[row] += squared_distance(placed2[row], placed[i]) <= radius * radius
    label = np.full(len(user), -1, np.int64)
    for row in numba.prange(len(user)):
        best, most = -1, 0
        for key in near_cells(placed[row], low2, edge2, size2):
            for j in range(offset2[key], offset2[key + 1]):
                if squared_distance(placed[row], placed2[j]) <= radius * radius and (
                    (followers[j], -leaders[j]) > (most, -best)
                ):
                    best, most = leaders[j], followers[j]
        label[users[row]] = best
    return label


def follow(user: Array, leader: Array, *, radius: float, take: float = 0.0, min_points: int = 1) -> Array:
    """Influencer assignment: object per point, shape ``(points,)``, or -1.

    Every user follows the influencer within ``radius`` that has most users within it; of equals that in the lowest row,
    so that users who see the same ones agree. Objects are the followers of an influencer. With ``take``, users then go
    to the nearest within this distance of the influencers that at least ``min_points`` follow. ``user`` and ``leader``
    have shape ``(points, dimensions)``. Linear in the points where their density is bounded.
    """
    user, leader = _finite(user), _finite(leader)
    label = _follow(user, leader, radius)
    if take:
        found, followers = np.unique(label[label >= 0], return_counts=True)
        label = _nearest(user, leader[found[followers >= min_points]], take)
    return _renumber(label, min_points)


def density(
    space: Array, *, method: Literal["dbscan", "hdbscan"], radius: float, core: int = 1, min_points: int = 1
) -> Array:
    """Density clustering by scikit-learn: object per point, shape ``(points,)``, or -1.

    ``dbscan`` joins points within ``radius`` of one another where at least ``core`` are (Ester et al., KDD 1996);
    ``hdbscan`` chooses a radius for each cluster and looks at no other (Campello et al., PAKDD 2013). Raises
    ``UserError`` where scikit-learn is missing.
    """
    try:
        from sklearn.cluster import DBSCAN, HDBSCAN
    except ImportError as error:
        raise UserError(
            f"density clustering needs scikit-learn: pip install 'cloudchamber[density]' ({error})"
        ) from None
    space = _finite(space)
    if len(space) < max(min_points, core, 2):
        return np.full(len(space), -1)
    if method == "dbscan":
        found = DBSCAN(eps=radius, min_samples=core)
    else:
        found = HDBSCAN(min_cluster_size=max(min_points, 2), min_samples=core, copy=True)
    return _renumber(found.fit_predict(space), min_points)


def _finite(space: Array) -> Array:
    if not np.isfinite(space).all():
        raise ValueError("cluster: the learned space has coordinates that are not finite")
    return np.ascontiguousarray(space, np.float64)
