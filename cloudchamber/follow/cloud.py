"""The hits of an event in cells, layer by layer, and the search in them. Compiled; linear in hits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cloudchamber.follow.shape import DIRECTIONS, LENGTHS
from cloudchamber.follow.state import COS, LL, SIN, SLOPE, TT, ZZ, X, Y, Z, adapt, move, place, residual

Array = NDArray[Any]

BINS, SECTORS = 32, 256  # cells of a layer: along z or r, and in phi
NEXT = 12  # layers that may come next, at most


#: Layers of a detector: cylinders at a radius or discs at a z, mm. ``at`` and ``spread``: middle and half the range of
#: that coordinate; ``low`` and ``high``: range of the other one; ``thickness`` in radiation lengths; ``error_t``,
#: ``error_w``: largest measurement errors in phi and along the other one; ``density``: free hits per mm^2 in its bins;
#: ``field``, ``radial``, ``across``: the relative magnetic field there, see ``adapt``. ``DIRECTIONS``: least and most
#: |dz/dr| of tracks by the length of their cluster along v, least and most ``lean`` by that along u, see ``fits``.
#: ``onward``, ``seed``, ``inward``: the layers that may come next, likeliest first, then -1; ``seed`` are those of
#: ``onward`` that a third hit is looked for in.
LAYER = np.dtype(
    [("disc", bool)]
    + [(name, np.float64) for name in ("at", "spread", "low", "high", "thickness", "error_t", "error_w")]
    + [(name, np.float64, BINS) for name in ("density", "field", "radial")]
    + [("across", np.float64, 4)]
    + [(name, np.float64, LENGTHS) for name in DIRECTIONS]
    + [(name, np.int64, NEXT) for name in ("onward", "seed", "inward")],
    align=True,
)

#: Hits, mm and rad, sorted by cell; ``layer`` is a row of the layers, ``track`` -1 for a free hit. In 64 bytes, what is
#: looked at first in front: most of the time goes where memory is waited for.
HIT = np.dtype(
    [(name, np.float64) for name in ("phi", "z", "radius")]
    + [("track", np.int32), ("layer", np.int16), ("length", np.int8), ("width", np.int8)]
    + [(name, np.float64) for name in ("x", "y")]
    + [(name, np.float32) for name in ("error_t", "error_r", "error_z")]
    + [("module", np.int32)],
    align=True,
)

# Rows of the memory that the kernels share: hits that were found, layers ahead, third hits of a pair, hits of a path;
# chi2 of the hits that were found, and the way to the layers ahead: arc length, sine and cosine of the turn.
FOUND, AHEAD, THIRDS, PATH = range(4)
CHI2, ARC, SINE, COSINE = range(4)


def memory() -> tuple[Array, Array]:
    """New memory, of whole and of real numbers."""
    return np.zeros((4, 64), np.int64), np.zeros((4, 64))


def rows(hits: Array, which: Array) -> Array:
    """Some rows of a table of records, each copied in one piece, not field by field."""
    return np.asarray(np.take(hits.view(f"V{hits.itemsize}"), which).view(hits.dtype))


def measure_density(layers: Array, start: Array) -> None:
    """Fill ``density`` of the layers, one hit added everywhere."""
    low, width = layers["low"][:, None], ((layers["high"] - layers["low"]) / BINS)[:, None]
    radius = np.where(layers["disc"][:, None], low + width * (np.arange(BINS) + 0.5), layers["at"][:, None])
    layers["density"] = (np.diff(start[::SECTORS]).reshape(-1, BINS) + 1) / (2 * math.pi * radius * width)


@njit(cache=True, error_model="numpy")
def bin_of(layer: Any, w: float) -> int:
    """The bin of a layer at its other coordinate."""
    bin_ = int((w - layer.low) * (BINS / (layer.high - layer.low)))
    return min(max(bin_, 0), BINS - 1)


@njit(cache=True, error_model="numpy")
def sector(phi: float) -> int:
    """The sector of an angle, not brought into range."""
    return math.floor((phi + math.pi) * (SECTORS / (2 * math.pi)))


@njit(cache=True, error_model="numpy")
def cells(layers: Array, hits: Array) -> tuple[Array, Array]:
    """The order of hits by cell, (layer, bin, sector) row after row, and the first place of each cell."""
    cell, start = np.empty(len(hits), np.int64), np.zeros(len(layers) * BINS * SECTORS + 2, np.int64)
    for h in range(len(hits)):
        layer = layers[hits[h].layer]
        bin_ = bin_of(layer, hits[h].radius if layer.disc else hits[h].z)
        cell[h] = (hits[h].layer * BINS + bin_) * SECTORS + min(max(sector(hits[h].phi), 0), SECTORS - 1)
        start[cell[h] + 2] += 1
    start, order = np.cumsum(start), np.empty(len(hits), np.int64)
    for h in range(len(hits)):
        order[start[cell[h] + 1]] = h
        start[cell[h] + 1] += 1
    return order, start[:-1].astype(np.int32)


@njit(cache=True, error_model="numpy")
def carry(a: Array, b: Array, arc: float, sine: float, cosine: float, layer: Any) -> None:
    """``b``: the state ``a`` moved by an arc, the sine and cosine of whose turn are given, onto a layer."""
    move(a, b, arc, sine, cosine)
    bin_ = bin_of(layer, place(b, layer.disc))
    adapt(b, arc, layer.field[bin_], layer.radial[bin_], layer.across)


@njit(cache=True, error_model="numpy")
def span(start: Array, row: int, first: int, last: int, part: int) -> tuple[int, int]:
    """Places of the hits in the sectors first to last of a row of cells, which may reach around: part 0 or 1."""
    if part == 0:
        first, last = max(first, 0), min(last, SECTORS - 1)
        if first > last:  # all of them are on the other side
            return 0, 0
    elif first < 0:
        first, last = first + SECTORS, SECTORS - 1
    elif last >= SECTORS:
        first, last = 0, last - SECTORS
    else:
        return 0, 0
    return start[row * SECTORS + first], start[row * SECTORS + last + 1]


@njit(cache=True, error_model="numpy")
def turn_to(phi: float, other: float) -> float:
    """The way from an angle to another one, the shorter way around."""
    way = other - phi
    return way - math.copysign(2 * math.pi, way) if abs(way) > math.pi else way


@njit(cache=True, error_model="numpy")
def within(hit: Any, disc: bool, phi: float, w: float, dphi: float, dw: float) -> bool:
    """Whether a hit of a layer is free and in a window there."""
    apart, other = abs(hit.phi - phi), hit.radius if disc else hit.z
    return bool(hit.track < 0 and abs(other - w) < dw and min(apart, 2 * math.pi - apart) < dphi)


@njit(cache=True, error_model="numpy")
def near(
    a: Array, number: int, layers: Array, hits: Array, start: Array, cut: float, depth: float, most: int,
    whole: Array, real: Array,
) -> int:  # fmt: skip
    """Free hits of a layer with a chi2 below ``cut``, best first, at most ``most``: fills rows FOUND and CHI2.

    The state is at the middle of the layer (``depth`` 1), or at a hit of it (2: hits may be farther along the track).
    """
    layer = layers[number]
    r, ahead = math.sqrt(a[X] * a[X] + a[Y] * a[Y]), abs(a[X] * a[COS] + a[Y] * a[SIN])
    cosine, tangent = max(ahead / r, 0.15), min(abs(a[X] * a[SIN] - a[Y] * a[COS]) / ahead, 6.6)
    sigmas = math.sqrt(cut)
    across = sigmas * math.sqrt(a[TT])
    deep, error = depth * layer.spread, sigmas * layer.error_w
    if layer.disc:
        w, slope = r, max(abs(a[SLOPE]), 0.1)
        deep = (sigmas * math.sqrt(a[ZZ]) + deep) / slope
        half = deep + across * tangent * cosine + error
    else:
        w = a[Z]
        half = (
            sigmas * math.sqrt(a[ZZ] + deep * deep * a[LL]) + abs(a[SLOPE]) * (deep / cosine + across * tangent) + error
        )
    dphi = (across / cosine + tangent * deep + sigmas * layer.error_t + 0.05) / r
    if not (w + half >= layer.low and w - half <= layer.high and dphi <= 1.5):  # nan, too
        return 0
    phi = math.atan2(a[Y], a[X])
    first, last, n = sector(phi - dphi), sector(phi + dphi), 0
    for bin_ in range(bin_of(layer, w - half), bin_of(layer, w + half) + 1):
        for part in range(2):
            begin, end = span(start, number * BINS + bin_, first, last, part)
            for h in range(begin, end):
                if not within(hits[h], layer.disc, phi, w, dphi, half):
                    continue
                _, t, dz, st, sz, c = residual(a, hits[h])
                new = (t * t * sz + dz * dz * st) / (st * sz)
                if not (new < cut and c > 0.1) or (n == most and real[CHI2, n - 1] <= new):
                    continue
                i = n - 1 if n == most else n
                n = i + 1
                while i > 0 and real[CHI2, i - 1] > new:
                    real[CHI2, i], whole[FOUND, i] = real[CHI2, i - 1], whole[FOUND, i - 1]
                    i -= 1
                real[CHI2, i], whole[FOUND, i] = new, h
    return n
