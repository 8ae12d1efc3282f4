"""The TrackML hit weight: how much each hit counts in the score."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

Numbers: TypeAlias = ArrayLike | Tensor

#: Relative weight of the hits along a track, first to last, interpolated to the number of hits.
ALONG_TRACK = (10.0, 8.0, 6.0, 5.0, 3.0, 3.0, 3.0, 5.0, 6.0)
#: Weight of a particle against its transverse momentum in GeV: linear in between, constant outside.
PT_GEV, BY_PT = (0.5, 3.0), (0.2, 1.0)
#: Particles with fewer hits count nothing.
MIN_HITS = 4


def track_order(particle: Numbers, key: Numbers) -> NDArray[np.int64]:
    """Number the hits of every particle 0, 1, 2, ... along its track, by increasing ``key``.

    ``particle`` (hits,): the particle of each hit as a number >= 0; -1 is noise and gets -1. ``key`` (hits,): anything
    that grows along the track: the time, or the distance from the production vertex. Equal keys keep their order.
    Returns shape (hits,). Raises ``ValueError`` when the shapes differ.
    """
    owner, along = _array(particle, np.int64), _array(key, np.float64)
    if owner.shape != along.shape or owner.ndim != 1:
        raise ValueError(f"track_order: particle has shape {owner.shape}, key {along.shape}; expected the same (hits,)")
    order = np.lexsort((along, owner))
    grouped = owner[order]
    row = np.arange(len(owner))
    first = np.maximum.accumulate(np.where(np.diff(grouped, prepend=-2) != 0, row, 0))
    rank = np.empty(len(owner), dtype=np.int64)
    rank[order] = row - first
    return np.where(owner >= 0, rank, -1)


def hit_weights(
    particle: Numbers,
    pt: Numbers,
    *,
    position: Numbers | None = None,
    vertex: Numbers | None = None,
    order: Numbers | None = None,
    scored: Numbers | None = None,
) -> NDArray[np.float64]:
    """The TrackML weight of every hit, adding up to 1 over the event.

    ``w = w_order(rank) / sum_track(w_order) * w_pt / normalisation``: ``w_order`` interpolates ``ALONG_TRACK`` to the
    hits of the track, ``w_pt`` is 0.2 at pT <= 0.5 GeV and rises linearly to 1 at pT >= 3 GeV. Hits of noise and of
    particles with fewer than four hits weigh 0; an event without any other hit weighs 0 throughout. Amrouche et al.,
    "The Tracking Machine Learning challenge: Accuracy phase", arXiv:1904.06778. The throughput phase gave no weight to
    particles born in the detector: leave them out with ``scored`` (particles,), bool.

    ``particle`` (hits,): row of the particle, -1 noise. ``pt`` (particles,): transverse momentum at production, GeV.
    The order along the track is ``order`` (hits,), anything growing along it, or else the distance of ``position``
    (hits, 3) from ``vertex`` (particles, 3), both in mm. Raises ``ValueError`` when neither is given or a row is
    missing.
    """
    owner, momentum = _array(particle, np.int64), _array(pt, np.float64)
    if len(owner) and owner.max() >= len(momentum):
        raise ValueError(f"hit_weights: a hit names particle {owner.max()}, but pt has only {len(momentum)} rows")
    if order is None:
        if position is None or vertex is None:
            raise ValueError("hit_weights: give either order, or position and vertex")
        order = _distance(owner, _array(position, np.float64), _array(vertex, np.float64))
    rank = track_order(owner, order)
    hits = np.bincount(owner[owner >= 0], minlength=len(momentum))
    count = hits >= MIN_HITS
    if scored is not None:
        count &= _array(scored, np.bool_)
    chosen = np.flatnonzero(owner >= 0)
    chosen = chosen[count[owner[chosen]]]
    track = owner[chosen]
    steps = len(ALONG_TRACK) - 1
    along = np.interp(rank[chosen] * steps / (hits[track] - 1), np.arange(steps + 1), ALONG_TRACK)
    along /= np.bincount(track, along, minlength=len(momentum))[track]
    weight = np.zeros(len(owner))
    weight[chosen] = along * np.interp(momentum[track], PT_GEV, BY_PT)
    total = weight.sum()
    return weight / total if total > 0 else weight


def _distance(
    owner: NDArray[np.int64], position: NDArray[np.float64], vertex: NDArray[np.float64]
) -> NDArray[np.float64]:
    distance = np.zeros(len(owner))
    real = owner >= 0
    distance[real] = np.linalg.norm(position[real] - vertex[owner[real]], axis=1)
    return distance


def _array(values: Numbers, kind: type[Any]) -> NDArray[Any]:
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=kind)
