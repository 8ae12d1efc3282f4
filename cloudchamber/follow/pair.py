"""Two hits and the beam line: the circle through them, where a third hit may be, and the state they begin. Compiled."""

from __future__ import annotations

import math
from typing import Any

from numba import njit
from numpy.typing import NDArray

from cloudchamber.follow.cloud import BINS, NEXT, bin_of, carry, sector, span
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

NARROW = 0.6  # window of ``promising`` in parts of that of ``near``, as errors are added up more generously
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
    along, t, dz, vt, vz, _ = residual(b, p)
    update(b, along, t, dz, vt, vz)
    scatter(b, inner.thickness, inner.disc, unit)
    run, turn = arc2 - arc1, b[BEND] * (arc2 - arc1)
    carry(b, a, run, math.sin(turn), math.cos(turn), outer)
    along, t, dz, vt, vz, _ = residual(a, q)
    update(a, along, t, dz, vt, vz)
    scatter(a, outer.thickness, outer.disc, unit)


@njit(cache=True, error_model="numpy")
def _any_hit(phi: float, w: float, dphi: float, dw: float, row: int, layers: Array, hits: Array, start: Array) -> bool:
    """Whether a layer has a free hit in a window."""
    layer = layers[row]
    first, last = sector(phi - dphi), sector(phi + dphi)
    for bin_ in range(bin_of(layer, w - dw), bin_of(layer, w + dw) + 1):
        for part in range(2):
            begin_, end = span(start, row * BINS + bin_, first, last, part)
            for h in range(begin_, end):
                apart, other = abs(hits[h].phi - phi), hits[h].radius if layer.disc else hits[h].z
                if min(apart, 2 * math.pi - apart) < dphi and abs(other - w) < dw and hits[h].track < 0:
                    return True
    return False


@njit(cache=True, error_model="numpy")
def promising(
    p: Any, q: Any, bend: float, arc1: float, arc2: float, inner: Any, outer: Any, chi2: float, d0: float, unit: float,
    layers: Array, hits: Array, start: Array,
) -> int:  # fmt: skip
    """Which of the layers of a third hit have one near the ``circle`` of two, a bit for each: ``near`` in short.

    Windows are those that the filter would give, from the errors of the hits and of the impact parameter ``d0``, the
    scattering and the unevenness of the field.
    """
    step, way1, way2 = 1 / (arc2 - arc1), 1 / arc1, 1 / arc2
    slope, found = (q.z - p.z) * step, 0
    steep = 1 / slope
    square, k = slope * slope, (bend / unit) ** 2
    lean = math.sqrt(1 + (1 / max(square, 1e-4) if outer.disc else square))
    kink = 0.0136 * 0.0136 * k * outer.thickness * lean * (1 + MASS * MASS * k / (1 + square))
    before = inner.thickness / outer.thickness
    turned1, turned2 = 0.5 * bend * p.radius * p.error_r, 0.5 * bend * q.radius * q.error_r
    t1, t2 = p.error_t * p.error_t + turned1 * turned1, q.error_t * q.error_t + turned2 * turned2
    z1, z2 = p.error_z * p.error_z + square * p.error_r * p.error_r, q.error_z * q.error_z + square * q.error_r * q.error_r
    for i in range(NEXT):
        row = outer.seed[i]
        if row < 0:
            break
        layer = layers[row]
        if layer.disc:
            arc = arc1 + (layer.at - p.z) * steep
            half = 0.5 * bend * arc
            if not (arc > arc2 and abs(half) < 1.2):
                continue
            w = radius = arc * chord_over_arc(half)
            sine = 0.5 * bend * radius
        else:
            radius, sine = layer.at, 0.5 * bend * layer.at
            if not (radius > q.radius and abs(sine) < 0.95):
                continue
            arc = radius * arc_over_chord(sine)
            w = p.z + slope * (arc - arc1)
        if not layer.low - MARGIN < w < layer.high + MARGIN:
            continue
        run, lever = arc - arc2, (arc - arc1) * way2
        tangent, along = abs(sine) / math.sqrt(1 - sine * sine), run * step
        # How the impact parameter and the two hits move the third one: the parabola through their offsets.
        off, own1, own2, curl = run * way1 * lever * d0, along * arc * way1, (1 + along) * arc * way2, 0.5 * UNEVEN * bend * run * arc
        across = math.sqrt(off * off + own1 * own1 * t1 + own2 * own2 * t2 + kink * run * run * (1 + lever * lever * before) + curl * curl)
        dw = math.sqrt(along * along * z1 + (1 + along) ** 2 * z2 + kink * (1 + square) * run * run)
        area = 2 * math.pi * NARROW * across * dw * (abs(steep) if layer.disc else 1.0)
        cut = min(chi2, -2 * math.log(area * layer.density[bin_of(layer, w)]))
        if cut <= 0:
            continue
        sigmas = NARROW * math.sqrt(cut)
        across, dw = sigmas * across, sigmas * dw
        deep = layer.spread
        if layer.disc:
            deep = (dw + deep) * min(abs(steep), 10.0)
            dw = deep + across * tangent
        else:
            dw += abs(slope) * (deep * (1 + tangent) + across * tangent)
        dw += sigmas * layer.error_w
        dphi = (across * (1 + tangent) + tangent * deep + sigmas * layer.error_t + 0.05) / radius
        phi = q.phi + 0.5 * bend * run
        if w + dw < layer.low or w - dw > layer.high:
            continue
        if dphi > WIDE or _any_hit(phi, w, dphi, dw, row, layers, hits, start):
            found |= 1 << i
    return found
