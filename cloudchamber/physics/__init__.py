"""Kinematics, helices and jets: units, momenta, perigee parameters, the helix fit, N-subjettiness.

Lengths are in mm, momenta in GeV, the field in tesla, along +z. The signs are those of ACTS and of a perigee at the
z axis: at the point of closest approach the track flies along (cos phi, sin phi) and ``x = -d0 sin phi``,
``y = d0 cos phi``, so ``d0`` is positive where the z axis lies to the right of the flight direction. The signed
curvature ``kappa = d(phi)/ds = -0.299792458e-3 charge B / pT`` (1/mm, ``s`` the transverse arc length) is negative for
a positive charge, which turns clockwise seen from +z.
"""

from __future__ import annotations

from cloudchamber.physics.fit import HelixFit, fit_helices, helix_fit, hit_sigmas
from cloudchamber.physics.helix import Helix, circle_through, perigee
from cloudchamber.physics.kinematics import SPEED_OF_LIGHT, curvature, delta_r, eta, invariant_mass, pt, wrap
from cloudchamber.physics.material import TRACKML, cylinder, disc, walls
from cloudchamber.physics.substructure import n_subjettiness

__all__ = [
    "SPEED_OF_LIGHT",
    "TRACKML",
    "Helix",
    "HelixFit",
    "circle_through",
    "curvature",
    "cylinder",
    "delta_r",
    "disc",
    "eta",
    "fit_helices",
    "helix_fit",
    "hit_sigmas",
    "invariant_mass",
    "n_subjettiness",
    "perigee",
    "pt",
    "walls",
    "wrap",
]
