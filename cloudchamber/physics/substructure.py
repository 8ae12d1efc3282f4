"""Substructure of jets: how well so many axes describe them."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]
Ints = NDArray[np.int64]


def n_subjettiness(momentum: ArrayLike, count: ArrayLike, most: int = 3, radius: float = 0.8) -> Float:
    """tau_1 to tau_most of each jet, shape ``(jets, most)``: how far from the nearest of N axes its pT lies.

    ``tau_N = sum_i pT_i min_k(dR_ik) / (radius sum_i pT_i)``, dR in rapidity and azimuth (J. Thaler, K. Van Tilburg,
    arXiv:1011.2268, beta = 1). The axes are those of exclusive kT, of two particles that are joined the harder
    keeping its direction (winner takes all, arXiv:1401.2158), without further minimisation; ``WTA_KT_Axes`` of FastJet
    contrib gives the same. A jet of no more than N particles has tau_N = 0.

    ``momentum``, shape ``(points, 4)``: px, py, pz, energy (GeV), jet after jet; ``count``, ``(jets,)``: the points of
    each. Raises ``ValueError`` when the shapes do not fit.
    """
    p, rows = np.asarray(momentum, np.float64), np.asarray(count, np.int64)
    if p.ndim != 2 or p.shape[1] != 4 or rows.sum() != len(p):
        raise ValueError(f"n_subjettiness: expected (points, 4) and their number per jet, found {p.shape} and {rows}")
    pt = np.hypot(p[:, 0], p[:, 1])
    transverse = np.sqrt(pt**2 + np.clip(p[:, 3] ** 2 - pt**2 - p[:, 2] ** 2, 0, None)).clip(min=1e-12)
    rapidity, phi = np.arcsinh(p[:, 2] / transverse), np.arctan2(p[:, 1], p[:, 0])
    found: Float = _all_jets(pt, rapidity, phi, rows, most) / radius
    return found


@njit(cache=True, nogil=True)
def _all_jets(pt: Float, rapidity: Float, phi: Float, count: Ints, most: int) -> Float:
    found, first = np.zeros((len(count), most)), 0
    for jet in range(len(count)):
        own = slice(first, first + count[jet])
        _cluster(np.stack((pt[own], rapidity[own], phi[own]), axis=1), found[jet])
        first += count[jet]
    return found


@njit(cache=True, nogil=True)
def _cluster(particles: Float, found: Float) -> None:
    """Join the nearest until one is left, and fill in tau where no more are left than ``found`` has places."""
    axes, left = particles.copy(), len(particles)
    apart = np.empty((left, left))
    for i in range(left):
        for j in range(i):
            apart[i, j] = _kt(axes[i], axes[j])
    while left > 0:
        if left <= len(found) and left < len(particles):
            found[left - 1] = _tau(particles, axes[:left])
        i, j = _nearest(apart, left)
        left -= 1
        if left == 0:
            return
        harder = i if axes[i, 0] >= axes[j, 0] else j
        axes[j, 0], axes[j, 1:] = axes[i, 0] + axes[j, 0], axes[harder, 1:]  # j < i, and takes both
        axes[i] = axes[left]
        for k in range(left):
            apart[max(i, k), min(i, k)] = apart[left, k]
        for k in range(left):
            apart[max(j, k), min(j, k)] = _kt(axes[j], axes[k])


@njit(cache=True, nogil=True)
def _nearest(apart: Float, left: int) -> tuple[int, int]:
    """The two that are least apart, the later one first."""
    best, place = math.inf, (0, 0)
    for i in range(left):
        for j in range(i):
            if apart[i, j] < best:
                best, place = apart[i, j], (i, j)
    return place


@njit(cache=True, nogil=True)
def _square(one: Float, other: Float) -> float:
    turn = abs(one[2] - other[2])
    turn = min(turn, 2 * math.pi - turn)
    return float((one[1] - other[1]) ** 2 + turn**2)


@njit(cache=True, nogil=True)
def _kt(one: Float, other: Float) -> float:
    return float(min(one[0], other[0]) ** 2 * _square(one, other))


@njit(cache=True, nogil=True)
def _tau(particles: Float, axes: Float) -> float:
    far, total = 0.0, 0.0
    for particle in particles:
        least = math.inf
        for axis in axes:
            least = min(least, _square(particle, axis))
        far += particle[0] * math.sqrt(least)
        total += particle[0]
    return far / total if total > 0 else 0.0
