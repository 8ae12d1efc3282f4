"""Classical clusterings of calorimeter cells, each a function from the points of an event to a label per point."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from cloudchamber.data.sampling import CELL, PITCH
from cloudchamber.event import Event

Array = NDArray[Any]


def _places(event: Event, stretch: float) -> Array:
    """Places of the points in mm, z times ``stretch``, shape (points, 3)."""
    x, y, z = (event.point[name].numpy().astype(np.float64) for name in "xyz")
    return np.stack([x, y, stretch * z], axis=1)


@numba.njit(cache=True)
def _square(place: Array, i: int, j: int) -> float:
    away: float = (place[i, 0] - place[j, 0]) ** 2 + (place[i, 1] - place[j, 1]) ** 2 + (place[i, 2] - place[j, 2]) ** 2
    return away


@numba.njit(cache=True)
def _clue(place: Array, energy: Array, radius: float, density: float, apart: float) -> Array:
    """Labels; every pair of points is looked at."""
    points = len(place)
    rho = energy.copy()
    for i in range(points):
        for j in range(i):
            if _square(place, i, j) < radius**2:
                rho[i] += 0.5 * energy[j]
                rho[j] += 0.5 * energy[i]
    order = np.argsort(-rho, kind="mergesort")
    label = np.full(points, -1, np.int64)
    clusters = 0
    for n in range(points):
        i = order[n]
        nearest, near = np.inf, -1
        for m in range(n):
            square = _square(place, i, order[m])
            if square < nearest:
                nearest, near = square, order[m]
        if rho[i] >= density and nearest > apart**2:
            label[i] = clusters
            clusters += 1
        elif near >= 0 and nearest <= (2 * apart) ** 2:
            label[i] = label[near]  # of an outlier: -1
    return label


def clue(event: Event, *, radius: float, density: float, apart: float, stretch: float) -> Array:
    """Clustering of energy: Rovere et al., arXiv:2001.09761, in three dimensions and without its tiles.

    The density of a point is its energy and half that of the points within ``radius`` (mm). A point of at least
    ``density`` (GeV) with no denser one within ``apart`` (mm) starts a cluster; others follow the nearest denser one,
    those without one within twice ``apart`` are outliers, and so is what follows them.
    """
    label: Array = _clue(
        _places(event, stretch), event.point["energy"].numpy().astype(np.float64), radius, density, apart
    )
    return label


def hdbscan(event: Event, *, size: int, core: int, leaf: bool, stretch: float) -> Array:
    """HDBSCAN of scikit-learn on the places of the cells: at least ``size`` cells, ``core`` about a dense one."""
    from sklearn.cluster import HDBSCAN

    if len(event.point["x"]) <= max(size, core):
        return np.full(len(event.point["x"]), -1)
    method = "leaf" if leaf else "eom"
    found = HDBSCAN(min_cluster_size=size, min_samples=core, cluster_selection_method=method, copy=True)
    label: Array = found.fit_predict(_places(event, stretch)).astype(np.int64)
    return label


def topological(event: Event, *, grow: float, peak: float, reach: int) -> Array:
    """Topological clusters, split at their maxima, as in ATLAS: Eur. Phys. J. C 77 (2017) 490.

    Each cell above ``peak`` (GeV) that has most energy of all within ``reach`` cells starts a cluster. The cells that
    touch one, at corners too, join it, those of the cell with most energy first, and pass it on if above ``grow``.
    """
    energy = event.point["energy"].numpy().astype(np.float64)
    grid = np.rint(_places(event, 1.0) / [CELL, CELL, PITCH] - 0.5).astype(np.int64)
    label: Array = _topological(grid, energy, grow, peak, reach)
    return label


@numba.njit(cache=True)
def _away(grid: Array, i: int, j: int) -> int:
    far: int = max(abs(grid[i, 0] - grid[j, 0]), abs(grid[i, 1] - grid[j, 1]), abs(grid[i, 2] - grid[j, 2]))
    return far


@numba.njit(cache=True)
def _topological(grid: Array, energy: Array, grow: float, peak: float, reach: int) -> Array:
    points = len(grid)
    label = np.full(points, -1, np.int64)
    clusters = 0
    for i in range(points):
        if energy[i] < peak:
            continue
        highest = True
        for j in range(points):
            highest &= _away(grid, i, j) > reach or energy[j] < energy[i] or j == i
        if highest:
            label[i] = clusters
            clusters += 1
    done = energy < grow
    while True:
        best = -1
        for i in range(points):
            if label[i] >= 0 and not done[i] and (best < 0 or energy[i] > energy[best]):
                best = i
        if best < 0:
            return label
        done[best] = True
        for j in range(points):
            if label[j] < 0 and _away(grid, best, j) == 1:
                label[j] = label[best]


def _grid(**values: tuple[float, ...]) -> list[dict[str, float]]:
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]


#: Name -> the clustering and the settings among which the best on the validation events is taken.
PEERS: dict[str, tuple[Callable[..., Array], list[dict[str, float]]]] = {
    "CLUE": (
        clue,
        _grid(radius=(4.0, 5.5, 7.5), density=(0.01, 0.03, 0.1), apart=(5.5, 7.5, 12.0), stretch=(0.0, 0.1, 0.3)),
    ),
    "topological": (topological, _grid(grow=(0.0, 0.006), peak=(0.03, 0.1, 0.2, 0.4), reach=(1, 2, 3, 5))),
    "HDBSCAN": (hdbscan, _grid(size=(6, 12, 25, 50), core=(2, 5), leaf=(0, 1), stretch=(0.0, 0.1, 0.4))),
}
