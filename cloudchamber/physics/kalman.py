"""Compiled kernels of the helix fit: the circle that it starts from, the filter, the smoother.

They stay in one file: numba compiles anew when the file of a function changes, not those of the functions it calls.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cloudchamber.physics.helix import circle_of

Float = NDArray[np.float64]
Four = tuple[float, float, float, float]
Five = tuple[float, float, float, float, float]
Work = tuple[Float, Float, Float, Float]

_TINY = 1e-6  # mm^2, a floor of one micrometre on errors across the track and along z: they must not vanish
_GRAZING = 0.02  # smallest cosine to the normal of a wall
_MASS = 0.13957  # GeV, a pion's: for the velocity
_STEPS = 5  # at most; the filter mostly needs two passes
_PRIOR = np.array([1e2, 1e0, 1e-2, 1e3, 1e1]) ** 2  # variances of d0, phi, kappa, z0, cot theta: no constraint


@njit(cache=True, nogil=True)
def _nearest(x: float, y: float, u: float, v: float, p: Float) -> tuple[float, float, float, float]:
    """Distance of a point left of the circle, arc length of the nearest point, cosine and sine of its turning angle."""
    along, across = x * u + y * v, y * u - x * v - p[0]
    offset = across - p[2] * (along * along + across * across) / 2
    c, s = 1 - p[2] * across, p[2] * along
    turn = math.atan2(s, c)
    if abs(turn) > math.pi / 2 and turn * p[2] < 0:  # beyond half a turn
        turn += math.copysign(2 * math.pi, p[2])
    arc = along / c if abs(turn) < 1e-9 else turn / p[2]
    norm = math.sqrt(c * c + s * s)
    return 2 * offset / (1 + norm), arc, c / norm, s / norm


@njit(cache=True, nogil=True)
def _line(hits: Float, order: NDArray[np.int64], arc: Float, p: Float) -> None:
    """Start z0 and cot theta from the unweighted line z(s), and sort the ``order`` of the hits, outermost first."""
    u, v = math.cos(p[1]), math.sin(p[1])
    n, s1, s2, z1, sz = float(len(order)), 0.0, 0.0, 0.0, 0.0
    for i in range(len(order)):
        row = order[i]
        s, z = _nearest(hits[row, 0], hits[row, 1], u, v, p)[1], hits[row, 2]
        s1, s2, z1, sz = s1 + s, s2 + s * s, z1 + z, sz + s * z
        k = i
        while k > 0 and arc[k - 1] < s:
            arc[k], order[k] = arc[k - 1], order[k - 1]
            k -= 1
        arc[k], order[k] = s, row
    p[4] = (n * sz - s1 * z1) / (n * s2 - s1 * s1)
    p[3] = (z1 - p[4] * s1) / n


@njit(cache=True, nogil=True)
def _update(p: Float, cov: Float, j: Five, residual: float, variance: float, kept: Float) -> float:
    """Kalman update of parameters and covariance, in place, by one measured number with derivatives ``j``.

    Of the covariance the upper triangle alone is used. Returns the chi2; ``kept`` (12,) takes what the smoother needs:
    the derivatives, the gain, the innovation over its variance, and one over that variance.
    """
    c0 = cov[0, 0] * j[0] + cov[0, 1] * j[1] + cov[0, 2] * j[2] + cov[0, 3] * j[3] + cov[0, 4] * j[4]
    c1 = cov[0, 1] * j[0] + cov[1, 1] * j[1] + cov[1, 2] * j[2] + cov[1, 3] * j[3] + cov[1, 4] * j[4]
    c2 = cov[0, 2] * j[0] + cov[1, 2] * j[1] + cov[2, 2] * j[2] + cov[2, 3] * j[3] + cov[2, 4] * j[4]
    c3 = cov[0, 3] * j[0] + cov[1, 3] * j[1] + cov[2, 3] * j[2] + cov[3, 3] * j[3] + cov[3, 4] * j[4]
    c4 = cov[0, 4] * j[0] + cov[1, 4] * j[1] + cov[2, 4] * j[2] + cov[3, 4] * j[3] + cov[4, 4] * j[4]
    cj = (c0, c1, c2, c3, c4)
    inverse = 1 / (c0 * j[0] + c1 * j[1] + c2 * j[2] + c3 * j[3] + c4 * j[4] + variance)
    change = residual - (p[0] * j[0] + p[1] * j[1] + p[2] * j[2] + p[3] * j[3] + p[4] * j[4])
    for i in range(5):
        gain = cj[i] * inverse
        p[i] += gain * change
        kept[i], kept[5 + i] = j[i], gain
        for k in range(i, 5):
            cov[i, k] -= gain * cj[k]
    kept[10], kept[11] = change * inverse, inverse
    chi2: float = change * change * inverse
    return chi2


@njit(cache=True, nogil=True)
def _add(cov: Float, g: Five, variance: float) -> None:
    for i in range(5):
        for k in range(i, 5):
            cov[i, k] += variance * g[i] * g[k]


@njit(cache=True, nogil=True)
def _crossings(walls: Float, p: Float, end: float, found: Float) -> int:
    """Where the helix crosses walls on its way out, up to the arc length ``end``: fills ``found`` and counts.

    Each row of ``found`` is the arc length, the radiation lengths on the way, and the loss on the way; outermost first.
    """
    n, lever, slope = 0, 1 + p[2] * p[0], math.sqrt(1 + p[4] * p[4])
    for wall in walls:
        if wall[0] == 0.0:
            square = (wall[1] * wall[1] - p[0] * p[0]) / lever
            sine = p[2] * p[2] * square / 4  # of half the turn, squared
            if not (square > 0 and sine < 1):
                continue
            chord, sine = math.sqrt(square), math.sqrt(sine)
            arc = chord if sine < 1e-6 else 2 * math.asin(sine) / abs(p[2])
            height = p[3] + p[4] * arc
            path = slope / max(lever * chord * math.sqrt(1 - sine * sine) / wall[1], _GRAZING)
        else:
            arc = (wall[1] - p[3]) / p[4] if p[4] != 0.0 else -1.0
            chord = arc if abs(p[2] * arc) < 1e-6 else 2 * math.sin(p[2] * arc / 2) / p[2]
            height = math.sqrt(p[0] * p[0] + chord * chord * lever)
            path = slope / max(abs(p[4]), _GRAZING)
        if 0 < arc < end and wall[2] < height < wall[3]:
            k = n
            while k > 0 and found[k - 1, 0] < arc:
                found[k] = found[k - 1]
                k -= 1
            found[k, 0], found[k, 1], found[k, 2] = arc, wall[4] * path, wall[5] * path
            n += 1
    return n


@njit(cache=True, nogil=True)
def _turned(p: Float, arc: float, c: float, s: float) -> Four:
    """At a turn with cosine ``c`` and sine ``s``: the way straight on, across, what the arc is longer, and the lever.

    Lengths over kappa: ``sin / kappa``, ``(1 - cos) / kappa``, ``(arc - sin / kappa) / kappa``; ``1 + kappa d0``.
    """
    turn = p[2] * arc
    if abs(turn) < 1e-3:
        return arc - arc * turn * turn / 6, arc * turn / 2, arc * arc * turn / 6, 1 + p[2] * p[0]
    straight = s / p[2]
    return straight, (1 - c) / p[2], (arc - straight) / p[2], 1 + p[2] * p[0]


@njit(cache=True, nogil=True)
def _cross(step: Float, cov: Float, p: Float, arc: float, thickness: float, loss: float, unit: float) -> None:
    """Scattering and energy loss at ``arc``, in ``thickness`` radiation lengths: the effect on the perigee parameters.

    A kink in one of the two angles, and a change of kappa, turn the helix about that point: the effect of each is
    ``g``. ``slope``: 1 / sin^2(theta); the loss grows as 1 / beta^2.
    """
    c, s = math.cos(p[2] * arc), math.sin(p[2] * arc)
    straight, across, stretch, lever = _turned(p, arc, c, s)
    slope = 1 + p[4] * p[4]
    inverse = p[2] * p[2] / (unit * unit)  # 1 / pT^2
    beta = 1 / (1 + min(_MASS * _MASS * inverse / slope, 10.0))  # squared
    if thickness > 0:
        angle = 0.0136 * (1 + 0.038 * math.log(thickness / beta))
        variance = angle * angle * thickness / beta * inverse
        _add(cov, (-straight, c / lever, 0.0, -p[4] * (p[0] + across) / lever, 0.0), variance)
        pull = p[4] / slope
        g3 = -arc - p[4] * pull * (straight / lever - arc)
        _add(cov, (pull * across, -pull * s / lever, pull * p[2], g3, 1.0), variance * slope)
    if loss > 0:
        change = -p[2] * loss * math.sqrt(inverse / slope) / beta**1.5
        step[0] += change * (arc * arc / 2 if abs(p[2] * arc) < 1e-3 else across / p[2])
        step[1] -= change * straight / lever
        step[2] += change
        step[3] += change * p[4] * (stretch + straight * p[0] / lever)


@njit(cache=True, nogil=True)
def _filter(
    hits: Float, order: NDArray[np.int64], crossed: Float, p: Float, unit: float, step: Float, cov: Float, kept: Float
) -> float:
    """Kalman filter from the outermost hit to the perigee, linear around ``p``: fills ``step`` and its covariance.

    Returns chi2; ``crossed``: see ``_crossings``; ``kept`` (2 * hits, 12): see ``_update``; ``unit``: kappa at 1 GeV.
    """
    u, v = math.cos(p[1]), math.sin(p[1])
    cov[:], step[:], chi2 = 0.0, 0.0, 0.0
    for i in range(5):
        cov[i, i] = _PRIOR[i]
    done = 0
    for n in range(len(order)):
        h = hits[order[n]]
        e, arc, c, s = _nearest(h[0], h[1], u, v, p)
        while done < len(crossed) and crossed[done, 0] > arc:
            _cross(step, cov, p, crossed[done, 0], crossed[done, 1], crossed[done, 2], unit)
            done += 1
        fx, fy = u * c - v * s, u * s + v * c
        # The first error lies along (h[6], h[7]) in the transverse plane, the second across it, the third along z: seen
        # as distance across the track (tt) and along z (zz) at that distance.
        k, q = h[6] * fx + h[7] * fy, h[7] * fx - h[6] * fy
        first, second = h[3] * h[3], h[4] * h[4]
        tt = first * q * q + second * k * k + _TINY
        zz = h[5] * h[5] + p[4] * p[4] * (second * q * q + first * k * k) + _TINY
        ratio = p[4] * k * q * (second - first) / tt
        _, across, stretch, lever = _turned(p, arc, c, s)
        along = u * h[0] + v * h[1]
        # The distance to the circle, then z given that distance: derivatives by the parameters.
        j0, j1, j2 = c, along * lever, (along * along + across * across) / 2
        chi2 += _update(step, cov, (j0, j1, j2, 0.0, 0.0), e, tt, kept[2 * n])
        k0, k1, k2 = -p[4] * s - ratio * j0, p[4] * (p[0] * c - across) - ratio * j1, -p[4] * stretch - ratio * j2
        residual = h[2] - p[3] - p[4] * arc - ratio * e
        chi2 += _update(step, cov, (k0, k1, k2, 1.0, arc), residual, zz - ratio * ratio * tt, kept[2 * n + 1])
    for i in range(done, len(crossed)):
        _cross(step, cov, p, crossed[i, 0], crossed[i, 1], crossed[i, 2], unit)
    return chi2


@njit(cache=True, nogil=True)
def _smooth(kept: Float, order: NDArray[np.int64], chi2: float, hit_chi2: Float) -> int:
    """Fill ``hit_chi2``: how much of ``chi2`` goes when a hit is left out; returns the place of the largest in order.

    Goes back through the updates of the filter, innermost hit first, with the adjoint vector ``a`` and its covariance
    ``b``: P. de Jong, Biometrika 76 (1989) 65. The two numbers of a hit, 1 before 0, have the weighted residuals ``w``,
    whose covariance (d0, both, d1) is the inverse of that of the residuals without the hit.
    """
    a, b, m, w, d = np.zeros(5), np.zeros((5, 5)), np.zeros(5), np.zeros(2), np.zeros(2)
    worst = 0
    for n in range(len(order) - 1, -1, -1):
        both = 0.0
        for half in (1, 0):
            j, gain = kept[2 * n + half, :5], kept[2 * n + half, 5:10]
            w[half], d[half] = kept[2 * n + half, 10], kept[2 * n + half, 11]
            for i in range(5):
                if half == 0:  # m still is that of number 1
                    both += gain[i] * (m[i] - d[1] * kept[2 * n + 1, i])
            for i in range(5):
                m[i] = 0.0
                for k in range(5):
                    m[i] += b[min(i, k), max(i, k)] * gain[k]
                w[half] -= gain[i] * a[i]
            for i in range(5):
                d[half] += gain[i] * m[i]
            for i in range(5):
                a[i] += j[i] * w[half]
                for k in range(i, 5):
                    b[i, k] += d[half] * j[i] * j[k] - j[i] * m[k] - m[i] * j[k]
        det = d[0] * d[1] - both * both
        lost = w[0] * w[0] * d[1] - 2 * w[0] * w[1] * both + w[1] * w[1] * d[0]
        hit_chi2[order[n]] = min(lost / det, chi2) if det > 1e-9 * d[0] * d[1] else chi2
        if n == len(order) - 1 or hit_chi2[order[n]] > hit_chi2[order[worst]]:
            worst = n
    return worst


@njit(cache=True, nogil=True)
def _fit(own: Float, order: NDArray[np.int64], end: float, walls: Float, unit: float, p: Float, work: Work) -> float:
    """Fit the hits of a track, in ``order``, outermost first, at the arc length ``end``; returns chi2.

    ``p`` is the start and takes the result; ``work``: memory for the step, the covariance, ``_update`` and crossings.
    """
    step, cov, kept, found = work
    crossed, chi2 = found[: _crossings(walls, p, end, found)], math.nan
    for _ in range(_STEPS):
        chi2 = _filter(own, order, crossed, p, unit, step, cov, kept)
        if not math.isfinite(step.sum()):
            break
        done = True
        for k in range(5):
            p[k] += step[k]
            done = done and step[k] * step[k] < 0.01 * cov[k, k]
        if done:
            break
    return chi2


@njit(cache=True, nogil=True)
def fit_all(
    hits: Float, bounds: NDArray[np.int64], walls: Float, unit: float, outlier: float
) -> tuple[Float, Float, Float, Float, NDArray[np.int64], Float]:
    """d0, phi, kappa, z0, cot theta of each track, (tracks, 5), covariance, chi2, its largest hit chi2, hits fitted.

    ``hits`` (n, 8) has the columns x, y, z, the errors and the direction of the first, sorted by track; track i holds
    the rows from ``bounds[i]`` to ``bounds[i + 1]``. ``walls``: see ``cloudchamber.physics.material``. The last is the
    chi2 of each hit, see ``_smooth``; ``outlier``: see ``helix_fit``. Nan where there is no fit.
    """
    tracks = len(bounds) - 1
    result, covariance = np.full((tracks, 5), np.nan), np.full((tracks, 5, 5), np.nan)
    chi2, largest, fitted = np.full(tracks, np.nan), np.full(tracks, np.nan), np.zeros(tracks, np.int64)
    hit_chi2 = np.full(len(hits), np.nan)
    longest = (bounds[1:] - bounds[:-1]).max() if tracks else 0
    p, arc = np.zeros(5), np.empty(longest)
    work = (np.zeros(5), np.zeros((5, 5)), np.zeros((2 * longest, 12)), np.empty((len(walls), 3)))
    for i in range(tracks):
        own, own_chi2 = hits[bounds[i] : bounds[i + 1]], hit_chi2[bounds[i] : bounds[i + 1]]
        fitted[i] = len(own)
        if len(own) < 3:
            continue
        order = np.arange(len(own))
        while True:
            p[0], p[1], p[2] = circle_of(own[order])
            if not math.isfinite(p[2]):
                break
            _line(own, order, arc, p)
            total = _fit(own, order, arc[0], walls, unit, p, work)
            result[i] = p
            if not math.isfinite(total):
                break
            chi2[i] = total
            for k in range(5):
                covariance[i, k, k:], covariance[i, k:, k] = work[1][k, k:], work[1][k, k:]
            worst = _smooth(work[2], order, total, own_chi2)
            largest[i] = own_chi2[order[worst]]
            few = fitted[i] <= 4 or 2 * (fitted[i] - 1) < len(own)
            if few or not largest[i] > outlier:
                break
            fitted[i] -= 1
            order = np.delete(order, worst)
    return result, covariance, chi2, largest, fitted, hit_chi2
