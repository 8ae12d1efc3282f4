"""Seeds of three hits and the beam line, followed. Compiled."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cloudchamber.follow.cloud import (
    BINS,
    FOUND,
    NEXT,
    PATH,
    SECTORS,
    THIRDS,
    bin_of,
    carry,
    near,
    sector,
    span,
    turn_to,
)  # fmt: skip
from cloudchamber.follow.pair import begin, circle, promising
from cloudchamber.follow.path import MOST, at_most, follow, join, take
from cloudchamber.follow.shape import fits
from cloudchamber.follow.state import BEND, FIELD, KK, SIZE, reach, scatter

Array = NDArray[Any]

SAME = 3.0  # summed errors of two hits of a layer that they are apart at most on one track
REACH = 2.5  # widths of its impact parameters that a pass reaches


class Pass(NamedTuple):
    """What a pass looks for: see ``FollowConfig``; ``curvature`` in 1/mm, ``unit`` its product with pT in GeV."""

    curvature: float
    unit: float
    z0: float
    d0: float
    seed_chi2: float
    chi2: float
    hits: int
    score: float
    holes: int
    shared: int

    def covers(self, pt: Array, d0: Array, z0: Array) -> Array:
        """Which particles of these parameters (GeV, mm, not negative) the pass is there for."""
        return np.asarray((self.unit / self.curvature <= pt) & (d0 <= REACH * self.d0) & (z0 <= self.z0))


#: A path: its ``hits``, how many, score, layers missed, and the state at its last hit.
PATHS = np.dtype(
    [
        ("hits", np.int64, MOST),
        ("number", np.int64),
        ("score", np.float64),
        ("missed", np.int64),
        ("state", np.float64, SIZE),
    ]
)


@njit(cache=True, error_model="numpy")
def _inner(hit: Any, layer: Any, z0: float) -> tuple[float, float]:
    """Range of the coordinate along an inner layer where a straight line from the beam line, |z| < z0, meets it."""
    if not layer.disc:
        part = layer.at / hit.radius
        middle, half = hit.z * part, z0 * abs(1 - part)
        return middle - half - 2, middle + half + 2
    low, high = hit.z - z0, hit.z + z0
    if low * high <= 0:
        return 1.0, 0.0
    one, two = hit.radius * (layer.at + z0) / high, hit.radius * (layer.at - z0) / low
    return min(one, two) - 2, max(one, two) + 2


@njit(cache=True, error_model="numpy")
def _turn(outer: float, inner: float, limits: Pass) -> float:
    """How far apart in phi the hits of a track at two radii may be."""
    most = math.asin(min(limits.curvature * outer / 2, 1.0)) - math.asin(min(limits.curvature * inner / 2, 1.0))
    return min(abs(most + REACH * limits.d0 * (1 / inner - 1 / outer)) + 0.003, 1.5)


@njit(cache=True, error_model="numpy")
def _bent(a: Array, limits: Pass) -> bool:
    """Whether the curvature is above that of the pass by more than its error allows."""
    return bool(abs(a[BEND]) - 2.5 * math.sqrt(a[KK]) > limits.curvature * abs(a[FIELD]))


@njit(cache=True, error_model="numpy")
def _beside(hit: Any, old: Any, other: Any, disc: bool) -> bool:
    """Whether a hit is where the way from an ``old`` one of its layer to ``other`` meets another module."""
    if hit.module == old.module:
        return False
    if disc:
        part = (hit.z - old.z) / (other.z - old.z)
        apart = hit.radius - old.radius - part * (other.radius - old.radius)
        error = hit.error_r + old.error_r
    else:
        part = (hit.radius - old.radius) / (other.radius - old.radius)
        apart = hit.z - old.z - part * (other.z - old.z)
        error = hit.error_z + old.error_z
    across = abs(turn_to(old.phi, hit.phi) - part * turn_to(old.phi, other.phi)) * hit.radius
    return bool(abs(apart) < SAME * error and across < SAME * (hit.error_t + old.error_t))


@njit(cache=True, error_model="numpy")
def _known(first: int, second: int, path: Any, layers: Array, hits: Array) -> bool:
    """Whether two hits are those that a path begins with, or lie beside them where modules overlap."""
    p, q = path.hits[0], path.hits[1]
    return bool(
        (first == p or _beside(hits[first], hits[p], hits[q], layers[hits[p].layer].disc))
        and (second == q or _beside(hits[second], hits[q], hits[p], layers[hits[q].layer].disc))
    )


@njit(cache=True, error_model="numpy")
def _third(
    states: Array, first: int, second: int, which: int, limits: Pass, owner: Array, paths: Array, number: int,
    layers: Array, hits: Array, start: Array, whole: Array, real: Array,
) -> int:  # fmt: skip
    """Follow every seed of a pair of hits, from ``states[0]`` at the second one: the new number of paths, or -1."""
    a, b, c, d = states[0], states[1], states[2], states[3]
    for k in range(NEXT):
        row = layers[hits[second].layer].seed[k]
        if row < 0:
            break
        if not which >> k & 1:
            continue
        layer = layers[row]
        arc, sine, cosine = reach(a, layer.disc, layer.at)
        if arc <= 0:
            continue
        carry(a, b, arc, sine, cosine, layer)
        cut = min(limits.seed_chi2, 2 * at_most(b, layer))  # beyond it a hit is as likely a stranger's
        if cut <= 0:
            continue
        thirds = near(b, row, layers, hits, start, cut, 1.0, 8, whole, real)
        whole[THIRDS, :thirds] = whole[FOUND, :thirds]
        for i in range(thirds):
            third, known = whole[THIRDS, i], owner[first]
            if known >= 0 and known == owner[second] and known == owner[third]:
                continue
            c[:] = b
            score = take(c, hits[third], layer)
            if score < 0 or _bent(c, limits):  # a hit that is as likely a stranger's
                continue
            whole[PATH, 0], whole[PATH, 1], whole[PATH, 2] = first, second, third
            n, more = join(c, row, 3, THIRDS, thirds, layers, hits, whole)
            scatter(c, layer.thickness, layer.disc, limits.unit)
            n, rest, missed = follow(
                c, d, row, n, True, limits.chi2, limits.holes, limits.unit, layers, hits, start, whole, real
            )
            score += more + rest
            if n < limits.hits or score < limits.score:
                continue
            if number == len(paths):
                return -1
            paths[number].hits[:n], paths[number].state[:] = whole[PATH, :n], c
            paths[number].number, paths[number].score, paths[number].missed = n, score, missed
            for q in range(n):
                h = whole[PATH, q]
                if owner[h] < 0 or paths[owner[h]].score < score:
                    owner[h] = number
            number += 1
    return number


@njit(cache=True, error_model="numpy")
def follow_pairs(
    inner: int,
    outer: int,
    limits: Pass,
    paths: Array,
    layers: Array,
    hits: Array,
    start: Array,
    whole: Array,
    real: Array,
) -> tuple[int, int]:
    """Follow the seeds that begin with free hits in these two layers: fills ``paths``.

    Returns the number of paths, -1 where ``paths`` is too short, and that of pairs of hits that were tried.
    """
    states, number, tried = np.zeros((4, SIZE)), 0, 0
    owner = np.full(len(hits), -1, np.int32)  # the best path of each hit
    layer, rows = layers[inner], BINS * SECTORS
    for second in range(start[outer * rows], start[(outer + 1) * rows]):
        hit = hits[second]
        least, most = _inner(hit, layer, limits.z0)
        if hit.track >= 0 or most < layer.low or least > layer.high or least > most:
            continue
        for bin_ in range(bin_of(layer, least), bin_of(layer, most) + 1):
            radius = layer.at - layer.spread
            if layer.disc:
                radius = max(layer.low + bin_ * (layer.high - layer.low) / BINS, least)
            turn = _turn(hit.radius, radius, limits)
            for part in range(2):
                begin_, end = span(start, inner * BINS + bin_, sector(hit.phi - turn), sector(hit.phi + turn), part)
                for first in range(begin_, end):
                    other = hits[first]
                    run, apart = hit.radius - other.radius, abs(hit.phi - other.phi)
                    if other.track >= 0 or run < 1 or min(apart, 2 * math.pi - apart) > turn:
                        continue
                    dx, dy, dz = hit.x - other.x, hit.y - other.y, hit.z - other.z
                    slope = dz / run
                    if abs(other.z - other.radius * slope) > limits.z0:
                        continue
                    steep = abs(slope)
                    if not (fits(hit, layers[outer], steep, dx, dy, dz) and fits(other, layer, steep, dx, dy, dz)):
                        continue
                    tried += 1
                    known = owner[second] if owner[second] >= 0 else owner[first]
                    if known >= 0 and _known(first, second, paths[known], layers, hits):
                        owner[first] = owner[second] = known
                        continue
                    bend, arc1, arc2 = circle(other, hit)
                    if math.isnan(bend):
                        continue
                    which = promising(
                        other, hit, bend, arc1, arc2, layer, layers[outer], limits.seed_chi2, limits.d0, limits.unit,
                        layers, hits, start,
                    )  # fmt: skip
                    if which == 0:
                        continue
                    begin(
                        states[0], states[1], other, hit, bend, arc1, arc2, layer, layers[outer], limits.unit, limits.d0
                    )
                    if _bent(states[0], limits):
                        continue
                    number = _third(
                        states, first, second, which, limits, owner, paths, number, layers, hits, start, whole, real
                    )
                    if number < 0:
                        return -1, tried
    return number, tried
