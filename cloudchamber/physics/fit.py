"""The helix fit of tracks: parameters, their covariance, chi2 of tracks and of single hits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from cloudchamber.physics.kalman import fit_all
from cloudchamber.physics.kinematics import SPEED_OF_LIGHT, wrap
from cloudchamber.physics.material import TRACKML

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class HelixFit:
    """Fitted helices; nan where there is none.

    ``parameters``, shape ``(tracks, 5)``: d0 (mm), z0 (mm), phi (rad), cot theta, q / pT (e / GeV), signs as in
    ``cloudchamber.physics``; ``covariance``, ``(tracks, 5, 5)``, is theirs. ``chi2`` and ``ndf`` (two numbers per
    fitted hit less five parameters), ``(tracks,)``; ``worst``, ``(tracks,)``: the largest ``hit_chi2`` of the hits that
    were fitted. ``hit_chi2``, ``(n,)``: how much the chi2 of its track falls when
    this one hit is left out, nan for hits without a fitted track. That of a right hit follows a chi2 distribution with
    two degrees of freedom (above 9.2 in 1%, 13.8 in 0.1%), that of a wrong hit is larger. A hit was left out of the fit
    where it is above ``outlier``, and then is what it was when the hit was taken out.
    """

    parameters: Float
    covariance: Float
    chi2: Float
    ndf: Float
    worst: Float
    hit_chi2: Float

    def columns(self) -> dict[str, NDArray[np.float32]]:
        """Columns of tracks, float32, ``(tracks,)``: charge, pt (GeV), eta, phi, d0, z0 (mm), chi2, ndf, worst.

        ``sigma_pt`` to ``sigma_z0`` are the standard deviations. Charge is 0 without a fit.
        """
        d0, z0, phi, cot, ratio = self.parameters.T
        with np.errstate(divide="ignore", invalid="ignore"):  # a fit that failed may have a negative variance
            variance = np.diagonal(self.covariance, axis1=1, axis2=2)
            sigma_d0, sigma_z0, sigma_phi, sigma_cot, sigma_ratio = np.sqrt(variance).T
            pt = 1 / np.abs(ratio)
        columns = {"charge": np.where(np.isnan(ratio), 0.0, np.where(ratio < 0, -1.0, 1.0)), "pt": pt}
        columns |= {"eta": np.arcsinh(cot), "phi": wrap(phi), "d0": d0, "z0": z0}
        columns |= {"sigma_pt": sigma_ratio * pt**2, "sigma_eta": sigma_cot / np.hypot(1, cot), "sigma_phi": sigma_phi}
        columns |= {"sigma_d0": sigma_d0, "sigma_z0": sigma_z0, "chi2": self.chi2, "ndf": self.ndf}
        columns["worst"] = self.worst
        return {name: column.astype(np.float32) for name, column in columns.items()}


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


def helix_fit(
    x: ArrayLike,
    y: ArrayLike,
    z: ArrayLike,
    track: ArrayLike,
    tracks: int,
    field_tesla: float = 2.0,
    sigma_rphi: ArrayLike | None = None,
    sigma_r: ArrayLike | None = None,
    sigma_z: ArrayLike | None = None,
    angle: ArrayLike | None = None,
    material: Float = TRACKML,
    outlier: float = math.inf,
) -> HelixFit:
    """Fit a helix to the hits of each track.

    A weighted circle fit (V. Karimaki, Nucl. Instrum. Meth. A 305 (1991) 187) and a line z(s) are the start; a Kalman
    filter from the outermost hit inwards (R. Fruhwirth, Nucl. Instrum. Meth. A 262 (1987) 444), repeated around its
    result, then fits all five parameters. It knows each hit's errors across the track and along z, with their
    correlation, and multiple scattering (13.6 MeV formula of the PDG review, a pion's velocity) and energy loss in
    ``material``, see ``cloudchamber.physics.material``; ``walls()`` for none. The fit is linear in the loss: above some
    percent of the momentum it is biased.

    ``x``, ``y``, ``z`` in mm and ``track``, the row of each hit's track or -1, have shape ``(n,)``; so have the
    ``sigma``s (mm, default ``hit_sigmas``) and ``angle`` (rad, default 0), that from the r-phi direction to the one in
    the transverse plane along which ``sigma_rphi`` is measured, ``sigma_r`` across it.

    Hits are left out one by one, the one of the largest ``hit_chi2`` first, and the rest is fitted anew, until none is
    above ``outlier`` (default: keep all) or one more would leave less than four hits or half of them.
    The order of hits does not matter: tracks fly outward from the perigee.
    Tracks with fewer than 3 hits, or with degenerate ones (coinciding, or on a circle around the z axis), have no fit;
    an exactly straight track has q / pT = 0. Raises ``ValueError`` for columns of different lengths or a track out of
    range.
    """
    columns = [np.asarray(c, np.float64) for c in (x, y, z)]
    sigmas = (sigma_rphi, sigma_r, sigma_z)
    defaults = hit_sigmas(x, y, z) if any(given is None for given in sigmas) else sigmas
    for given, default in zip(sigmas, defaults, strict=True):
        columns.append(np.asarray(default if given is None else given, np.float64))
    columns.append(np.zeros(columns[0].shape) if angle is None else np.asarray(angle, np.float64))
    row = np.asarray(track).astype(np.int64)
    if any(c.shape != row.shape or c.ndim != 1 for c in columns):
        raise ValueError(f"helix_fit: columns differ in shape: {[c.shape for c in columns]}, track {row.shape}")
    if len(row) and not (row.min() >= -1 and row.max() < tracks):
        raise ValueError(f"helix_fit: track from {row.min()} to {row.max()}, expected -1 to {tracks - 1}")
    index, bounds = _by_track(row, tracks)
    columns = [column[index] for column in columns]
    axis = np.arctan2(columns[1], columns[0]) + math.pi / 2 + columns[6]
    columns[6:7] = np.cos(axis), np.sin(axis)
    unit = -1e-3 * SPEED_OF_LIGHT * field_tesla  # of kappa, per q / pT
    with np.errstate(divide="ignore", invalid="ignore"):
        found, covariance, chi2, largest, fitted, kept = fit_all(
            np.stack(columns, axis=1), bounds, material, unit, outlier
        )
    order = [0, 3, 1, 4, 2]
    size = np.array([1, 1, 1, 1, 1 / unit])
    hit_chi2 = np.full(len(row), np.nan)
    hit_chi2[index] = kept
    covariance = covariance[:, order][:, :, order] * size * size[:, None]
    ndf = np.where(np.isnan(chi2), np.nan, 2.0 * fitted - 5)
    return HelixFit(found[:, order] * size, covariance, chi2, ndf, largest, hit_chi2)


def fit_helices(*args: Any, **kwargs: Any) -> dict[str, NDArray[np.float32]]:
    """``helix_fit(...).columns()``."""
    return helix_fit(*args, **kwargs).columns()


@njit(cache=True, nogil=True)
def _by_track(track: NDArray[np.int64], tracks: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of hits on tracks, track after track, and where each track begins, shape (tracks + 1,)."""
    bounds = np.zeros(tracks + 2, np.int64)
    for row in track:
        if row >= 0:
            bounds[row + 2] += 1
    bounds = np.cumsum(bounds)
    index = np.empty(bounds[-1], np.int64)
    for i in range(len(track)):
        if track[i] >= 0:
            index[bounds[track[i] + 1]] = i
            bounds[track[i] + 1] += 1
    return index, bounds[:-1]
