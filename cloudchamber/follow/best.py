"""Which of the paths are taken as tracks, best first, and how these are completed. Compiled."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cloudchamber.follow.cloud import PATH
from cloudchamber.follow.path import back, complete
from cloudchamber.follow.seed import Pass
from cloudchamber.follow.state import SIZE

Array = NDArray[Any]

PRECISE = 0.1  # mm; a layer that measures both coordinates so well, as pixels do

#: A track: the state at its innermost hit, flying inwards; the chi2 of its path, the largest of one hit, score; radii
#: where it ``begins`` and ``ends``, mm; the hits that count for chi2, layers missed on the path; hits, layers, and hits
#: in layers that are ``precise``, in all.
TRACKS = np.dtype(
    [("state", np.float64, SIZE)]
    + [(name, np.float64) for name in ("chi2", "worst", "score", "begins", "ends")]
    + [(name, np.int64) for name in ("fitted", "missed", "hits", "layers", "precise")]
)


@njit(cache=True, error_model="numpy")
def take_best(
    paths: Array,
    limits: Pass,
    tracks: Array,
    number: int,
    layers: Array,
    hits: Array,
    start: Array,
    whole: Array,
    real: Array,
) -> int:
    """Take paths, best first, whose hits are free but for ``limits.shared``; complete them with the filter going back.

    Numbers their hits and fills ``tracks`` from ``number`` on: returns the new number of tracks.
    """
    states = np.zeros((2, SIZE))
    for i in np.argsort(-paths["score"], kind="mergesort"):
        n = 0
        for q in range(paths[i].number):
            if hits[paths[i].hits[q]].track < 0:
                whole[PATH, n] = paths[i].hits[q]
                n += 1
        if n < limits.hits or paths[i].number - n > limits.shared:
            continue
        states[0] = paths[i].state
        m, chi2, worst = back(states[0], states[1], n, limits.unit, layers, hits, start, whole, real)
        for q in range(m):
            hits[whole[PATH, q]].track = number
        track = tracks[number]
        track.state[:], track.chi2, track.worst, track.fitted = states[0], chi2, worst, n
        track.score, track.missed = paths[i].score, paths[i].missed
        number += 1
    return number


@njit(cache=True, error_model="numpy")
def inside_out(hits: Array, first: int, last: int) -> tuple[Array, Array]:
    """Where each track from ``first`` to before ``last`` begins among their hits, and the end; and these hits, each
    track's by distance from the origin."""
    begin = np.zeros(last - first + 1, np.int64)
    for hit in hits:
        if hit.track >= first:
            begin[hit.track - first + 1] += 1
    begin = np.cumsum(begin)
    end, order, away = begin.copy(), np.empty(begin[-1], np.int64), np.empty(begin[-1])
    for h in range(len(hits)):
        row = hits[h].track - first
        if row < 0:
            continue
        i, square = end[row], hits[h].radius * hits[h].radius + hits[h].z * hits[h].z
        end[row] += 1
        while i > begin[row] and away[i - 1] > square:
            order[i], away[i] = order[i - 1], away[i - 1]
            i -= 1
        order[i], away[i] = h, square
    return begin, order


@njit(cache=True, error_model="numpy")
def complete_all(
    first: int, last: int, tracks: Array, unit: float, layers: Array, hits: Array, start: Array, whole: Array,
    real: Array,
) -> None:  # fmt: skip
    """Add to the tracks from ``first`` to before ``last`` what free hits belong to them, and measure them."""
    states, (begin, order) = np.zeros((3, SIZE)), inside_out(hits, first, last)
    for number in range(first, last):
        track, n = tracks[number], begin[number - first + 1] - begin[number - first]
        whole[PATH, :n] = order[begin[number - first] : begin[number - first + 1]]
        states[0] = track.state
        m = complete(states, n, unit, layers, hits, start, whole, real)
        track.hits, track.begins, track.ends, track.layers, track.precise = m, math.inf, 0.0, 0, 0
        for q in range(m):
            hit, new = hits[whole[PATH, q]], True
            hit.track = number
            for other in whole[PATH, :q]:
                new &= hits[other].layer != hit.layer
            track.begins, track.ends = min(track.begins, hit.radius), max(track.ends, hit.radius)
            track.layers, track.precise = track.layers + new, track.precise + (layers[hit.layer].error_w < PRECISE)
