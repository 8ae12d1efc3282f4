"""The magnetic field, relative to that in the middle, as the tracks of an event themselves show it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import cumulative_trapezoid

from cloudchamber.follow.cloud import rows

Array = NDArray[Any]

MIDDLE = 10
NODES = 2 * MIDDLE + 1  # along z, where the field along the beam is known; linear between them
ANCHOR = 0.1  # mm, error of the beam line as the first point of a track
KNOWN = 0.02  # error from which the field of a node is rather the continuation of the ones before it
LIKELY = 0.02  # of the field across, before any track is looked at
ROUNDS = 5  # of least squares, by turns in the curvatures of the tracks and in the field
SCATTER = 2e-3  # rad, of a track in a layer
FAR = 5.0  # standard deviations from which a change of slope is that of a wrong hit


def field_at(field: Array, reach: float, z: Array) -> Array:
    """What is known at the nodes from -``reach`` to ``reach``, at ``z`` (mm)."""
    return np.asarray(np.interp(z, np.linspace(-reach, reach, NODES), field))


def radial(field: Array, reach: float) -> Array:
    """The radial field over the radius (1/mm) at the nodes, of the one along the beam that tracks show.

    On the axis the field b(z) has no sources: the radial one is ``-r b'/2`` near it. A straight track from the middle
    is bent by ``b + z b'/2``, at any radius; this is what tracks show, whence ``b = 2 / z^2`` times its integral over
    ``z dz``.
    """
    z = np.linspace(-reach, reach, NODES)
    whole = cumulative_trapezoid(field * z, z, initial=0.0)
    with np.errstate(all="ignore"):
        found = (2 * (whole - whole[MIDDLE]) / z**2 - field) / z
    found[MIDDLE - 1 : MIDDLE + 2] = 0.0
    return np.asarray(found)


def measure_field(hits: Array, reach: float) -> tuple[Array, Array]:
    """The relative field along the beam ``(NODES,)`` up to ``reach`` (mm) and that across it ``(4,)``.

    Across: x and y in the middle, and what is added to these per mm along z, as where a solenoid is shifted or tilted.
    From rows of ``HIT`` that have a track. Three hits in a row of a track, the beam line first, give its curvature at
    the middle one, and how its slope changes there. The field along the beam is what makes the curvatures, over one of
    each track, agree: bilinear least squares. It is 1 in the middle. That across is what changes the slopes
    (``adapt`` has the equations).
    """
    hits = rows(hits, np.lexsort((hits["radius"] ** 2 + hits["z"] ** 2, hits["track"])))
    track = hits["track"].astype(np.int64)
    new = np.diff(track, prepend=-1) != 0
    once = new | (np.diff(hits["layer"], prepend=-1) != 0)
    hits, track, new = rows(hits, np.flatnonzero(once)), track[once], new[once]
    first = np.flatnonzero(new)
    x, y, z, error_r, error_z = (np.insert(hits[name], first, 0.0) for name in ("x", "y", "z", "error_r", "error_z"))
    error, track = np.insert(hits["error_t"], first, ANCHOR), np.insert(track, first, track[first])
    beam = np.insert(np.zeros(len(hits), bool), first, True)
    a = np.flatnonzero(track[2:] == track[:-2])
    dx, dy = np.diff(x), np.diff(y)
    length = np.hypot(dx, dy)
    with np.errstate(all="ignore"):
        one, two, ux, uy = length[a], length[a + 1], x[a + 2] - x[a], y[a + 2] - y[a]
        whole = np.hypot(ux, uy)
        ux, uy = ux / whole, uy / whole
        curvature = 2 * (dx[a] * dy[a + 1] - dy[a] * dx[a + 1]) / (one * two * whole)
        slope = (z[a + 2] - z[a + beam[a]]) / np.where(beam[a], two, whole)
        angle = SCATTER**2 + _kink(error, a, one, two)
        weight = 1 / (angle * (2 / (one + two)) ** 2)
        change = (z[a + 2] - z[a + 1]) / two - (z[a + 1] - z[a]) / one
        lean = 1 + slope**2
        kink = SCATTER**2 * lean**2 + _kink(error_z, a, one, two) + slope**2 * _kink(error_r, a, one, two)
    good = np.isfinite(curvature * weight * slope)
    number, curvature, weight, ux, uy, slope = (v[good] for v in (track[a], curvature, weight, ux, uy, slope))
    middle, lever = z[a + 1][good], (-lean * (one + two) / 2)[good]
    x, y, change, kink = x[a + 1][good], y[a + 1][good], change[good], np.where(beam[a], np.inf, kink)[good]
    node = np.clip(np.rint(middle * MIDDLE / reach).astype(np.int64), -MIDDLE, MIDDLE)
    node = np.where(np.abs(node) > 1, node, 0) + MIDDLE  # all of the middle is one
    left = np.stack([-uy, ux, -uy * middle, ux * middle])  # of the track, of each part of the field across
    field, across, tracks = np.ones(NODES), np.zeros(4), int(number.max(initial=-1)) + 1
    for _ in range(ROUNDS):
        bx, by = across[0] + across[2] * middle, across[1] + across[3] * middle
        turn = slope * (bx * ux + by * uy)
        own = _ratio(number, weight * curvature * (field[node] - turn), weight * (field[node] - turn) ** 2, tracks)[0]
        own = own[number]
        field, precision = _ratio(node, weight * (curvature + own * turn) * own, weight * own**2, NODES)
        if precision[MIDDLE] < KNOWN**-2:
            return np.ones(NODES), np.zeros(4)
        field /= field[MIDDLE]
        field[MIDDLE - 1 : MIDDLE + 2] = 1.0
        for side in (slice(MIDDLE, None), slice(MIDDLE, None, -1)):
            outwards, sure = field[side], precision[side] > KNOWN**-2
            for i in np.flatnonzero(~sure[2:]) + 2:
                outwards[i] = 2 * outwards[i - 1] - outwards[i - 2]
        field = np.clip(field, -1.0, 2.0)
        known = field_at(radial(field, reach), reach, middle) * (ux * y - uy * x)
        effect = own * lever
        across = _across(effect * left, change - effect * known, kink, reach)
    return field, across


def _kink(error: Array, a: Array, one: Array, two: Array) -> Array:
    """Squared error of the change of slope between two segments, from those of their three points."""
    return np.asarray((error[a] / one) ** 2 + (error[a + 1] * (1 / one + 1 / two)) ** 2 + (error[a + 2] / two) ** 2)


def _across(effect: Array, change: Array, variance: Array, reach: float) -> Array:
    """The field across ``(4,)`` that explains changes of slope, given its ``effect`` (4, changes): least squares."""
    sure = np.array([LIKELY, LIKELY, LIKELY / reach, LIKELY / reach])
    weight = np.where(change**2 < FAR**2 * variance, 1 / variance, 0.0)
    for _ in range(2):
        normal = (effect * weight) @ effect.T + np.diag(sure**-2)
        across = np.linalg.solve(normal, (effect * weight) @ change)
        weight = np.where((change - across @ effect) ** 2 < FAR**2 * variance, 1 / variance, 0.0)
    return across


def _ratio(group: Array, above: Array, below: Array, groups: int) -> tuple[Array, Array]:
    """Of sums by group; and the lower one."""
    lower = np.bincount(group, below, groups)
    return np.bincount(group, above, groups) / np.maximum(lower, 1e-30), lower
