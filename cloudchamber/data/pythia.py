"""Pythia 8, the event generator: started with settings, its events as numpy columns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloudchamber.errors import UserError


def start(settings: Iterable[str], energy_gev: float, install: str) -> Any:
    """A generator of proton collisions with these settings, quiet; the caller seeds it with ``rndm.init``.

    Raises ``UserError`` when pythia8mc is missing (``install`` with the ``{error}`` filled in), does not know a setting
    or cannot start with them.
    """
    try:
        import pythia8mc
    except ImportError as error:
        raise UserError(install.format(error=error)) from None
    settings = list(settings)
    generator = pythia8mc.Pythia("", False)
    common = ("Print:quiet = on", "Beams:idA = 2212", "Beams:idB = 2212", f"Beams:eCM = {energy_gev}")
    for setting in (*common, "Random:setSeed = on", *settings):
        if not generator.readString(setting, False):
            raise UserError(f"Pythia does not know the setting {setting!r}")
    if not generator.init():
        raise UserError(f"Pythia cannot start with the settings {settings}")
    return generator


def flat(column: Any) -> NDArray[Any]:
    """The values of a ragged column end to end; 0 where there is none, as for a vertex at the origin."""
    import awkward

    values: NDArray[Any] = awkward.to_numpy(awkward.fill_none(awkward.flatten(column), 0))
    return values


class Charges:
    """The charges of particles by their PDG number, each asked of Pythia once."""

    def __init__(self, generator: Any) -> None:
        self.data, self.known = generator.particleData, dict[int, float]()

    def __call__(self, pdg: NDArray[Any]) -> NDArray[np.float64]:
        """Charge in e, shape as ``pdg``."""
        types, which = np.unique(pdg, return_inverse=True)
        for kind in set(types.tolist()) - self.known.keys():
            self.known[kind] = self.data.charge(kind)
        return np.array([self.known[kind] for kind in types.tolist()], np.float64)[which]
