"""The state of a track that is followed: how it moves, scatters and is updated with hits. Compiled.

A Kalman filter, R. Fruhwirth, Nucl. Instrum. Meth. A 262 (1987) 444, with the transverse plane (offset, direction,
curvature) and the longitudinal one (z, slope) apart.
"""

from __future__ import annotations

import math
from typing import Any

from numba import njit
from numpy.typing import NDArray

Array = NDArray[Any]

# The state of a track at a point, ``SIZE`` numbers: the point (mm), the direction in the transverse plane, the
# curvature (1/mm, positive to the left), dz/ds; the covariance of offset to the left T, angle P and curvature K, of z
# and slope; the magnetic field there, relative to that in the middle.
X, Y, COS, SIN, BEND, Z, SLOPE = range(7)
TT, TP, TK, PP, PK, KK, ZZ, ZL, LL = range(7, 16)
FIELD, SIZE = 16, 17

WEAK = 0.02  # least field: without any the momentum is lost
SHARPEST = 0.8  # largest sine of a turn between two layers
MASS = 0.13957  # GeV, a pion's
UNEVEN = 0.1  # of the field from one layer to the next: it is weaker towards the ends of a solenoid


@njit(cache=True, error_model="numpy")
def arc_over_chord(sine: float) -> float:
    """``asin(sine) / sine``: the arc of a circle over its chord, if the sine is that of half its turn."""
    q = sine * sine
    if q < 0.1:
        return 1 + q * (1 / 6 + q * (3 / 40 + q * (5 / 112 + q * (35 / 1152 + q * 63 / 2816))))
    return math.asin(sine) / sine


@njit(cache=True, error_model="numpy")
def chord_over_arc(half: float) -> float:
    """``sin(half) / half``: the chord of a circle over its arc, whose turn is twice ``half``; that below 1.2."""
    q = half * half
    return 1 - q * (1 / 6 - q * (1 / 120 - q * (1 / 5040 - q / 362880)))


@njit(cache=True, error_model="numpy")
def one_over_root(square: float) -> float:
    """One over the square root, of what mostly is close to 1."""
    return 1.5 - 0.5 * square if abs(square - 1) < 1e-4 else 1 / math.sqrt(square)


@njit(cache=True, error_model="numpy")
def to_cylinder(a: Array, radius: float) -> tuple[float, float, float]:
    """Arc length to a radius and sine and cosine of the turn on the way; arc length -1 if it is not reached."""
    k = a[BEND]
    along, lever = a[X] * a[COS] + a[Y] * a[SIN], 1 + k * (a[Y] * a[COS] - a[X] * a[SIN])
    square = radius * radius - a[X] * a[X] - a[Y] * a[Y]
    root = along * along + lever * square
    if root <= 0:
        return -1.0, 0.0, 1.0
    chord = (math.copysign(math.sqrt(root), along) - along) / lever  # sine of the turn over k, to the nearer crossing
    limit = SHARPEST / max(abs(k), 1e-9)
    for _ in range(3):  # Newton; most need one step
        chord = min(max(chord, -limit), limit)
        cosine = math.sqrt(1 - k * k * chord * chord)
        miss = 2 * along * chord + 2 * lever * chord * chord / (1 + cosine) - square
        change = miss / (2 * along + 2 * lever * chord / cosine)
        chord -= change
        if abs(change) < 1e-3:
            break
    sine = k * chord
    if not (chord > 0 and abs(change) < 0.1 and abs(sine) < SHARPEST):
        return -1.0, 0.0, 1.0
    return chord * arc_over_chord(sine), sine, math.sqrt(1 - sine * sine)


@njit(cache=True, error_model="numpy")
def reach(a: Array, disc: bool, at: float) -> tuple[float, float, float]:
    """As ``_to_cylinder``, to a cylinder or a disc."""
    if not disc:
        onto: tuple[float, float, float] = to_cylinder(a, at)
        return onto
    arc = (at - a[Z]) / a[SLOPE] if a[SLOPE] != 0 else -1.0
    turn = a[BEND] * arc
    if not (arc > 0 and abs(turn) < 0.93):
        return -1.0, 0.0, 1.0
    return arc, math.sin(turn), math.cos(turn)


@njit(cache=True, error_model="numpy")
def reverse(a: Array) -> None:
    """The state of the track that flies the other way."""
    a[COS], a[SIN], a[BEND], a[SLOPE] = -a[COS], -a[SIN], -a[BEND], -a[SLOPE]
    a[TP], a[PK], a[ZL] = -a[TP], -a[PK], -a[ZL]


@njit(cache=True, error_model="numpy")
def toward(a: Array, hit: Any) -> tuple[float, float, float]:
    """Arc length to where the track is nearest to a hit, and sine and cosine of the turn on the way."""
    dx, dy, k = hit.x - a[X], hit.y - a[Y], a[BEND]
    along = dx * a[COS] + dy * a[SIN]
    u, v = k * along, 1 - k * (dy * a[COS] - dx * a[SIN])
    norm = math.sqrt(u * u + v * v)
    return along if abs(u) < 1e-4 else math.atan2(u, v) / k, u / norm, v / norm


@njit(cache=True, error_model="numpy")
def move(a: Array, b: Array, arc: float, sine: float, cosine: float) -> None:
    """``b``: the state ``a`` moved by an arc."""
    k, half = a[BEND], 0.5 * arc * arc
    straight, across = arc, half * k
    if abs(k * arc) >= 1e-4:
        radius = 1 / k
        straight, across = sine * radius, (1 - cosine) * radius
    b[X] = a[X] + straight * a[COS] - across * a[SIN]
    b[Y] = a[Y] + straight * a[SIN] + across * a[COS]
    b[COS], b[SIN] = a[COS] * cosine - a[SIN] * sine, a[SIN] * cosine + a[COS] * sine
    b[BEND], b[Z], b[SLOPE] = k, a[Z] + a[SLOPE] * arc, a[SLOPE]
    tp, tk = a[TP] + arc * a[PP] + half * a[PK], a[TK] + arc * a[PK] + half * a[KK]
    pk = a[PK] + arc * a[KK]
    b[TT] = a[TT] + arc * a[TP] + half * a[TK] + arc * tp + half * tk
    b[TP], b[TK], b[PP], b[PK], b[KK] = tp + arc * tk, tk, a[PP] + arc * (a[PK] + pk), pk, a[KK]
    zl = a[ZL] + arc * a[LL]
    b[ZZ], b[ZL], b[LL] = a[ZZ] + arc * (a[ZL] + zl), zl, a[LL]
    b[FIELD] = a[FIELD]


@njit(cache=True, error_model="numpy")
def adapt(a: Array, arc: float, field: float, radial: float, across: Array) -> None:
    """Correct a state that was moved by an arc as if in one field along z: it became ``field``, evenly on the way.

    And there is one across: ``radial`` times x and y, and ``across``, x and y at z = 0 and what is added to these per
    mm of z. What ``radial`` does to a straight track from the middle of the detector is in ``field``: see ``radial`` in
    field.py. With B_u along the direction of the track in the transverse plane, B_n to the left of it, curvature k in a
    field of 1 and slope t, it turns with ``k (B_z - t B_u)``, its slope changes by ``-k (1 + t^2) B_n`` per mm, and k
    by a share ``-k t B_n``.
    """
    t = a[SLOPE]
    z = a[Z] - 0.5 * t * arc
    bx, by = across[0] + across[2] * z, across[1] + across[3] * z
    before = 1 / a[FIELD]
    pull = (a[COS] * (by + radial * a[Y]) - a[SIN] * (bx + radial * a[X])) * a[BEND] * before * arc
    a[Z] -= 0.5 * pull * (1 + t * t) * arc
    a[SLOPE] -= pull * (1 + t * t)
    field -= t * (a[COS] * bx + a[SIN] * by)
    field = math.copysign(max(abs(field), WEAK), field)
    ratio = field * before * (1 - pull * t)
    change = a[BEND] * (ratio - 1)
    shift, turn = change * arc * arc / 6, change * arc / 2
    a[X] -= shift * a[SIN]
    a[Y] += shift * a[COS]
    c, s = a[COS] - turn * a[SIN], a[SIN] + turn * a[COS]
    norm = one_over_root(c * c + s * s)
    a[COS], a[SIN], a[BEND], a[FIELD] = c * norm, s * norm, a[BEND] * ratio, field
    a[TK] *= ratio
    a[PK] *= ratio
    a[KK] *= ratio * ratio


@njit(cache=True, error_model="numpy")
def scatter(a: Array, thickness: float, disc: bool, unit: float) -> None:
    """Multiple scattering in a layer, 13.6 MeV formula of the PDG review, at the momentum of the state; ``UNEVEN``."""
    square = a[SLOPE] * a[SLOPE]
    lean = math.sqrt(1 + (1 / max(square, 1e-4) if disc else square))
    momentum = (1 + square) * (unit * a[FIELD]) ** 2 / max(a[BEND] * a[BEND], 1e-12)  # squared
    thick = thickness * lean
    angle = 0.0136 * (1 + 0.038 * math.log(thick))
    angle *= angle * thick * (1 + MASS * MASS / momentum) / momentum  # squared, over beta squared
    a[PP] += angle * (1 + square)
    a[LL] += angle * (1 + square) * (1 + square)
    a[KK] += (angle * square + (UNEVEN / a[FIELD]) ** 2) * a[BEND] * a[BEND]


@njit(cache=True, error_model="numpy")
def residual(a: Array, hit: Any) -> tuple[float, float, float, float, float, float]:
    """Of a hit near a state: how far along and across it and along z, the variances of the last two, those of hit and
    state together, and the cosine to the normal."""
    dx, dy = hit.x - a[X], hit.y - a[Y]
    along = dx * a[COS] + dy * a[SIN]
    across = dy * a[COS] - dx * a[SIN] - 0.5 * a[BEND] * along * along
    cosine = abs(hit.x * a[COS] + hit.y * a[SIN]) / hit.radius
    c2, s2 = cosine * cosine, max(1 - cosine * cosine, 0.0)
    first, second = hit.error_t * hit.error_t, hit.error_r * hit.error_r
    st, sz = first * c2 + second * s2, hit.error_z * hit.error_z + a[SLOPE] * a[SLOPE] * (second * c2 + first * s2)
    st += a[TT] + along * (2 * a[TP] + along * a[PP])
    sz += a[ZZ] + along * (2 * a[ZL] + along * a[LL])
    return along, across, hit.z - a[Z] - a[SLOPE] * along, st, sz, cosine


@njit(cache=True, error_model="numpy")
def update(a: Array, along: float, across: float, dz: float, st: float, sz: float) -> None:
    """The state at a hit, given what ``residual`` says of it: its errors grow on the way there, as in ``move``."""
    tp, zl = a[TP] + along * a[PP], a[ZL] + along * a[LL]
    a[TT] += along * (a[TP] + tp)
    a[ZZ] += along * (a[ZL] + zl)
    a[TK] += along * a[PK]
    a[TP], a[ZL] = tp, zl
    k0, k1, k2 = a[TT] / st, a[TP] / st, a[TK] / st
    turn = a[BEND] * along
    c, s = a[COS] - turn * a[SIN], a[SIN] + turn * a[COS]
    a[X] += along * a[COS] - 0.5 * along * turn * a[SIN] - s * k0 * across
    a[Y] += along * a[SIN] + 0.5 * along * turn * a[COS] + c * k0 * across
    turn = k1 * across
    c, s = c - s * turn, s + c * turn
    norm = one_over_root(c * c + s * s)
    a[COS], a[SIN] = c * norm, s * norm
    a[BEND] += k2 * across
    a[KK] -= k2 * a[TK]
    a[PK] -= k1 * a[TK]
    a[PP] -= k1 * a[TP]
    a[TK] -= k0 * a[TK]
    a[TP] -= k0 * a[TP]
    a[TT] -= k0 * a[TT]
    g0, g1 = a[ZZ] / sz, a[ZL] / sz
    a[Z] += a[SLOPE] * along + g0 * dz
    a[SLOPE] += g1 * dz
    a[LL] -= g1 * a[ZL]
    a[ZL] -= g0 * a[ZL]
    a[ZZ] -= g0 * a[ZZ]


@njit(cache=True, error_model="numpy")
def place(a: Array, disc: bool) -> float:
    """The coordinate along a layer: r on a disc, z on a cylinder."""
    return math.sqrt(a[X] * a[X] + a[Y] * a[Y]) if disc else a[Z]
