"""What plots and displays draw: tracks as ordered polylines, the layers of the detector."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import CubicHermiteSpline
from torch import Tensor

from cloudchamber import physics
from cloudchamber.errors import UserError
from cloudchamber.event import Columns, Event
from cloudchamber.metrics import align

Float = NDArray[np.float32]
Int = NDArray[np.int64]

#: Track parameters shown, in this order: GeV, -, rad, mm, mm, e.
PARAMETERS = ("pt", "eta", "phi", "d0", "z0", "charge")

_NEIGHBOURS = 15.0  # mm: hits closer than this, as where modules overlap, do not bend a curve
_LONGEST = 256  # hits: longer objects are no tracks, and are sorted by distance from the origin


@dataclass(frozen=True)
class Picture:
    """One event ready to be drawn.

    ``xyz`` hit positions in mm, shape ``(hits, 3)``; ``track`` the row of each hit's track or -1; ``path`` the hits on
    tracks, one track after another, each in flight order; ``bounds`` of shape ``(tracks + 1,)``: track i runs through
    the hits ``path[bounds[i]:bounds[i + 1]]``; ``parameters[name]`` of shape ``(tracks,)``, nan where not known.
    """

    xyz: Float
    track: Int
    path: Int
    bounds: Int
    parameters: dict[str, Float]

    @property
    def tracks(self) -> int:
        """The number of tracks."""
        return len(self.bounds) - 1

    def curve(self, track: int, steps: int = 6) -> Float:
        """A smooth curve through the hits of a track in flight order, ``steps`` points per gap, shape ``(n, 3)``, mm.

        Straight from hit to hit where the track turns by more than 60 degrees at one of them: it has wrong hits.
        """
        points = self.xyz[self.path[self.bounds[track] : self.bounds[track + 1]]].astype(np.float64)
        knots: list[NDArray[np.float64]] = []
        for point in points:
            if not knots or np.linalg.norm(point - knots[-1]) >= _NEIGHBOURS:
                knots.append(point)
        knot = np.reshape(knots, (-1, 3))
        step = np.diff(knot, axis=0)
        gap = np.linalg.norm(step, axis=1)
        if len(knot) < 3 or np.any((step[1:] * step[:-1]).sum(axis=1) < 0.5 * gap[1:] * gap[:-1]):
            return points.astype(np.float32)
        flown = np.append(0.0, np.cumsum(gap))
        spline = CubicHermiteSpline(flown, knot, np.gradient(knot, flown, axis=0, edge_order=2))
        number = np.arange(steps * (len(knot) - 1) + 1) / steps
        dense: Float = spline(np.interp(number, np.arange(len(knot)), flown)).astype(np.float32)
        return dense


def picture(event: Event, predicted: Event) -> Picture:
    """One event's hits with predicted tracks; the truth event itself may serve as the prediction.

    Raises ``UserError`` for several events, missing or non-finite positions, or hits that do not correspond.
    """
    xyz = positions(event)
    track = objects(event, predicted)
    parameters = track_parameters(predicted.object, predicted.rows("object"))
    path, bounds = flight_order(xyz, track, predicted.rows("object"))
    return Picture(xyz, track, path, bounds, parameters)


def positions(event: Event) -> Float:
    """Hit positions in mm, shape ``(hits, 3)``; raises ``UserError`` for several events, missing or non-finite ones."""
    if len(event) != 1:
        raise UserError(f"can draw one event at a time, got {len(event)}: unbatch first")
    missing = [name for name in "xyz" if name not in event.point]
    if missing and event.rows("point"):
        raise UserError(f"can not draw the event: no column point.{missing[0]}")
    if missing:
        return np.zeros((0, 3), np.float32)
    xyz = np.stack([array(event.point[name]).astype(np.float32) for name in "xyz"], axis=1)
    bad = np.flatnonzero(~np.isfinite(xyz).all(axis=1))
    if len(bad):
        raise UserError(f"can not draw the event: the position of hit row {bad[0]} is {xyz[bad[0]].tolist()}")
    return xyz


def objects(event: Event, other: Event) -> Int:
    """The row in ``other.object`` of each hit of ``event``, matched by ``point.id``, or -1; shape ``(hits,)``.

    Raises ``UserError`` as ``metrics.align`` does.
    """
    if not event.rows("point") and not other.rows("point"):
        return np.zeros(0, np.int64)
    none = torch.full((event.rows("point"),), -1)
    return align(other, event.with_columns("point", object=none)).track


def track_parameters(columns: Columns, tracks: int) -> dict[str, Float]:
    """pt (GeV), eta, phi (rad), d0, z0 (mm) and charge, each of shape ``(tracks,)``, nan where not known.

    Truth objects, which have momenta and vertices, are given the parameters of their perigee in a field of 2 T.
    """
    known = {name: array(column).astype(np.float64) for name, column in columns.items()}
    if "pt" not in known and {"px", "py", "pz"} <= known.keys():
        px, py, pz = known["px"], known["py"], known["pz"]
        known |= {"pt": physics.pt(px, py), "eta": physics.eta(px, py, pz), "phi": np.arctan2(py, px)}
        if {"vx", "vy", "vz", "charge"} <= known.keys():
            with np.errstate(all="ignore"):
                helix = physics.perigee(known["vx"], known["vy"], known["vz"], px, py, pz, known["charge"])
            known |= {"d0": helix.d0, "z0": helix.z0, "phi": helix.phi}
    return {name: known.get(name, np.full(tracks, np.nan)).astype(np.float32) for name in PARAMETERS}


def flight_order(xyz: Float, track: Int, tracks: int) -> tuple[Int, Int]:
    """Hits on tracks, track by track in flight order, and the bounds of each track, shape ``(tracks + 1,)``.

    A track starts at the hit nearest to the origin and goes on to the nearest hit not yet visited, which also follows
    particles that curl; it needs no track parameters.
    """
    path = np.argsort(track, kind="stable")
    path = path[np.searchsorted(track[path], 0) :]
    bounds = np.searchsorted(track[path], np.arange(tracks + 1))
    length = np.diff(bounds)
    for n in np.unique(length[length > 1]):
        rows = bounds[:-1][length == n, None] + np.arange(n)
        hits = path[rows]
        path[rows] = np.take_along_axis(hits, _chain(xyz[hits].astype(np.float64)), axis=1)
    return path, bounds


def _chain(points: NDArray[np.float64]) -> Int:
    """The order in which each of k point sets is walked from neighbour to neighbour: (k, n, 3) -> (k, n)."""
    k, n, _ = points.shape
    distance = np.square(points).sum(axis=2)
    if n > _LONGEST:
        return np.argsort(distance, axis=1)
    result, rows = np.empty((k, n), np.int64), np.arange(k)
    left = np.zeros((k, n))
    for i in range(n):
        result[:, i] = here = np.argmin(distance + left, axis=1)
        left[rows, here] = np.inf
        distance = np.square(points - points[rows, here][:, None]).sum(axis=2)
    return result


def layers(event: Event) -> Float:
    """The detector seen in (r, z): a line ``r0, z0, r1, z1`` (mm) for each (volume, layer) with hits, shape ``(n, 4)``.

    A cylinder where hits spread more along z than along r, otherwise a disk. Empty when the numbering is not known.
    """
    if not {"volume", "layer", "x", "y", "z"} <= event.point.keys() or not event.rows("point"):
        return np.zeros((0, 4), np.float32)
    number = np.stack([array(event.point["volume"]), array(event.point["layer"])], axis=1)
    group = np.unique(number, axis=0, return_inverse=True)[1].reshape(-1)
    r, z = np.hypot(array(event.point["x"]), array(event.point["y"])), array(event.point["z"])
    result = []
    for i in range(group.max() + 1):
        own = group == i
        r0, r1, z0, z1 = r[own].min(), r[own].max(), z[own].min(), z[own].max()
        if z1 - z0 > r1 - r0:
            r0 = r1 = np.median(r[own])
        else:
            z0 = z1 = np.median(z[own])
        result.append((r0, z0, r1, z1))
    return np.array(result, np.float32)


def array(column: Tensor) -> NDArray[np.generic]:
    """A column as a numpy array."""
    return column.detach().cpu().numpy()
