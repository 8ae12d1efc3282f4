"""The data files that Geant4's standard electromagnetic physics opens, computed: none of Geant4's own is needed.

Bremsstrahlung from formulas, photoelectric effect and Rayleigh scattering from the tables of ``xraylib``. No validated
replacement for Geant4's G4EMLOW: radiation lengths come out within 1% of the published ones and showers as they should
(``docs/showers.md``), but what happens below some 100 keV is rough.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloudchamber.errors import UserError

Array = NDArray[np.float64]

#: Fine-structure constant, classical electron radius (cm), electron mass (MeV), millibarn (cm^2).
ALPHA, RADIUS, MASS, MILLIBARN = 1 / 137.035999, 2.8179403e-13, 0.51099895, 1e-27
#: Kinetic energies (MeV) and photon energies over the kinetic energy of the bremsstrahlung table.
KINETIC = np.logspace(-3, 4, 57)
SHARES = np.unique([*np.linspace(0, 1, 21), 1e-4, 1e-3, 5e-3, 0.01, 0.025, 0.075, 0.125, 0.97, 0.98, 0.99, 0.995])
#: Geant4's own cross sections (after Seltzer and Berger) over the formula at these kinetic energies (MeV), from those
#: of lead tungstate that come with HepEmShow, by eye; 1 from 50 MeV on.
KNOTS, EXCESS = (1e-3, 0.05, 0.38, 1.92, 9.6, 50.0), (1.3, 1.4, 1.39, 1.07, 0.987, 1.0)
#: xraylib's tables end here, keV; the photoelectric effect is a sum of powers from ``SPLIT`` MeV on.
LOWEST, HIGHEST, SPLIT = 1.05, 790.0, 0.15
INSTALL = "simulating showers needs Geant4: pip install 'cloudchamber[geant4]' ({error})"


def coulomb(z: int) -> float:
    """The Coulomb correction f(Z) of Davies, Bethe and Maximon, Phys. Rev. 93 (1954) 788."""
    a = (ALPHA * z) ** 2
    return a * (1 / (1 + a) + 0.20206 - 0.0369 * a + 0.0083 * a**2 - 0.002 * a**3)


def bremsstrahlung(z: int, kinetic: float, share: Array) -> Array:
    """beta^2 / Z^2 k dsigma/dk in millibarn, for photons of ``share`` of the ``kinetic`` energy (MeV); shape alike.

    Y.-S. Tsai, Rev. Mod. Phys. 46 (1974) 815, eqs. 3.38 to 3.41, for any screening, with Elwert's factor and ``EXCESS``
    at low energies, where the Coulomb correction fades out. Never rising with ``share``, as Geant4's sampling expects.
    """
    energy = kinetic + MASS
    photon = kinetic * np.clip(share, 1e-9, 1 - 1e-9)
    left, y = energy - photon, photon / energy
    gamma, epsilon = (100 * MASS * photon / (energy * left * z**power) for power in (1 / 3, 2 / 3))
    phi = 16.863 - 2 * np.log(1 + (0.55846 * gamma) ** 2) + 2.4 * np.exp(-0.9 * gamma) + 1.6 * np.exp(-1.5 * gamma)
    psi = 24.34 - 2 * np.log(1 + (3.621 * epsilon) ** 2) + 2.8 * np.exp(-8 * epsilon) + 1.2 * np.exp(-29.2 * epsilon)
    less = 2 / (3 + 19.5 * gamma + 18 * gamma**2), 2 / (3 + 120 * epsilon + 1200 * epsilon**2)
    fade = float(np.clip(np.log(kinetic) / np.log(50.0), 0, 1))
    nucleus = np.maximum(phi - 4 / 3 * np.log(z) - 4 * fade * coulomb(z), 0)
    electrons = np.maximum(psi - 8 / 3 * np.log(z), 0) / z
    sigma = (4 / 3 * (1 - y) + y**2) * (nucleus + electrons) + 2 / 3 * (1 - y) * (less[0] + less[1] / z)
    before, after = (np.sqrt(t * (t + 2 * MASS)) / (t + MASS) for t in (kinetic, np.maximum(kinetic - photon, 1e-9)))
    strength = 2 * np.pi * ALPHA * z
    elwert = before * -np.expm1(-strength / before) / (after * -np.expm1(-strength / after))
    sigma *= np.clip(elwert, 1, 10) if kinetic < KNOTS[-1] else 1
    excess = np.interp(np.log(kinetic), np.log(KNOTS), EXCESS)
    falling: Array = np.minimum.accumulate(sigma)
    return ALPHA * RADIUS**2 / MILLIBARN * before**2 * excess * falling


def radiation_length(z: int, mass: float) -> float:
    """The radiation length in g/cm^2 of an element of molar ``mass`` (g/mol), from what an electron of 10 GeV loses.

    1 / X0 = n / E integral k dsigma/dk dk with n atoms per gram, of the table as it is.
    """
    share = np.linspace(0, 1, 2001)
    loss = np.trapezoid(bremsstrahlung(z, 1e4, share), share) * z**2 * MILLIBARN
    return float(mass / (6.02214076e23 * loss))


def photoelectric(z: int, energy: Array) -> tuple[Array, Array]:
    """The cross section in barn at ``energy`` (MeV, below 0.79), and six a_i >= 0 of sum a_i / E^i above ``SPLIT``."""
    from scipy.optimize import nnls

    xraylib = _xraylib()
    sigma = np.array([xraylib.CSb_Photo(z, float(e)) for e in np.clip(energy * 1e3, LOWEST, HIGHEST)])
    high = energy > SPLIT
    powers = energy[high, None] ** -np.arange(1.0, 5.0) / sigma[high, None]
    return sigma, np.append(nnls(powers, np.ones(len(powers)))[0], [0.0, 0.0])


def _xraylib() -> Any:
    try:
        import xraylib
    except ImportError as error:
        raise UserError(INSTALL.format(error=error)) from None
    return xraylib


def write(directory: Path, elements: Iterable[int]) -> None:
    """Write the files of the elements of these atomic numbers to a directory, for G4LEDATA; needs ``xraylib``."""
    for folder in ("brem_SB", "epics2017/phot", "epics2017/rayl", "livermore/phot_epics2014", "livermore/rayl"):
        (directory / folder).mkdir(parents=True, exist_ok=True)
    (directory / "ENSDFSTATE.dat").touch()  # no nuclear levels
    for z in elements:
        _write_bremsstrahlung(directory / f"brem_SB/br{z}", z)
        for folder in ("epics2017/phot", "livermore/phot_epics2014"):
            _write_photoelectric(directory / folder, z)
        for folder in ("epics2017/rayl", "livermore/rayl"):
            _write_rayleigh(directory / folder / f"re-cs-{z}.dat", z)


def _line(numbers: Iterable[float]) -> str:
    return " ".join(f"{number:.8g}" for number in numbers) + "\n"


def _write_bremsstrahlung(path: Path, z: int) -> None:
    head = f"0 {len(SHARES)} {len(KINETIC)}\n{_line(SHARES)}{_line(np.log(KINETIC))}"
    path.write_text(head + "".join(_line(bremsstrahlung(z, kinetic, SHARES)) for kinetic in KINETIC))


def _vector(energy: Array, values: Array) -> str:
    """A table as Geant4's G4PhysicsVector reads it."""
    head = f"{energy[0]:.8g} {energy[-1]:.8g} {len(energy)}\n{len(energy)}\n"
    return head + "".join(_line(pair) for pair in zip(energy, values, strict=True))


def _write_photoelectric(directory: Path, z: int) -> None:
    energy = np.logspace(-3, np.log10(HIGHEST / 1e3), 400)
    sigma, powers = photoelectric(z, energy)
    low = energy <= SPLIT * 1.02
    (directory / f"pe-cs-{z}.dat").write_text(_vector(energy[low], (sigma * energy**3)[low]))
    for name, start in (("high", SPLIT * 1.0001), ("low", SPLIT)):
        (directory / f"pe-{name}-{z}.dat").write_text(f"1 1 {start}\n{_line([1e-3, *powers])}")


def _write_rayleigh(path: Path, z: int) -> None:
    xraylib = _xraylib()
    energy = np.logspace(-3, np.log10(HIGHEST / 1e3), 120)
    barn = np.array([xraylib.CSb_Rayl(z, float(e)) for e in np.clip(energy * 1e3, LOWEST, HIGHEST)])
    path.write_text(_vector(energy, barn * 1e-22 * energy**2))  # in mm^2 MeV^2
