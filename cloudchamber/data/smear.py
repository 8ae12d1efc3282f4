"""A simple detector: what it makes of generated particles, in formulas for efficiency and resolution.

Tracking efficiency, resolution of pT and of the calorimeters are those of the CMS card of Delphes 3 (arXiv:1307.6346,
delphes_card_CMS.tcl; for pT its row for muons, which holds for isolated tracks of any kind). Impact parameters follow
``a + b / (pT sqrt(sin theta))``, added in quadrature, as multiple scattering does, with a and b near what CMS measured
(arXiv:1405.6569: 90 to 25 micrometres across and 150 to 45 along the beam, from pT 1 to 10 GeV). Not simulated: the
field's bending, energy shared between particles in one calorimeter cell, wrong tracks, wrong particle types.
"""

from __future__ import annotations

import numpy as np

from cloudchamber.data.transport import Array, Table
from cloudchamber.physics import eta as pseudorapidity
from cloudchamber.physics import perigee, pt

#: Values of ``point.type``, by index.
TYPES = ("charged hadron", "neutral hadron", "photon", "electron", "muon")
CHARGED, NEUTRAL, PHOTON, ELECTRON, MUON = range(len(TYPES))
#: Masses that a detector assumes, GeV, by type.
MASSES = np.array([0.13957, 0.0, 0.0, 0.000511, 0.10566])

TRACK_ETA, PT_MIN, ETA_MAX = 2.5, 0.1, 5.0
#: Least energy seen in the electromagnetic and in the hadronic calorimeter, GeV, and their cells' size (rad, barrel).
ECAL_MIN, HCAL_MIN, ECAL_CELL, HCAL_CELL = 0.5, 1.0, 0.0174, 0.0873
#: Impact parameters: a (mm) and b (mm GeV) across and along the beam.
D0_ERROR, Z0_ERROR = (0.015, 0.090), (0.040, 0.145)


def impact_errors(pt: Array, eta: Array) -> tuple[Array, Array]:
    """Errors of d0 and z0 in mm of tracks of ``pt`` (GeV) and ``eta``; shapes alike."""
    scatter, sine = np.sqrt(np.cosh(eta)) / pt, 1 / np.cosh(eta)
    return np.hypot(D0_ERROR[0], D0_ERROR[1] * scatter), np.hypot(Z0_ERROR[0], Z0_ERROR[1] * scatter) / sine


def smear(table: Table, rng: np.random.Generator) -> tuple[Table, Array]:
    """What the detector sees of particles, and the row of the particle behind each of them.

    ``table``: visible particles with ``px``, ``py``, ``pz``, ``energy`` (GeV), ``pdg``, ``charge``, ``vx``, ``vy``,
    ``vz`` (mm). Seen: ``px``, ``py``, ``pz``, ``energy``, ``type`` (see ``TYPES``), ``charge``, ``d0``, ``z0`` (mm, of
    the perigee at the z axis, signs as in ``physics``) with ``sigma_d0``, ``sigma_z0``, all 0 without a track. A
    charged particle without a track is seen as a neutral one.
    """
    transverse, eta = pt(table["px"], table["py"]), pseudorapidity(table["px"], table["py"], table["pz"])
    track = (table["charge"] != 0) & (rng.random(len(eta)) < _efficiency(transverse, eta))
    kind = _types(table["pdg"], track)
    resolution = np.where(kind == PHOTON, _ecal(table["energy"], eta), _hcal(table["energy"], eta))
    energy = _positive(table["energy"], resolution, rng)
    momentum = _positive(transverse, np.where(track, transverse * _momentum(transverse, eta), 0.0), rng)
    cell = np.where(kind == PHOTON, ECAL_CELL, HCAL_CELL) / np.sqrt(12)
    shift = rng.normal(size=(2, len(eta))) * np.where(track, 0.0, cell)
    eta, phi = eta + shift[0], np.arctan2(table["py"], table["px"]) + shift[1]
    momentum = np.where(track, momentum, energy / np.cosh(eta))
    mass = MASSES[kind]
    energy = np.where(track, np.hypot(momentum * np.cosh(eta), mass), energy)
    seen = track | (energy > np.where(kind == PHOTON, ECAL_MIN, HCAL_MIN))
    seen &= track | (table["charge"] == 0) | (np.abs(table["pdg"]) != 13)  # calorimeters do not stop muons
    found: Table = {"px": momentum * np.cos(phi), "py": momentum * np.sin(phi), "pz": momentum * np.sinh(eta)}
    found |= {"energy": energy, "type": kind, "charge": np.where(track, table["charge"], 0.0)}
    found |= _impact(table, track, momentum, eta, rng)
    rows = np.flatnonzero(seen)
    return {name: column[rows] for name, column in found.items()}, rows


def _types(pdg: Array, track: Array) -> Array:
    kind = np.where(track, CHARGED, NEUTRAL)
    kind[np.isin(np.abs(pdg), (11, 22))] = PHOTON
    kind[track & (np.abs(pdg) == 11)] = ELECTRON
    kind[track & (np.abs(pdg) == 13)] = MUON
    return kind


def _efficiency(pt: Array, eta: Array) -> Array:
    """Probability that a charged particle has a track."""
    central = np.abs(eta) <= 1.5
    found = np.where(pt > 1, np.where(central, 0.95, 0.85), np.where(central, 0.70, 0.60))
    return np.where((pt > PT_MIN) & (np.abs(eta) <= TRACK_ETA), found, 0.0)


def _momentum(pt: Array, eta: Array) -> Array:
    """Relative resolution of a track's pT."""
    region = np.searchsorted([0.5, 1.5], np.abs(eta))
    constant, slope = np.array([0.01, 0.015, 0.025])[region], np.array([1.0e-4, 1.5e-4, 3.5e-4])[region]
    resolution: Array = np.hypot(constant, slope * pt)
    return resolution


def _ecal(energy: Array, eta: Array) -> Array:
    """Resolution of the electromagnetic calorimeter, GeV."""
    eta = np.abs(eta)
    shape = np.where(eta <= 1.5, 1 + 0.64 * eta**2, 2.16 + 5.6 * (eta - 2) ** 2)
    near = shape * np.sqrt((0.008 * energy) ** 2 + 0.11**2 * energy + 0.40**2)
    return np.where(eta <= 2.5, near, np.sqrt((0.107 * energy) ** 2 + 2.08**2 * energy))


def _hcal(energy: Array, eta: Array) -> Array:
    """Resolution of the hadronic calorimeter, GeV."""
    near = np.sqrt((0.050 * energy) ** 2 + 1.50**2 * energy)
    return np.where(np.abs(eta) <= 3, near, np.sqrt((0.130 * energy) ** 2 + 2.70**2 * energy))


def _positive(mean: Array, sigma: Array, rng: np.random.Generator) -> Array:
    """Log-normal values of this mean and standard deviation (as Delphes draws them): never below zero."""
    square = np.log1p((sigma / mean) ** 2)
    return mean * np.exp(np.sqrt(square) * rng.normal(size=len(mean)) - square / 2)


def _impact(table: Table, track: Array, momentum: Array, eta: Array, rng: np.random.Generator) -> Table:
    """Smeared impact parameters and their errors, 0 without a track."""
    vx, vy, vz, px, py, pz = (table[name] for name in ("vx", "vy", "vz", "px", "py", "pz"))
    true = perigee(vx, vy, vz, px, py, pz, np.where(track, table["charge"], 1.0))
    found: Table = {}
    for name, value, sigma in zip(("d0", "z0"), (true.d0, true.z0), impact_errors(momentum, eta), strict=True):
        smeared = value + sigma * rng.normal(size=len(sigma))
        found |= {name: np.where(track, smeared, 0.0), f"sigma_{name}": np.where(track, sigma, 0.0)}
    return found
