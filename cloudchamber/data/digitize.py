"""Geometric digitization: from simulated hits to the cells they charge and the position measured from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cloudchamber.data.detector import Detector

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Sensor:
    """How the modules of a volume answer to a charged particle.

    ``depth``: mm of sensor between the two faces; ``drift``: tangent of the Lorentz angle, by which charges drift along
    u on their way to the read-out; ``binary``: a cell tells only that it was hit, its value is 1; otherwise it is the
    length of the path in the cell, in mm, smeared by a Gaussian of relative width ``spread``; ``noise``: noise hits per
    area, relative to the pixels.
    """

    depth: float
    drift: float = 0.0
    binary: bool = False
    spread: float = 0.1
    noise: float = 1.0


#: The sensors of the TrackML events, as their cells show: the end caps are twice as deep as the thickness in the module
#: table, strips are binary, charges drift where the field lies in the sensor's plane, noise is uniform in a volume.
SENSORS: Mapping[int, Sensor] = {
    7: Sensor(depth=0.30),
    8: Sensor(depth=0.15, drift=0.12),
    9: Sensor(depth=0.30),
    12: Sensor(depth=0.50, binary=True, noise=0.17),
    13: Sensor(depth=0.25, drift=0.12, binary=True, noise=0.24),
    14: Sensor(depth=0.50, binary=True, noise=0.17),
    16: Sensor(depth=0.70, binary=True, noise=0.085),
    17: Sensor(depth=0.35, drift=0.08, binary=True, noise=0.26),
    18: Sensor(depth=0.70, binary=True, noise=0.085),
}

#: Smallest |cosine| to the normal of the directions of noise.
NOISE_FLATTEST = 0.1
#: Smallest |cosine| to the normal that is told apart from a path within the sensor's plane.
_GRAZING = 1e-6
#: How far (mm) beyond the edge of its module a hit may lie: rounding, no more.
_EDGE = 1e-3


@dataclass(frozen=True)
class Clusters:
    """The cells of every hit, one hit after the other, and the measured positions.

    ``point``, ``u``, ``v``, ``value`` (cells,): row of the hit, channel numbers, signal. ``position`` (hits, 3): the
    centroid in global coordinates, mm.
    """

    point: Ints
    u: Ints
    v: Ints
    value: Floats
    position: Floats


def digitize(
    detector: Detector,
    rows: Ints,
    position: Floats,
    direction: Floats,
    rng: np.random.Generator,
    sensors: Mapping[int, Sensor] = SENSORS,
) -> Clusters:
    """Follow the straight path of each particle through the sensor and share its length among the channels.

    The path is centred on ``position`` (hits, 3), mm, points along ``direction`` (hits, 3), any length, reaches from
    -depth/2 to +depth/2 and ends at the edge of the module in ``rows`` (hits,). The measured position is the mean of
    the cells' centres, weighted by their values; drift is counted from the middle of the sensor and leaves it unbiased.
    Hits are digitized one by one: cells charged by two hits are not merged. As ACTS's geometric digitization (Ai et
    al., "A Common Tracking Software Project", arXiv:2106.13593).

    Raises ``ValueError`` when a hit lies off its module.
    """
    depth, drift, binary, spread = (_of_hit(detector, rows, sensors, n) for n in ("depth", "drift", "binary", "spread"))
    local, along = detector.to_local(rows, position), detector.turn_local(rows, direction)
    normal = np.where(along[:, 2] < 0, -1.0, 1.0) * np.maximum(np.abs(along[:, 2]), _GRAZING)
    step = along * (depth / normal)[:, None]
    length = np.linalg.norm(step, axis=1)
    step[:, 0] -= drift * depth
    low, high = _cut(detector, rows, local, step)
    start, stop = local[:, :2] + low[:, None] * step[:, :2], local[:, :2] + high[:, None] * step[:, :2]
    corner, pitch, channels = _grid(detector, rows)
    most = np.abs(np.floor(stop / pitch) - np.floor(start / pitch)).sum(axis=1).astype(np.int64) + 3
    point, channel, share = _walk(start - corner, stop - corner, pitch, channels, most)
    smear = np.maximum(rng.normal(1.0, spread[point]), 0.0)
    value = np.where(binary[point], 1.0, share * (length * (high - low))[point] * smear)
    centre = corner[point] + (channel + 0.5) * pitch[point]
    charge = np.bincount(point, value, minlength=len(rows))
    mean = [np.bincount(point, value * centre[:, axis], minlength=len(rows)) / charge for axis in (0, 1)]
    measured = detector.to_global(rows, np.stack([*mean, np.zeros(len(rows))], axis=1))
    return Clusters(point, channel[:, 0], channel[:, 1], value, measured)


def noise(
    detector: Detector, hits: int, rng: np.random.Generator, sensors: Mapping[int, Sensor] = SENSORS
) -> tuple[Ints, Floats, Floats]:
    """Noise as tracks of one hit: the row of the module (hits,), position (hits, 3) in mm and direction (hits, 3).

    Uniform over the area of a volume's modules times its ``noise``. The direction is that from the origin, its polar
    and its azimuthal angle changed by up to 45 degrees, and no flatter than ``NOISE_FLATTEST``: as in TrackML's events.
    """
    area = (detector.half_u_min + detector.half_u_max) * detector.half_v * 2
    share = np.cumsum(area * np.array([sensors[volume].noise for volume in detector.volume.tolist()]))
    rows = np.searchsorted(share, rng.random(hits) * share[-1], side="right")
    low, high, half_v = detector.half_u_min[rows], detector.half_u_max[rows], detector.half_v[rows]
    u, v = (2 * rng.random(hits) - 1) * (low + high) / 2, 2 * rng.random(hits) - 1
    # A rectangle of the mean width: turn what sticks out of the trapezoid's narrow end into what its wide end lacks.
    inside = np.abs(u) <= (low + high + v * (high - low)) / 2
    v = np.where(inside, v, -v)
    u = np.where(inside, u, np.sign(u) * (low + high) - u)
    position = detector.to_global(rows, np.stack([u, v * half_v, np.zeros(hits)], axis=1))
    direction = np.zeros((hits, 3))
    todo = np.arange(hits)
    while len(todo):
        direction[todo] = _turned(position[todo], (rng.random((2, len(todo))) - 0.5) * np.pi / 2)
        todo = todo[np.abs(detector.turn_local(rows[todo], direction[todo])[:, 2]) < NOISE_FLATTEST]
    return rows, position, direction


def _turned(position: Floats, angles: Floats) -> Floats:
    """Unit vectors (hits, 3) towards ``position``, polar and azimuthal angle (2, hits) changed by ``angles`` (rad)."""
    polar = angles[0] + np.arctan2(np.hypot(position[:, 0], position[:, 1]), position[:, 2])
    azimuth = angles[1] + np.arctan2(position[:, 1], position[:, 0])
    return np.stack([np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar)], axis=1)


def _of_hit(detector: Detector, rows: Ints, sensors: Mapping[int, Sensor], name: str) -> NDArray[Any]:
    """A property of each hit's sensor, shape (hits,)."""
    volumes, which = np.unique(detector.volume[rows], return_inverse=True)
    return np.array([getattr(sensors[volume], name) for volume in volumes.tolist()])[which]


def _grid(detector: Detector, rows: Ints) -> tuple[Floats, Floats, Ints]:
    """The corner of channel (0, 0) and the pitch, both mm, and the number of channels along u and v: all (hits, 2)."""
    corner = -np.stack([detector.half_u[rows], detector.half_v[rows]], axis=1)
    pitch = np.stack([detector.pitch_u[rows], detector.pitch_v[rows]], axis=1)
    return corner, pitch, np.ceil(-2 * corner / pitch - 1e-4).astype(np.int64)


def _cut(detector: Detector, rows: Ints, middle: Floats, step: Floats) -> tuple[Floats, Floats]:
    """Where the path ``middle + t step`` begins and ends in the module: t from -1/2 to 1/2 at most, (hits,) each."""
    low, high = np.full(len(rows), -0.5), np.full(len(rows), 0.5)
    half_v = detector.half_v[rows]
    slope = (detector.half_u_max[rows] - detector.half_u_min[rows]) / (2 * half_v)
    half_u = (detector.half_u_max[rows] + detector.half_u_min[rows]) / 2
    # The module is where a*u + b*v <= c for each edge: the two slanted sides, then top and bottom.
    for a, b, c in ((1.0, -slope, half_u), (-1.0, -slope, half_u), (0.0, 1.0, half_v), (0.0, -1.0, half_v)):
        room = c - a * middle[:, 0] - b * middle[:, 1]
        rate = a * step[:, 0] + b * step[:, 1]
        if (room < -_EDGE).any():
            raise ValueError(f"digitize: hit {int(np.argmin(room))} lies {-room.min():.3g} mm outside its module")
        reach = np.maximum(room, 0.0) / np.where(rate == 0, 1.0, np.abs(rate))
        high = np.where(rate > 0, np.minimum(high, reach), high)
        low = np.where(rate < 0, np.maximum(low, -reach), low)
    return low, high


@njit(cache=True)
def _walk(start: Floats, stop: Floats, pitch: Floats, channels: Ints, most: Ints) -> tuple[Ints, Ints, Floats]:
    """The cells from ``start`` to ``stop`` (hits, 2), mm from the corner: hit, channel (cells, 2), share of the way.

    ``most`` (hits,) is an upper bound on the number of cells. After J. Amanatides and A. Woo, "A Fast Voxel Traversal
    Algorithm for Ray Tracing", Eurographics 1987.
    """
    total = most.sum()
    point = np.empty(total, np.int64)
    channel = np.empty((total, 2), np.int64)
    share = np.empty(total, np.float64)
    cells = 0
    cell = np.zeros(2, np.int64)
    ahead = np.zeros(2)  # the share of the way at which the next channel begins, along u and along v
    stride = np.zeros(2)  # and the share that crossing a channel takes
    for i in range(len(start)):
        for axis in range(2):
            delta = stop[i, axis] - start[i, axis]
            cell[axis] = min(max(int(np.floor(start[i, axis] / pitch[i, axis])), 0), channels[i, axis] - 1)
            ahead[axis], stride[axis] = np.inf, np.inf
            if delta != 0.0:
                stride[axis] = pitch[i, axis] / abs(delta)
                border = (cell[axis] + (delta > 0)) * pitch[i, axis]
                ahead[axis] = max((border - start[i, axis]) / delta, 0.0)
        done = 0.0
        while done < 1.0:
            axis = 0 if ahead[0] < ahead[1] else 1
            until = min(ahead[axis], 1.0)
            inward = cell[axis] + 1 < channels[i, axis] if stop[i, axis] > start[i, axis] else cell[axis] > 0
            if not inward:
                until = 1.0  # the edge of the module, but for rounding
            if until > done:
                point[cells], share[cells] = i, until - done
                channel[cells, 0], channel[cells, 1] = cell[0], cell[1]
                cells += 1
            done = until
            ahead[axis] += stride[axis]
            cell[axis] += 1 if stop[i, axis] > start[i, axis] else -1
    return point[:cells], channel[:cells], share[:cells]
