"""Geometric digitization: from simulated hits to the cells they charge and the position measured from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cloudchamber.data.detector import Detector

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Relative Gaussian spread of the charge of a cell, as in the digitization that ACTS configures for this detector.
CHARGE_SPREAD = 0.01
#: Noise hits per area, relative to the pixels.
NOISE_DENSITY = {7: 1.0, 8: 1.0, 9: 1.0, 12: 0.25, 13: 0.25, 14: 0.25, 16: 0.12, 17: 0.12, 18: 0.12}
#: Mean charge of a noise cell, as mm of path.
NOISE_CHARGE = 0.1
#: Smallest |cosine| to the normal that is told apart from a path within the sensor's plane.
_GRAZING = 1e-6


@dataclass(frozen=True)
class Clusters:
    """The cells of every hit, one hit after the other, and the measured positions.

    ``point``, ``u``, ``v``, ``value`` (cells,): row of the hit, channel numbers, charge as the length of path in the
    cell in mm. ``position`` (hits, 3): the centroid in global coordinates, mm.
    """

    point: Ints
    u: Ints
    v: Ints
    value: Floats
    position: Floats

    def __add__(self, other: Clusters) -> Clusters:
        """Both, the hits of ``other`` after ours."""
        point = np.concatenate([self.point, other.point + len(self.position)])
        names = ("u", "v", "value", "position")
        return Clusters(point, *(np.concatenate([getattr(self, name), getattr(other, name)]) for name in names))


def digitize(detector: Detector, rows: Ints, position: Floats, direction: Floats, rng: np.random.Generator) -> Clusters:
    """Follow the straight path of each particle through the sensor and share its length among the channels.

    The path is centred on ``position`` (hits, 3), mm, points along ``direction`` (hits, 3), any length, reaches from
    -thickness/2 to +thickness/2 and ends at the edge of the module in ``rows`` (hits,). A cell gets the length in it,
    times a Gaussian of mean 1 and spread ``CHARGE_SPREAD``; the measured position is the charge-weighted mean of the
    cells' centres. Hits are digitized one by one: cells charged by two hits are not merged. As in ACTS's geometric
    digitization (Ai et al., "A Common Tracking Software Project", arXiv:2106.13593), without drift.

    Raises ``ValueError`` when a hit lies off its module.
    """
    local, along = detector.to_local(rows, position), detector.turn_local(rows, direction)
    start, stop = _path(detector, rows, local, along)
    size = np.stack([detector.pitch_u[rows], detector.pitch_v[rows]], axis=1)
    corner = -np.stack([detector.half_u[rows], detector.half_v[rows]], axis=1)
    bins = np.ceil(-2 * corner / size - 1e-4).astype(np.int64)
    room = (
        np.abs(np.diff(np.floor(np.stack([start, stop])[..., :2] / size), axis=0)[0]).sum(axis=1).astype(np.int64) + 3
    )
    point, channel, length = _walk(start - _pad(corner), stop - _pad(corner), size, bins, room)
    value = length * np.maximum(rng.normal(1.0, CHARGE_SPREAD, len(length)), 0.0)
    centre = corner[point] + (channel + 0.5) * size[point]
    charge = np.bincount(point, value, minlength=len(rows))
    mean = [np.bincount(point, value * centre[:, axis], minlength=len(rows)) / charge for axis in (0, 1)]
    measured = detector.to_global(rows, np.stack([*mean, np.zeros(len(rows))], axis=1))
    return Clusters(point, channel[:, 0], channel[:, 1], value, measured)


def make_noise(detector: Detector, hits: int, rng: np.random.Generator) -> tuple[Ints, Clusters]:
    """Noise: ``hits`` single cells, uniform over the area of the modules times ``NOISE_DENSITY``.

    The charge falls exponentially with mean ``NOISE_CHARGE``. Returns the row of each hit's module, and the clusters.
    """
    area = (detector.half_u_min + detector.half_u_max) * detector.half_v * 2
    share = np.cumsum(area * np.array([NOISE_DENSITY[volume] for volume in detector.volume.tolist()]))
    rows = np.searchsorted(share, rng.random(hits) * share[-1], side="right")
    half_v, low, high = detector.half_v[rows], detector.half_u_min[rows], detector.half_u_max[rows]
    # Along v the width of a trapezoid rises from low to high: draw from that line, then u uniformly across.
    mean, tilt, fair = (low + high) / 2, (high - low) / 2, 2 * rng.random(hits) - 1
    # Solve (mean * t + tilt * (t^2 - 1) / 2) / mean = fair for t = v / half_v, in the form that is exact at tilt = 0.
    c = tilt / 2 + mean * fair
    t = 2 * c / (mean + np.sqrt(mean**2 + 2 * tilt * c))
    v = t * half_v
    u = (2 * rng.random(hits) - 1) * (mean + tilt * t)
    pitch = np.stack([detector.pitch_u[rows], detector.pitch_v[rows]], axis=1)
    corner = -np.stack([detector.half_u[rows], half_v], axis=1)
    channel = ((np.stack([u, v], axis=1) - corner) // pitch).astype(np.int64)
    local = np.pad(corner + (channel + 0.5) * pitch, ((0, 0), (0, 1)))
    value = rng.exponential(NOISE_CHARGE, hits)
    return rows, Clusters(np.arange(hits), channel[:, 0], channel[:, 1], value, detector.to_global(rows, local))


def _pad(corner: Floats) -> Floats:
    return np.pad(corner, ((0, 0), (0, 1)))


def _path(detector: Detector, rows: Ints, local: Floats, along: Floats) -> tuple[Floats, Floats]:
    """Where the path enters and leaves the sensor, local (hits, 3), cut at the edges of the module."""
    normal = np.where(along[:, 2] < 0, -1.0, 1.0) * np.maximum(np.abs(along[:, 2]), _GRAZING)
    step = along / normal[:, None] * detector.thickness[rows, None]
    low, high = np.full(len(rows), -0.5), np.full(len(rows), 0.5)
    half_v = detector.half_v[rows]
    slope = (detector.half_u_max[rows] - detector.half_u_min[rows]) / (2 * half_v)
    middle = (detector.half_u_max[rows] + detector.half_u_min[rows]) / 2
    # The module is where a*u + b*v <= c for each edge: the two slanted sides, then bottom and top.
    edges = ((1.0, -slope, middle), (-1.0, -slope, middle), (0.0, 1.0, half_v), (0.0, -1.0, half_v))
    for a, b, c in edges:
        room = c - a * local[:, 0] - b * local[:, 1]
        rate = a * step[:, 0] + b * step[:, 1]
        if (room < -1e-3).any():
            raise ValueError(f"digitize: hit {int(np.argmin(room))} lies {-room.min():.3g} mm outside its module")
        reach = np.maximum(room, 0.0) / np.where(rate == 0, 1.0, np.abs(rate))
        high = np.where(rate > 0, np.minimum(high, reach), high)
        low = np.where(rate < 0, np.maximum(low, -reach), low)
    return local + low[:, None] * step, local + high[:, None] * step


@njit(cache=True)
def _walk(start: Floats, stop: Floats, size: Floats, bins: Ints, room: Ints) -> tuple[Ints, Ints, Floats]:
    """The cells between ``start`` and ``stop`` (hits, 3), mm from the corner: hit, channel (cells, 2), length in mm."""
    total = room.sum()
    point = np.empty(total, np.int64)
    channel = np.empty((total, 2), np.int64)
    value = np.empty(total, np.float64)
    cells = 0
    for i in range(len(start)):
        delta = stop[i] - start[i]
        length = max(np.sqrt((delta**2).sum()), 1e-9)  # cut off altogether at a corner: still one cell
        cell = np.zeros(2, np.int64)
        ahead = np.full(2, np.inf)  # fraction of the path at which the next channel begins, along u and along v
        stride = np.full(2, np.inf)
        for axis in range(2):
            cell[axis] = min(max(int(np.floor(start[i, axis] / size[i, axis])), 0), bins[i, axis] - 1)
            if delta[axis] != 0.0:
                stride[axis] = size[i, axis] / abs(delta[axis])
                border = (cell[axis] + (delta[axis] > 0)) * size[i, axis]
                ahead[axis] = max((border - start[i, axis]) / delta[axis], 0.0)
        done = 0.0
        while done < 1.0:
            axis = 0 if ahead[0] < ahead[1] else 1
            until = min(ahead[axis], 1.0)
            if until > done:
                point[cells], value[cells] = i, (until - done) * length
                channel[cells, 0], channel[cells, 1] = cell[0], cell[1]
                cells += 1
            done = until
            ahead[axis] += stride[axis]
            cell[axis] += 1 if delta[axis] > 0 else -1
            if cell[axis] < 0 or cell[axis] >= bins[i, axis]:
                break
    return point[:cells], channel[:cells], value[:cells]
