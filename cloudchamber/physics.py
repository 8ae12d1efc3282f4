"""Kinematics and helices: units, momenta, perigee parameters and the helix fit.

Lengths are in mm, momenta in GeV, the field in tesla, along +z. The signs are those of ACTS and of a perigee at the
z axis: at the point of closest approach the track flies along (cos phi, sin phi) and ``x = -d0 sin phi``,
``y = d0 cos phi``, so ``d0`` is positive where the z axis lies to the right of the flight direction. The signed
curvature ``kappa = d(phi)/ds = -0.299792458e-3 charge B / pT`` (1/mm, ``s`` the transverse arc length) is negative for
a positive charge, which turns clockwise seen from +z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]
Five = tuple[float, float, float, float, float]

#: pT = SPEED_OF_LIGHT * B * R for unit charge, in GeV / (T m).
SPEED_OF_LIGHT = 0.299792458

_TINY = 1e-6  # mm^2, a floor of one micrometre on errors across the track and along z: they must not vanish
_STEPS = 5  # at most; the filter mostly needs two passes
_PRIOR = np.array([1e2, 1e0, 1e-2, 1e3, 1e1]) ** 2  # variances of d0, phi, kappa, z0, cot theta: no constraint


def pt(px: ArrayLike, py: ArrayLike) -> Any:
    """Transverse momentum ``sqrt(px^2 + py^2)``, any shape, the unit of the input."""
    return np.hypot(np.asarray(px), np.asarray(py))


def eta(px: ArrayLike, py: ArrayLike, pz: ArrayLike) -> Any:
    """Pseudorapidity ``asinh(pz / pT)``, any shape; ±inf along the beam, nan for no momentum."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.arcsinh(np.asarray(pz) / pt(px, py))


def wrap(phi: ArrayLike) -> Any:
    """An angle, any shape, in radians, brought to [-pi, pi)."""
    phi = np.asarray(phi)
    turned = np.mod(phi + math.pi, 2 * math.pi) - math.pi
    return np.where(turned >= math.pi, -math.pi, turned).astype(np.result_type(phi, np.float32))[()]


def delta_r(eta1: ArrayLike, phi1: ArrayLike, eta2: ArrayLike, phi2: ArrayLike) -> Any:
    """Angular distance ``sqrt(d_eta^2 + d_phi^2)``, arguments broadcast."""
    return np.hypot(np.subtract(eta1, eta2), wrap(np.subtract(phi1, phi2)))


def invariant_mass(
    pt1: ArrayLike, eta1: ArrayLike, phi1: ArrayLike, pt2: ArrayLike, eta2: ArrayLike, phi2: ArrayLike
) -> Any:
    """Mass of two massless particles, arguments broadcast, the unit of ``pt``.

    ``m^2 = 4 pT1 pT2 (sinh^2(d_eta / 2) + sin^2(d_phi / 2))``: no difference of large numbers, unlike ``E^2 - p^2``,
    so collinear pairs keep their precision in float32.
    """
    square = np.sinh(np.subtract(eta1, eta2) / 2) ** 2 + np.sin(np.subtract(phi1, phi2) / 2) ** 2
    return 2 * np.sqrt(np.multiply(pt1, pt2) * square)


def curvature(charge: ArrayLike, pt: ArrayLike, field_tesla: float = 2.0) -> Any:
    """Signed curvature ``kappa = -0.299792458e-3 charge B / pT`` in 1/mm, positive anticlockwise."""
    return -1e-3 * SPEED_OF_LIGHT * field_tesla * np.asarray(charge) / np.asarray(pt)


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


def hit_sigmas(x: ArrayLike, y: ArrayLike, z: ArrayLike) -> tuple[Float, Float, Float]:
    """Measurement errors (r-phi, r, z) in mm of hits in the TrackML detector, from their position; shapes ``(n,)``.

    Pitch / sqrt(12), pitches 0.05 x 0.05625 (pixels, r < 200 mm), 0.08 x 1.2 (short strips, r < 710 mm) and
    0.12 x 10.8 (long strips). The second is along z in the barrel, where r is exact, and along r in the disks,
    where z is.
    """
    r, z = np.hypot(np.asarray(x, np.float64), np.asarray(y, np.float64)), np.abs(np.asarray(z, np.float64))
    kind = np.digitize(r, (200.0, 710.0))
    first = (np.array([0.05, 0.08, 0.12]) / math.sqrt(12))[kind]
    second = (np.array([0.05625, 1.2, 10.8]) / math.sqrt(12))[kind]
    disk = z > np.where(kind == 0, 550.0, 1150.0)
    return first, np.where(disk, second, 0.0), np.where(disk, 0.0, second)


def fit_helices(
    x: ArrayLike,
    y: ArrayLike,
    z: ArrayLike,
    track: ArrayLike,
    tracks: int,
    field_tesla: float = 2.0,
    sigma_rphi: ArrayLike | None = None,
    sigma_r: ArrayLike | None = None,
    sigma_z: ArrayLike | None = None,
    material: float = 0.015,
) -> dict[str, NDArray[np.float32]]:
    """Fit a helix to the hits of each track: charge, pt (GeV), eta, phi, d0, z0 (mm), float32 of shape ``(tracks,)``.

    A weighted circle fit (V. Karimaki, Nucl. Instrum. Meth. A 305 (1991) 187) and a line z(s) are the start; a Kalman
    filter from the outermost hit inwards (R. Fruhwirth, Nucl. Instrum. Meth. A 262 (1987) 444), repeated around its
    result, then fits all five parameters. It knows each hit's errors across the track and along z, with their
    correlation, and multiple scattering in ``material`` radiation lengths per layer crossed at a right angle (0 for
    none; 13.6 MeV formula of the PDG review without its logarithm, beta = 1).

    ``x``, ``y``, ``z`` in mm and ``track``, the row of each hit's track or -1, have shape ``(n,)``; the ``sigma``s (mm,
    same shape) default to ``hit_sigmas``. The order of hits does not matter: tracks fly outward from the perigee.
    Tracks with fewer than 3 hits, or with degenerate ones (coinciding, or on a circle around the z axis), have charge
    0 and nan elsewhere; an exactly straight track has charge 1 and infinite pt. Raises ``ValueError`` for columns of
    different lengths or a track out of range.
    """
    columns = [np.asarray(c, np.float64) for c in (x, y, z)]
    for given, default in zip((sigma_rphi, sigma_r, sigma_z), hit_sigmas(x, y, z), strict=True):
        columns.append(default if given is None else np.asarray(given, np.float64))
    row = np.asarray(track).astype(np.int64)
    if any(c.shape != row.shape or c.ndim != 1 for c in columns):
        raise ValueError(f"fit_helices: columns differ in shape: {[c.shape for c in columns]}, track {row.shape}")
    if len(row) and not (row.min() >= -1 and row.max() < tracks):
        raise ValueError(f"fit_helices: track from {row.min()} to {row.max()}, expected -1 to {tracks - 1}")
    hits, bounds = _by_track(np.stack(columns, axis=1), row, tracks)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = material * (0.0136 / (1e-3 * SPEED_OF_LIGHT * field_tesla)) ** 2
        d0, phi, kappa, z0, cot = _fit_all(hits, bounds, scale).T
        momentum = 1e-3 * SPEED_OF_LIGHT * abs(field_tesla) / np.abs(kappa)
    charge = np.where(kappa * math.copysign(1.0, field_tesla) > 0, -1.0, 1.0)
    charge[np.isnan(kappa)] = 0
    result = {"charge": charge, "pt": momentum, "eta": np.arcsinh(cot), "phi": wrap(phi), "d0": d0, "z0": z0}
    return {name: column.astype(np.float32) for name, column in result.items()}


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
def _circle(hits: Float) -> tuple[float, float, float]:
    """Karimaki's circle: d0, phi and kappa, outward; nan where the hits define none."""
    n = mx = my = mr = xx = xy = xr = yr = rr = 0.0
    for h in hits:
        x, y, r2 = h[0], h[1], h[0] * h[0] + h[1] * h[1]
        w = 1 / (h[3] * h[3] + 0.04 * h[4] * h[4] + _TINY)
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


@njit(cache=True, nogil=True)
def _nearest(x: float, y: float, u: float, v: float, p: Float) -> tuple[float, float, float, float]:
    """Distance of a point left of the circle, arc length of the nearest point, cosine and sine of its turning angle."""
    along, across = x * u + y * v, y * u - x * v - p[0]
    offset = across - p[2] * (along * along + across * across) / 2
    c, s = 1 - p[2] * across, p[2] * along
    turn = math.atan2(s, c)
    if abs(turn) > math.pi / 2 and turn * p[2] < 0:  # beyond half a turn
        turn += math.copysign(2 * math.pi, p[2])
    arc = along / c if abs(turn) < 1e-9 else turn / p[2]
    norm = math.sqrt(c * c + s * s)
    return 2 * offset / (1 + norm), arc, c / norm, s / norm


@njit(cache=True, nogil=True)
def _update(p: Float, cov: Float, j: Five, residual: float, variance: float) -> None:
    """Kalman update of parameters and covariance, in place, by one measured number with derivatives ``j``."""
    c0 = cov[0, 0] * j[0] + cov[0, 1] * j[1] + cov[0, 2] * j[2] + cov[0, 3] * j[3] + cov[0, 4] * j[4]
    c1 = cov[1, 0] * j[0] + cov[1, 1] * j[1] + cov[1, 2] * j[2] + cov[1, 3] * j[3] + cov[1, 4] * j[4]
    c2 = cov[2, 0] * j[0] + cov[2, 1] * j[1] + cov[2, 2] * j[2] + cov[2, 3] * j[3] + cov[2, 4] * j[4]
    c3 = cov[3, 0] * j[0] + cov[3, 1] * j[1] + cov[3, 2] * j[2] + cov[3, 3] * j[3] + cov[3, 4] * j[4]
    c4 = cov[4, 0] * j[0] + cov[4, 1] * j[1] + cov[4, 2] * j[2] + cov[4, 3] * j[3] + cov[4, 4] * j[4]
    cj = (c0, c1, c2, c3, c4)
    inverse = 1 / (c0 * j[0] + c1 * j[1] + c2 * j[2] + c3 * j[3] + c4 * j[4] + variance)
    change = residual - (p[0] * j[0] + p[1] * j[1] + p[2] * j[2] + p[3] * j[3] + p[4] * j[4])
    for i in range(5):
        gain = cj[i] * inverse
        p[i] += gain * change
        for k in range(5):
            cov[i, k] -= gain * cj[k]


@njit(cache=True, nogil=True)
def _scatter(cov: Float, g: Five, variance: float) -> None:
    for i in range(5):
        for k in range(5):
            cov[i, k] += variance * g[i] * g[k]


@njit(cache=True, nogil=True)
def _filter(hits: Float, p: Float, scale: float, step: Float, cov: Float) -> None:
    """Kalman filter from the outermost hit to the perigee, linear around ``p``: fills ``step`` and its covariance.

    ``scale`` times ``kappa^2`` is the squared scattering angle of a stiff straight track in one layer. A kink at a hit
    turns the helix about that point: its effect on the perigee parameters is ``g``.
    """
    u, v = math.cos(p[1]), math.sin(p[1])
    cov[:], step[:] = 0.0, 0.0
    for i in range(5):
        cov[i, i] = _PRIOR[i]
    for h in hits:
        e, arc, c, s = _nearest(h[0], h[1], u, v, p)
        r = math.sqrt(h[0] * h[0] + h[1] * h[1])
        flight_x, flight_y = u * c - v * s, u * s + v * c
        k, q = (h[1] * flight_x - h[0] * flight_y) / r, (h[0] * flight_x + h[1] * flight_y) / r
        # Errors along r-phi, r, z seen as distance across the track (tt) and along z (zz).
        phi2, r2 = h[3] * h[3], h[4] * h[4]
        tt = phi2 * q * q + r2 * k * k + _TINY
        zz = h[5] * h[5] + p[4] * p[4] * (r2 * q * q + phi2 * k * k) + _TINY
        ratio = -p[4] * k * q * (r2 - phi2) / tt
        turn, along, lever = p[2] * arc, u * h[0] + v * h[1], 1 + p[2] * p[0]
        small = abs(turn) < 1e-3
        across = arc * turn / 2 if small else (1 - c) / p[2]
        straight = arc - arc * turn * turn / 6 if small else s / p[2]
        # The distance to the circle, then z given that distance: derivatives by the parameters.
        j0, j1, j2 = c, along * lever, (along * along + across * across) / 2
        _update(step, cov, (j0, j1, j2, 0.0, 0.0), e, tt)
        stretch = arc * arc * turn / 6 if small else (arc - straight) / p[2]
        k0, k1, k2 = -p[4] * s - ratio * j0, p[4] * (p[0] * c - across) - ratio * j1, -p[4] * stretch - ratio * j2
        _update(step, cov, (k0, k1, k2, 1.0, arc), h[2] - p[3] - p[4] * arc - ratio * e, zz - ratio * ratio * tt)
        # Scattering in the two angles; slope is 1 / sin^2(theta).
        slope = 1 + p[4] * p[4]
        path = math.sqrt(slope) / (1.0 if h[5] > h[4] else max(abs(p[4]), 0.1))
        variance = scale * p[2] * p[2] * path
        _scatter(cov, (-straight, c / lever, 0.0, -p[4] * (p[0] + across) / lever, 0.0), variance)
        pull = p[4] / slope
        g3 = -arc - p[4] * pull * (straight / lever - arc)
        _scatter(cov, (pull * across, -pull * s / lever, pull * p[2], g3, 1.0), variance * slope)


@njit(cache=True, nogil=True)
def _line(hits: Float, arc: Float, p: Float) -> None:
    """Start z0 and cot theta from the unweighted line z(s), and sort the hits in place, outermost first."""
    u, v = math.cos(p[1]), math.sin(p[1])
    n, s1, s2, z1, sz = float(len(hits)), 0.0, 0.0, 0.0, 0.0
    for i in range(len(hits)):
        x, y, z, a, b, c = hits[i]
        s = _nearest(x, y, u, v, p)[1]
        s1, s2, z1, sz = s1 + s, s2 + s * s, z1 + z, sz + s * z
        k = i
        while k > 0 and arc[k - 1] < s:
            arc[k], hits[k] = arc[k - 1], hits[k - 1]
            k -= 1
        arc[k] = s
        hits[k, 0], hits[k, 1], hits[k, 2], hits[k, 3], hits[k, 4], hits[k, 5] = x, y, z, a, b, c
    p[4] = (n * sz - s1 * z1) / (n * s2 - s1 * s1)
    p[3] = (z1 - p[4] * s1) / n


@njit(cache=True, nogil=True)
def _by_track(columns: Float, track: NDArray[np.int64], tracks: int) -> tuple[Float, NDArray[np.int64]]:
    """The hits of tracks as rows sorted by track, shape (n, 6), and where each track begins, shape (tracks + 1,)."""
    bounds = np.zeros(tracks + 2, np.int64)
    for row in track:
        if row >= 0:
            bounds[row + 2] += 1
    bounds = np.cumsum(bounds)
    hits = np.empty((bounds[-1], 6))
    for i in range(len(track)):
        if track[i] >= 0:
            k = bounds[track[i] + 1]
            bounds[track[i] + 1] += 1
            for c in range(6):
                hits[k, c] = columns[i, c]
    return hits, bounds[:-1]


@njit(cache=True, nogil=True)
def _fit_all(hits: Float, bounds: NDArray[np.int64], scale: float) -> Float:
    """Perigee parameters d0, phi, kappa, z0, cot theta of each track, shape (tracks, 5).

    ``hits`` has the columns x, y, z and the errors along r-phi, r, z, sorted by track; track i holds the rows from
    ``bounds[i]`` to ``bounds[i + 1]``.
    """
    result = np.full((len(bounds) - 1, 5), np.nan)
    p, step, cov, arc = np.zeros(5), np.zeros(5), np.zeros((5, 5)), np.empty(len(hits))
    for i in range(len(result)):
        own = hits[bounds[i] : bounds[i + 1]]
        if len(own) < 3:
            continue
        p[0], p[1], p[2] = _circle(own)
        if not math.isfinite(p[2]):
            continue
        _line(own, arc, p)
        for _ in range(_STEPS):
            _filter(own, p, scale, step, cov)
            if not math.isfinite(step.sum()):
                break
            done = True
            for k in range(5):
                p[k] += step[k]
                done = done and step[k] * step[k] < 0.01 * cov[k, k]
            if done:
                break
        result[i] = p
    return result
