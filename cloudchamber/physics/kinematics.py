"""Kinematics: transverse momentum, pseudorapidity, angles, masses and the curvature of a track."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

#: pT = SPEED_OF_LIGHT * B * R for unit charge, in GeV / (T m).
SPEED_OF_LIGHT = 0.299792458


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
