"""Fitted track parameters against those of their particles: residuals, pulls and their widths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cloudchamber import physics
from cloudchamber.event import Event
from cloudchamber.metrics.cluster import column
from cloudchamber.metrics.fraction import ONE_SIGMA, Floats, Ints, Mask
from cloudchamber.metrics.match import Match, matched

#: Parameters compared -> unit. The residual of q / pT is relative, fitted over true less one: a bias of pT shows.
PARAMETERS = {"q/pT": "", "phi": "rad", "cot theta": "", "d0": "mm", "z0": "mm"}


@dataclass(frozen=True)
class Width:
    """The core of a distribution: ``value``, half the width of its middle 68.3%, and its ``median``.

    ``error`` is the standard error of ``value``, 0.96 value / sqrt(count), that of the median is 1.3 times as large (of
    a Gaussian); ``tails`` is the fraction further than three values from the median (0.0027 of a Gaussian). NaN for
    less than two values.
    """

    value: float
    error: float
    median: float
    tails: float
    count: int

    @classmethod
    def of(cls, values: Floats) -> Width:
        """The core of numbers ``(n,)``; those that are not finite are left out."""
        kept = values[np.isfinite(values)]
        if len(kept) < 2:
            return cls(np.nan, np.nan, np.nan, np.nan, len(kept))
        low, median, high = np.quantile(kept, [(1 - ONE_SIGMA) / 2, 0.5, (1 + ONE_SIGMA) / 2])
        half = (high - low) / 2
        # Quantiles at one standard deviation have the variance 2.281 / n and the covariance 0.430 / n.
        error = half * np.sqrt((2.281 - 0.430) / 2 / len(kept))
        tails = np.mean(np.abs(kept - median) > 3 * half)
        return cls(float(half), float(error), float(median), float(tails), len(kept))

    @property
    def low(self) -> float:
        """``value`` less its error."""
        return self.value - self.error

    @property
    def high(self) -> float:
        """``value`` and its error."""
        return self.value + self.error


@dataclass(frozen=True, eq=False)
class Residuals:
    """Fitted less true parameters of tracks that match a particle, one row per track.

    ``residual`` and ``pull`` (residual over its fitted error, NaN without one), ``(tracks, 5)``, in the order of
    ``PARAMETERS``. ``particle`` and ``track``: their rows; ``pt`` (GeV), ``eta`` and ``radius`` (mm, of production) are
    the particle's; ``pure``: every hit of the track is the particle's. All others ``(tracks,)``.
    """

    residual: Floats
    pull: Floats
    track: Ints
    particle: Ints
    pt: Floats
    eta: Floats
    radius: Floats
    pure: Mask

    def __getitem__(self, kept: Mask) -> Residuals:
        """The tracks of a mask ``(tracks,)``."""
        return Residuals(**{name: values[kept] for name, values in vars(self).items()})

    @staticmethod
    def join(parts: list[Residuals]) -> Residuals:
        """Those of several events, one after the other."""
        names = vars(parts[0])
        return Residuals(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def residuals(predicted: Event, truth: Event, style: str = "double", field_tesla: float = 2.0) -> Residuals:
    """Residuals of the tracks that match a particle in a style of ``STYLES`` and have a fit.

    The true parameters are those of the helix through the point of production with the momentum there, at the perigee
    to the z axis. Raises ``UserError`` when a column is missing: in the prediction charge, pt, eta, phi, d0, z0, in the
    truth the vertex, the momentum and the charge of particles.
    """
    match = Match.of(predicted, truth)
    charge = column(predicted, "object", "charge").astype(np.float64)
    track = np.flatnonzero(matched(match, style) & (charge != 0))
    particle = match.majority[track]
    vx, vy, vz, px, py, pz, q = (
        column(truth, "object", name)[particle].astype(np.float64)
        for name in ("vx", "vy", "vz", "px", "py", "pz", "charge")
    )
    true = physics.perigee(vx, vy, vz, px, py, pz, q, field_tesla)
    fit = {
        name: column(predicted, "object", name)[track].astype(np.float64) for name in ("pt", "eta", "phi", "d0", "z0")
    }
    residual = np.stack(
        [
            charge[track] / fit["pt"] / (q / true.pt) - 1,
            physics.wrap(fit["phi"] - true.phi),
            np.sinh(fit["eta"]) - np.sinh(true.eta),
            fit["d0"] - true.d0,
            fit["z0"] - true.z0,
        ],
        axis=1,
    )
    pull = np.full_like(residual, np.nan)
    if "sigma_pt" in predicted.object:
        names = ("pt", "phi", "eta", "d0", "z0")
        sigma = np.stack([column(predicted, "object", f"sigma_{name}")[track] for name in names], axis=1)
        scale = np.ones_like(residual)
        scale[:, 0], scale[:, 2] = true.pt / fit["pt"] ** 2, np.cosh(fit["eta"])
        with np.errstate(divide="ignore", invalid="ignore"):
            pull = residual / (sigma * scale)
    pure = match.majority_shared[track] == match.track_hits[track]
    return Residuals(residual, pull, track, particle, true.pt, true.eta, np.hypot(vx, vy), pure)


def split_widths(found: Residuals, kind: str, variable: str, bins: Floats) -> dict[str, list[Width]]:
    """Core widths of each parameter in bins: ``kind`` is residual or pull, ``variable`` pt, eta or radius.

    A bin is closed below and open above; see ``Width``.
    """
    values, place = getattr(found, kind), np.digitize(getattr(found, variable), bins) - 1
    return {
        name: [Width.of(values[place == bin_, row]) for bin_ in range(len(bins) - 1)]
        for row, name in enumerate(PARAMETERS)
    }
