"""A helix in a uniform field: perigee parameters, points on it, and the circle through three points."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from cloudchamber.physics.kinematics import curvature, eta, pt, wrap

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Helix:
    """Perigee parameters of one or many tracks: numbers or arrays that broadcast. Signs: see the module.

    ``d0``, ``z0`` in mm, ``phi`` (direction at the perigee) in rad, ``charge`` in e, ``pt`` in GeV.
    """

    d0: Any
    z0: Any
    phi: Any
    eta: Any
    charge: Any
    pt: Any
    field_tesla: float = 2.0

    @property
    def kappa(self) -> Any:
        """Signed curvature in 1/mm."""
        return curvature(self.charge, self.pt, self.field_tesla)

    def at(self, s: ArrayLike) -> tuple[Any, Any, Any]:
        """The point (x, y, z) in mm at transverse arc length ``s`` (mm) from the perigee; broadcasts."""
        s = np.asarray(s)
        half = self.kappa * s / 2
        chord = s * np.sinc(half / math.pi)
        x = -self.d0 * np.sin(self.phi) + chord * np.cos(self.phi + half)
        y = self.d0 * np.cos(self.phi) + chord * np.sin(self.phi + half)
        return x, y, self.z0 + s * np.sinh(self.eta)

    def arc_to_radius(self, r: ArrayLike) -> Any:
        """The transverse arc length (mm) at which the track first reaches radius ``r`` (mm), nan where it never does.

        With the chord L: ``r^2 = d0^2 + L^2 (1 + kappa d0)`` and ``s = 2 asin(kappa L / 2) / kappa``.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            chord = np.sqrt((np.asarray(r) ** 2 - np.square(self.d0)) / (1 + self.kappa * self.d0))
            half = self.kappa * chord / 2
            return chord * np.where(np.abs(half) < 1e-6, 1 + half**2 / 6, np.arcsin(half) / half)


def perigee(
    x: ArrayLike,
    y: ArrayLike,
    z: ArrayLike,
    px: ArrayLike,
    py: ArrayLike,
    pz: ArrayLike,
    charge: ArrayLike,
    field_tesla: float = 2.0,
) -> Helix:
    """The helix of particles given by a point (mm), momentum (GeV) and charge there; arguments broadcast."""
    columns = [np.asarray(c, np.float64) for c in (x, y, z, px, py, pz, charge)]
    vx, vy, vz, mx, my, mz, q = np.broadcast_arrays(*columns)
    momentum = pt(mx, my)
    d0, phi, s = _to_perigee(vx, vy, np.arctan2(my, mx), curvature(q, momentum, field_tesla))
    return Helix(d0, vz + s * mz / momentum, wrap(phi), eta(mx, my, mz), q, momentum, field_tesla)


def _to_perigee(x: Float, y: Float, phi: Float, kappa: Float) -> tuple[Any, Any, Any]:
    """d0, phi at the perigee and the signed arc length to it, from a point and the direction there."""
    along = -(x * np.cos(phi) + y * np.sin(phi))
    across = x * np.sin(phi) - y * np.cos(phi)
    offset = across - kappa * (along**2 + across**2) / 2
    turn = np.arctan2(kappa * along, 1 - kappa * across)
    straight = np.abs(turn) < 1e-12
    s = np.where(straight, along, turn / np.where(straight, 1.0, kappa))
    return -2 * offset / (1 + np.sqrt(1 - 2 * kappa * offset)), phi + turn, s


@njit(cache=True, nogil=True)
def circle_through(x1: float, y1: float, x2: float, y2: float, x3: float, y3: float) -> tuple[float, float, float]:
    """Signed curvature (1/mm), d0 (mm) and phi at the perigee of the circle through three points, flown 1 -> 2 -> 3.

    ``kappa = 2 (p2 - p1) x (p3 - p2) / (|p2 - p1| |p3 - p2| |p3 - p1|)``, nan where points coincide. A numba function.
    """
    ax, ay, bx, by, cx, cy = x2 - x1, y2 - y1, x3 - x2, y3 - y2, x3 - x1, y3 - y1
    lengths = math.sqrt((ax * ax + ay * ay) * (bx * bx + by * by) * (cx * cx + cy * cy))
    if lengths == 0.0:
        return math.nan, math.nan, math.nan
    kappa = 2 * (ax * by - ay * bx) / lengths
    # The tangent at point 1 makes the angle of the arc 1 -> 2 seen from 3 with the chord 1 -> 2.
    phi = math.atan2(ay, ax) - math.atan2(cx * by - cy * bx, cx * bx + cy * by)
    u, v = math.cos(phi), math.sin(phi)
    along, across = -(x1 * u + y1 * v), x1 * v - y1 * u
    offset = across - kappa * (along * along + across * across) / 2
    d0 = -2 * offset / (1 + math.sqrt(max(1 - 2 * kappa * offset, 0.0)))
    return kappa, d0, phi + math.atan2(kappa * along, 1 - kappa * across)


@njit(cache=True, nogil=True)
def circle_of(hits: Float) -> tuple[float, float, float]:
    """Karimaki's circle through hits: d0 (mm), phi and kappa (1/mm), outward; nan where they define none.

    ``hits`` (n, at least 5) has the columns x, y, z, and the errors across and along r, mm. A numba function.
    """
    n = mx = my = mr = xx = xy = xr = yr = rr = 0.0
    for h in hits:
        x, y, r2 = h[0], h[1], h[0] * h[0] + h[1] * h[1]
        w = 1 / (h[3] * h[3] + 0.04 * h[4] * h[4] + 1e-6)
        n, mx, my, mr, rr = n + w, mx + w * x, my + w * y, mr + w * r2, rr + w * r2 * r2
        xx, xy, xr, yr = xx + w * x * x, xy + w * x * y, xr + w * x * r2, yr + w * y * r2
    mx, my, mr = mx / n, my / n, mr / n
    cxx, cxy, cyy = xx / n - mx * mx, xy / n - mx * my, mr - xx / n - my * my
    cxr, cyr, crr = xr / n - mx * mr, yr / n - my * mr, rr / n - mr * mr
    if not crr > 1e-12 * rr / n:
        return math.nan, math.nan, math.nan
    phi = 0.5 * math.atan2(2 * (crr * cxy - cxr * cyr), crr * (cxx - cyy) - cxr * cxr + cyr * cyr)
    u, v = math.cos(phi), math.sin(phi)
    if u * mx + v * my < 0:
        phi, u, v = phi + math.pi, -u, -v
    half = (v * cxr - u * cyr) / crr
    delta = -half * mr + v * mx - u * my
    root = 1 - 4 * delta * half
    if not root > 0:
        return math.nan, math.nan, math.nan
    root = math.sqrt(root)
    return -2 * delta / (1 + root), phi, -2 * half / root
