"""A track taken on from layer to layer, and back. Compiled.

A path is worth the log of a likelihood ratio: at each hit the density of the prediction over that of the free hits of
the layer, at each layer crossed without a hit ``MISSING``. Where it ends costs nothing: a hadron may end anywhere.
"""

from __future__ import annotations

import math
from typing import Any

from numba import njit
from numpy.typing import NDArray

from cloudchamber.follow.cloud import AHEAD, ARC, COSINE, FOUND, NEXT, PATH, SINE, bin_of, carry, near
from cloudchamber.follow.state import (
    FIELD,
    LL,
    SLOPE,
    TT,
    ZZ,
    X,
    Y,
    Z,
    place,
    reach,
    residual,
    reverse,
    scatter,
    toward,
    update,
)  # fmt: skip

Array = NDArray[Any]

MOST = 24  # hits of a track
MISSING = -3.0
PRIOR = 100.0  # the filter goes back from the state at the last hit, its covariance made so many times larger
LOOSE = 40.0  # chi2 of a hit that completes a track
OVERLAP = 15.0  # chi2 of a second hit in a layer, where modules overlap and their edges cut clusters


@njit(cache=True, error_model="numpy")
def _gain(a: Array, layer: Any, st: float, sz: float, cosine: float) -> float:
    """Log of the likelihood ratio of a hit where it is expected, from the variances across the track and along z."""
    area: float = 2 * math.pi * math.sqrt(st * sz) / (cosine * (cosine * abs(a[SLOPE]) if layer.disc else 1.0))
    return -math.log(area * layer.density[bin_of(layer, place(a, layer.disc))])


@njit(cache=True, error_model="numpy")
def at_most(a: Array, layer: Any) -> float:
    """What ``take`` gives at most for a hit of the layer where the state is; half the chi2 of the hit less."""
    most: float = _gain(a, layer, a[TT], a[ZZ], 1.0)
    return most


@njit(cache=True, error_model="numpy")
def take(a: Array, hit: Any, layer: Any) -> float:
    """Update the state with a hit; returns the log of the likelihood ratio: see above."""
    along, t, dz, st, sz, cosine = residual(a, hit)
    gain = _gain(a, layer, st, sz, cosine)
    update(a, along, t, dz, st, sz)
    return float(gain - 0.5 * (t * t / st + dz * dz / sz))


@njit(cache=True, error_model="numpy")
def join(
    a: Array, number: int, n: int, row: int, found: int, layers: Array, hits: Array, whole: Array
) -> tuple[int, float]:
    """Add those of the hits in a row of the memory to a path of ``n`` that belong to it: new length, and gain.

    They are of the layer where the state is, and of modules that are not on the path yet; chi2 below ``OVERLAP``.
    """
    gain = 0.0
    for i in range(found):
        new, there = whole[row, i], False
        for q in range(n):
            old = whole[PATH, q]
            there |= old == new or (hits[old].layer == number and hits[old].module == hits[new].module)
        if not there and n < MOST:
            _, t, dz, st, sz, _ = residual(a, hits[new])
            if t * t / st + dz * dz / sz < OVERLAP:
                gain += take(a, hits[new], layers[number])
                whole[PATH, n] = new
                n += 1
    return n, gain


@njit(cache=True, error_model="numpy")
def overlaps(
    a: Array, h: int, n: int, layers: Array, hits: Array, start: Array, whole: Array, real: Array
) -> tuple[int, float]:
    """Add the hits of other modules beside hit ``h``, where the state is, to a path of ``n``: new length, and gain."""
    number = hits[h].layer
    found = near(a, number, layers, hits, start, OVERLAP, 2.0, 4, whole, real)
    longer: tuple[int, float] = join(a, number, n, FOUND, found, layers, hits, whole)
    return longer


@njit(cache=True, error_model="numpy")
def misses(a: Array, r: float, width: float, spread: float, layer: Any) -> bool:
    """Whether a track cannot meet a layer, as its arc is no shorter than the way: a bound, cheaper than ``reach``.

    ``r`` is where the state is; ``width`` and ``spread`` are the errors of its z and slope.
    """
    way = (layer.at - a[Z]) / a[SLOPE] if layer.disc else abs(layer.at - r)
    blur = 4 * (width + spread * way)
    if layer.disc:
        blur = blur / max(abs(a[SLOPE]), 0.1) + 4
        return bool(way < 0 or r + way < layer.low - blur or r - way > layer.high + blur)
    z, blur = a[Z] + a[SLOPE] * way, blur + 4
    return bool((a[SLOPE] > 0 and z > layer.high + blur) or (a[SLOPE] < 0 and z < layer.low - blur))


@njit(cache=True, error_model="numpy")
def _ahead(a: Array, number: int, outward: bool, layers: Array, whole: Array, real: Array) -> int:
    """The layers that the track may meet next, nearest first: fills rows AHEAD, ARC, SINE, COSINE; how many."""
    n, r, width, spread = 0, math.sqrt(a[X] * a[X] + a[Y] * a[Y]), math.sqrt(a[ZZ]), math.sqrt(a[LL])
    for k in range(NEXT):
        other = layers[number].onward[k] if outward else layers[number].inward[k]
        if other < 0:
            break
        if misses(a, r, width, spread, layers[other]):
            continue
        arc, sine, cosine = reach(a, layers[other].disc, layers[other].at)
        if arc <= 0:
            continue
        i = n
        while i > 0 and real[ARC, i - 1] > arc:
            for row in (ARC, SINE, COSINE):
                real[row, i] = real[row, i - 1]
            whole[AHEAD, i] = whole[AHEAD, i - 1]
            i -= 1
        real[ARC, i], real[SINE, i], real[COSINE, i], whole[AHEAD, i] = arc, sine, cosine, other
        n += 1
    return n


@njit(cache=True, error_model="numpy")
def follow(
    a: Array, b: Array, number: int, n: int, outward: bool, chi2: float, holes: int, unit: float, layers: Array,
    hits: Array, start: Array, whole: Array, real: Array,
) -> tuple[int, float, int]:  # fmt: skip
    """From a state at its last layer on: the new length of the path of ``n`` hits, gain, and layers without a hit.

    Ends where it meets no layer with a hit, or misses more than ``holes``. ``b`` is a second state to work with.
    """
    missed, gain, going = 0, 0.0, True
    while going and n < MOST:
        going, since = False, 0.0
        for i in range(_ahead(a, number, outward, layers, whole, real)):
            other = whole[AHEAD, i]
            layer = layers[other]
            carry(a, b, real[ARC, i], real[SINE, i], real[COSINE, i], layer)
            w = place(b, layer.disc)
            blur = 4 * math.sqrt(b[ZZ]) / (max(abs(b[SLOPE]), 0.1) if layer.disc else 1.0) + 2
            if w < layer.low - blur or w > layer.high + blur:
                continue
            found = near(b, other, layers, hits, start, chi2, 1.0, 4, whole, real)
            if found > 0:
                own = take(b, hits[whole[FOUND, 0]], layer)
                if since == 0 or own + since > 0:
                    gain += own + since
                    whole[PATH, n] = whole[FOUND, 0]
                    n, more = join(b, other, n + 1, FOUND, found, layers, hits, whole)
                    gain += more
                    scatter(b, layer.thickness, layer.disc, unit)
                    a[:] = b
                    number, going = other, True
                    break
            if layer.low + blur < w < layer.high - blur:
                missed += 1
                since += MISSING
                if missed > holes:
                    break
    return n, gain, missed


@njit(cache=True, error_model="numpy")
def retrace(
    a: Array, b: Array, n: int, m: int, outward: bool, beside: int, unit: float, layers: Array, hits: Array,
    start: Array, whole: Array, real: Array,
) -> tuple[int, float, float]:  # fmt: skip
    """From a state at one end of a path of ``n`` to the other; hits beside its first ``beside`` are put behind ``m``.

    Returns the number of hits, the chi2 of those of the path, and the largest chi2 of one.
    """
    chi2, worst = 0.0, 0.0
    for step in range(n):
        i = step if outward else n - 1 - step
        h = whole[PATH, i]
        layer = layers[hits[h].layer]
        arc, sine, cosine = toward(a, hits[h])
        if arc > 0:
            carry(a, b, arc, sine, cosine, layer)
            a[:] = b
        along, t, dz, st, sz, _ = residual(a, hits[h])
        own = t * t / st + dz * dz / sz
        chi2, worst = chi2 + own, max(worst, own)
        update(a, along, t, dz, st, sz)
        if i < beside:
            m, _ = overlaps(a, h, m, layers, hits, start, whole, real)
        if step == n - 1 or hits[whole[PATH, i + 1 if outward else i - 1]].layer != hits[h].layer:
            scatter(a, layer.thickness, layer.disc, unit)
    return m, chi2, worst


@njit(cache=True, error_model="numpy")
def back(
    a: Array, b: Array, n: int, unit: float, layers: Array, hits: Array, start: Array, whole: Array, real: Array
) -> tuple[int, float, float]:
    """From the state at the last hit back through the path of ``n``, its first three completed, and on inwards.

    Returns what ``retrace`` does. The state then is that at the innermost hit, flying inwards.
    """
    reverse(a)
    a[TT:FIELD] *= PRIOR
    m, chi2, worst = retrace(a, b, n, n, False, 3, unit, layers, hits, start, whole, real)
    first = hits[whole[PATH, 0]].layer
    m, _, _ = follow(a, b, first, m, False, OVERLAP, 1, unit, layers, hits, start, whole, real)
    return m, chi2, worst


@njit(cache=True, error_model="numpy")
def complete(
    states: Array, n: int, unit: float, layers: Array, hits: Array, start: Array, whole: Array, real: Array
) -> int:
    """Add free hits to a path of ``n``, from ``states[0]`` at its innermost hit, flying inwards: the new number.

    They lie further inwards, beside its hits, or further outwards, and may be as far off as ``LOOSE``.
    """
    first, last = hits[whole[PATH, 0]].layer, hits[whole[PATH, n - 1]].layer
    a, b, c = states[0], states[1], states[2]
    c[:] = a
    m, _, _ = follow(c, b, first, n, False, LOOSE, 1, unit, layers, hits, start, whole, real)
    reverse(a)
    m, _, _ = retrace(a, b, n, m, True, n, unit, layers, hits, start, whole, real)
    m, _, _ = follow(a, b, last, m, True, LOOSE, 1, unit, layers, hits, start, whole, real)
    return int(m)
