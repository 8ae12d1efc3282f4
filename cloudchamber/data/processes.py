"""The processes that jets are simulated from: Pythia's settings, and the partons that a jet must contain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cloudchamber.data.transport import Array, Table
from cloudchamber.physics import delta_r, eta

#: Particles that decay before they fly, in decay chains that end with quarks.
RESONANCES = (6, 23, 24, 25)
_HADRONIC_W = ("24:onMode = off", "24:onIfAny = 1 2 3 4 5")
_INVISIBLE_Z = ("WeakZ0:gmZmode = 2", "23:onMode = off", "23:onIfAny = 12 14 16")


@dataclass(frozen=True)
class Process:
    """A source of jets.

    ``settings``: of Pythia, without the range of pT. ``parton``: the |PDG numbers| of which one must lie in the jet's
    cone, a resonance along with all quarks that it decays to; none: no jet is asked for its origin. ``into``: what
    these quarks may be.
    """

    settings: tuple[str, ...]
    parton: tuple[int, ...] = ()
    into: tuple[int, ...] = (1, 2, 3, 4, 5)


#: Top, W, Z and H decay to quarks, tops by way of a hadronic W. W, Z and H are made beside a Z, quark (u, d, s) and
#: gluon jets beside a Z that decays to neutrinos (as in arXiv:1810.05165). QCD: any 2 -> 2.
PROCESSES: dict[str, Process] = {
    "top": Process(("Top:gg2ttbar = on", "Top:qqbar2ttbar = on", *_HADRONIC_W), (6,)),
    "w": Process(("WeakDoubleBoson:ffbar2ZW = on", *_INVISIBLE_Z, *_HADRONIC_W), (24,)),
    "z": Process(("WeakDoubleBoson:ffbar2gmZgmZ = on", *_INVISIBLE_Z[:2], "23:onIfAny = 1 2 3 4 5 12 14 16"), (23,)),
    "hbb": Process(("HiggsSM:ffbar2HZ = on", *_INVISIBLE_Z, "25:onMode = off", "25:onIfMatch = 5 -5"), (25,), (5,)),
    "quark": Process(("WeakBosonAndParton:qg2gmZq = on", *_INVISIBLE_Z), (1, 2, 3)),
    "gluon": Process(("WeakBosonAndParton:qqbar2gmZg = on", *_INVISIBLE_Z), (21,)),
    "qcd": Process(
        tuple(f"HardQCD:{hard} = on" for hard in ("gg2gg", "gg2qqbar", "qg2qg", "qq2qq", "qqbar2gg", "qqbar2qqbarNew"))
    ),
}


def matched(process: Process, one: Table, axis: tuple[float, float], radius: float) -> bool:
    """Whether the partons that a process asks for lie within ``radius`` of an axis (eta, phi), all of one decay.

    ``one`` has Pythia's particles of one collision: ``pdg``, ``status``, ``daughter1``, ``daughter2``, ``px``, ``py``,
    ``pz``.
    """
    if not process.parton:
        return True
    pdg = np.abs(one["pdg"])
    resonance = process.parton[0] in RESONANCES
    candidates = np.isin(pdg, process.parton) & (resonance | (np.abs(one["status"]) == 23))
    for row in np.flatnonzero(candidates).tolist():
        quarks = _quarks(one, pdg, row, process.into) if resonance else []
        decays = resonance and pdg[row] not in pdg[_daughters(one, row)]  # or else it radiates first
        if (decays and quarks) or not resonance:
            px, py, pz = (one[name][[row, *quarks]] for name in ("px", "py", "pz"))
            if (delta_r(eta(px, py, pz), np.arctan2(py, px), *axis) < radius).all():
                return True
    return False


def _daughters(one: Table, row: int) -> list[int]:
    """The rows of the daughters of a particle in Pythia's record."""
    first, last = int(one["daughter1"][row]), int(one["daughter2"][row])
    if first == 0:
        return []
    return [first] if last in (0, first) else [first, last] if last < first else list(range(first, last + 1))


def _quarks(one: Table, pdg: Array, row: int, into: tuple[int, ...]) -> list[int]:
    """The rows of the quarks that a resonance decays to, by way of others; none if it decays to anything else."""
    found: list[int] = []
    for daughter in _daughters(one, row):
        if pdg[daughter] in RESONANCES:
            quarks = _quarks(one, pdg, daughter, into)
            if not quarks:
                return []
            found += quarks
        elif pdg[daughter] in into:
            found.append(daughter)
        elif pdg[daughter] not in (21, 22):  # radiated with a copy of the resonance
            return []
    return found
