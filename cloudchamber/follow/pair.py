"""Two hits and the beam line: the circle through them, where a third hit may be, and the state they begin. Compiled."""

from __future__ import annotations

import math
from typing import Any

from numba import njit
from numpy.typing import NDArray

from cloudchamber.follow.cloud import BINS, NEXT, bin_of, carry, sector, span, turn_to, within
from cloudchamber.follow.state import (
    BEND,
    COS,
    FIELD,
    KK,
    LL,
    MASS,
    PP,
    SIN,
    SLOPE,
    TT,
    UNEVEN,
    ZL,
    ZZ,
    Z,
    arc_over_chord,
    chord_over_arc,
    residual,
    scatter,
    update,
)  # fmt: skip

Array = NDArray[Any]
#: Where a circle of two hits meets a layer: radius, sine of the angle to the way out, curvature, z, slope, and the
#: variances across it and along z.
Aim = tuple[float, float, float, float, float, float, float]

NARROW = 0.6  # window of ``promising`` in parts of that of ``near``, as its widths are added up more generously
MARGIN = 40.0  # mm outside of a layer where nothing is looked for
WIDE = 0.3  # rad; a window in phi wider than this is not looked into


@njit(cache=True, error_model="numpy")
def circle(p: Any, q: Any) -> tuple[float, float, float]:
    """The curvature of the circle through the beam line and two hits, and the arcs up to them; nan if it turns back."""
    dx, dy = q.x - p.x, q.y - p.y
    bend = 2 * (p.x * q.y - p.y * q.x) / (p.radius * q.radius * math.sqrt(dx * dx + dy * dy))
    s1, s2 = 0.5 * bend * p.radius, 0.5 * bend * q.radius
    if not (abs(s1) < 0.9 and abs(s2) < 0.9):
        return math.nan, 0.0, 0.0
    return bend, p.radius * arc_over_chord(s1), q.radius * arc_over_chord(s2)


@njit(cache=True, error_model="numpy")
def begin(
    a: Array, b: Array, p: Any, q: Any, bend: float, arc1: float, arc2: float, inner: Any, outer: Any, unit: float,
    d0: float,
) -> None:  # fmt: skip
    """The state ``a`` at the second of two hits of two layers, from the beam line on, given their ``circle``."""
    s1 = 0.5 * bend * p.radius
    c1 = math.sqrt(1 - s1 * s1)
    slope = (q.z - p.z) / (arc2 - arc1)
    a[:] = 0.0
    a[COS], a[SIN] = (p.x * c1 + p.y * s1) / p.radius, (p.y * c1 - p.x * s1) / p.radius
    a[BEND], a[Z], a[SLOPE] = bend, p.z - slope * arc1, slope
    a[TT], a[PP], a[KK], a[FIELD] = d0 * d0, 1.0, 1e-4, 1.0
    carry(a, b, arc1, 2 * s1 * c1, 1 - 2 * s1 * s1, inner)
    b[ZZ], b[ZL], b[LL] = 1e8, 0.0, 1e4
    along, t, dz, st, sz, _ = residual(b, p)
    update(b, along, t, dz, st, sz)
    scatter(b, inner.thickness, inner.disc, unit)
    run, turn = arc2 - arc1, b[BEND] * (arc2 - arc1)
    carry(b, a, run, math.sin(turn), math.cos(turn), outer)
    along, t, dz, st, sz, _ = residual(a, q)
    update(a, along, t, dz, st, sz)
    scatter(a, outer.thickness, outer.disc, unit)


@njit(cache=True, error_model="numpy")
def _variances(hit: Any, bend: float, square: float) -> tuple[float, float]:
    """Of a hit across a track from the beam line, and along z, given the square of its slope."""
    turned = 0.5 * bend * hit.radius * hit.error_r
    return hit.error_t * hit.error_t + turned * turned, hit.error_z * hit.error_z + square * hit.error_r * hit.error_r


@njit(cache=True, error_model="numpy")
def _any_hit(
    phi: float, w: float, dphi: float, dw: float, aim: Aim, chi2: float, row: int, layers: Array, hits: Array,
    start: Array,
) -> bool:  # fmt: skip
    """Whether a layer has a free hit in a window, with a chi2 below ``chi2`` there: that of ``residual`` in short."""
    layer, (radius, sine, bend, z, slope, st, sz) = layers[row], aim
    first, last, cosine = sector(phi - dphi), sector(phi + dphi), math.sqrt(1 - sine * sine)
    for bin_ in range(bin_of(layer, w - dw), bin_of(layer, w + dw) + 1):
        for part in range(2):
            begin_, end = span(start, row * BINS + bin_, first, last, part)
            for h in range(begin_, end):
                hit = hits[h]
                if not within(hit, layer.disc, phi, w, dphi, dw):
                    continue
                turn = turn_to(phi, hit.phi)
                out, left = hit.radius * (1 - 0.5 * turn * turn) - radius, hit.radius * turn
                along = out * cosine + left * sine
                t, dz = left * cosine - out * sine - 0.5 * bend * along * along, hit.z - z - slope * along
                vt, vz = _variances(hit, bend, slope * slope)
                vt, vz = vt + st, vz + sz
                if t * t * vz + dz * dz * vt < chi2 * vt * vz:
                    return True
    return False


@njit(cache=True, error_model="numpy")
def _crossing(layer: Any, p: Any, q: Any, bend: float, arc1: float, arc2: float, slope: float) -> tuple[float, float]:
    """Where the circle of two hits meets a layer behind: arc and radius; 0 where it does not."""
    if layer.disc:
        arc = arc1 + (layer.at - p.z) / slope
        half = 0.5 * bend * arc
        return (arc, arc * chord_over_arc(half)) if arc > arc2 and abs(half) < 1.2 else (0.0, 0.0)
    sine = 0.5 * bend * layer.at
    return (layer.at * arc_over_chord(sine), layer.at) if layer.at > q.radius and abs(sine) < 0.95 else (0.0, 0.0)


@njit(cache=True, error_model="numpy")
def promising(
    p: Any, q: Any, bend: float, arc1: float, arc2: float, inner: Any, outer: Any, chi2: float, d0: float, unit: float,
    layers: Array, hits: Array, start: Array,
) -> int:  # fmt: skip
    """Which of the layers of a third hit have one near the ``circle`` of two, a bit for each: ``near`` in short.

    Windows are those that the filter would give: the errors of the hits and the impact parameter ``d0`` move the third
    one as the parabola through their offsets does; scattering and the unevenness of the field add to it.
    """
    step, slope, found = 1 / (arc2 - arc1), (q.z - p.z) / (arc2 - arc1), 0
    square, k, steep = slope * slope, (bend / unit) ** 2, 1 / max(abs(slope), 0.1)
    lean = math.sqrt(1 + (1 / max(square, 1e-4) if outer.disc else square))
    kink = 0.0136 * 0.0136 * k * lean * (1 + MASS * MASS * k / (1 + square))  # squared, per radiation length
    (t1, z1), (t2, z2) = _variances(p, bend, square), _variances(q, bend, square)
    for i in range(NEXT):
        row = outer.seed[i]
        if row < 0:
            break
        layer = layers[row]
        arc, radius = _crossing(layer, p, q, bend, arc1, arc2, slope)
        z = p.z + slope * (arc - arc1)
        w = radius if layer.disc else z
        if not (arc > 0 and layer.low - MARGIN < w < layer.high + MARGIN):
            continue
        sine, run, lever = 0.5 * bend * radius, arc - arc2, (arc - arc1) / arc2
        tangent, along = abs(sine) / math.sqrt(1 - sine * sine), run * step
        off, first, second = run / arc1 * lever * d0, along * arc / arc1, (1 + along) * arc / arc2
        bent = kink * (outer.thickness + lever * lever * inner.thickness) + (0.5 * UNEVEN * bend * arc) ** 2
        across = math.sqrt(off * off + first * first * t1 + second * second * t2 + bent * run * run)
        dw = math.sqrt(along**2 * z1 + (1 + along) ** 2 * z2 + kink * outer.thickness * (1 + square) * run * run)
        area = 2 * math.pi * NARROW * across * dw * (steep if layer.disc else 1.0)
        cut = min(chi2, -2 * math.log(area * layer.density[bin_of(layer, w)]))  # see ``at_most``
        if cut <= 0:
            continue
        aim = (radius, sine, bend, z, slope, across * across, dw * dw)
        sigmas, deep = NARROW * math.sqrt(cut), layer.spread
        across, dw = sigmas * across, sigmas * dw
        if layer.disc:
            deep = (dw + deep) * steep
            dw = deep + across * tangent
        else:
            dw += abs(slope) * (deep * (1 + tangent) + across * tangent)
        dw += sigmas * layer.error_w
        dphi = (across * (1 + tangent) + tangent * deep + sigmas * layer.error_t + 0.05) / radius
        if w + dw < layer.low or w - dw > layer.high:
            continue
        phi = q.phi + 0.5 * bend * run
        if dphi > WIDE or _any_hit(phi, w, dphi, dw, aim, cut, row, layers, hits, start):
            found |= 1 << i
    return found
