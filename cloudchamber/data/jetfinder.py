"""From generated collisions to jets: Pythia's record as columns, and FastJet's anti-kT jets of what is seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cloudchamber.data import ancestry, pythia
from cloudchamber.data.transport import Array, Table
from cloudchamber.errors import UserError

INSTALL = "simulating jets needs pythia8mc and fastjet: pip install 'cloudchamber[simulate]' ({error})"


class Record:
    """What happened in some collisions, all particles end to end; collision i has rows ``starts[i]:starts[i + 1]``.

    ``columns``: ``pdg``, ``status``, ``daughter1``, ``daughter2`` (rows within the collision), ``px``, ``py``, ``pz``,
    ``energy`` (GeV).
    """

    def __init__(self, particles: Any, charges: pythia.Charges) -> None:
        import awkward

        self.particles, self.charges = particles, charges
        self.starts = np.concatenate([[0], np.cumsum(awkward.to_numpy(awkward.num(particles.id)))])
        momentum = particles.p
        fields = {"pdg": particles.id, "status": particles.status, "px": momentum.px, "py": momentum.py}
        fields |= {"pz": momentum.pz, "energy": momentum.e}
        fields |= {"daughter1": particles.daughter1, "daughter2": particles.daughter2}
        self.columns: Table = {name: pythia.flat(field) for name, field in fields.items()}

    def of(self, collision: int) -> Table:
        """The columns of one collision."""
        rows = slice(self.starts[collision], self.starts[collision + 1])
        return {name: column[rows] for name, column in self.columns.items()}

    @cached_property
    def vertices(self) -> Table:
        """Where each particle was made: ``vx``, ``vy``, ``vz`` in mm."""
        place = self.particles.vProd
        return {"vx": pythia.flat(place.px), "vy": pythia.flat(place.py), "vz": pythia.flat(place.pz)}

    @cached_property
    def ancestry(self) -> Table:
        """``origin`` and ``vertex`` of each particle, see ``ancestry.ancestry``."""
        mother = pythia.flat(self.particles.mother1).astype(np.int64)
        first = np.repeat(self.starts[:-1], np.diff(self.starts))
        mother = np.where(mother > 0, first + mother, -1)
        return ancestry.ancestry({"pdg": self.columns["pdg"], "mother1": mother, **self.vertices})


@dataclass(frozen=True)
class Jet:
    """A jet: its collision, the rows of its constituents in what was clustered, ``pt``, ``eta``, ``phi``, ``mass``."""

    collision: int
    rows: Array
    scene: dict[str, float]


class JetFinder:
    """Finds the hardest anti-kT jet of each collision, if it lies in the wanted range.

    M. Cacciari, G. P. Salam, G. Soyez, arXiv:0802.1189 and arXiv:1111.6097; recombination adds four-momenta.
    """

    def __init__(self, radius: float, pt_min: float, pt_max: float, eta_max: float) -> None:
        """pT in GeV. Raises ``UserError`` when fastjet is missing."""
        try:
            import fastjet
        except ImportError as error:
            raise UserError(INSTALL.format(error=error)) from None
        fastjet._swig.ClusterSequence.set_fastjet_banner_stream(None)
        self.sequence = fastjet.ClusterSequence
        self.definition = fastjet.JetDefinition(fastjet.antikt_algorithm, radius)
        self.pt_min, self.pt_max, self.eta_max = pt_min, pt_max, eta_max

    def hardest(self, seen: Table, edges: Array) -> Iterator[Jet]:
        """The jets of particles ``px``, ``py``, ``pz``, ``energy`` (GeV); collision i has ``edges[i]:edges[i + 1]``."""
        import awkward

        columns = {"px": seen["px"], "py": seen["py"], "pz": seen["pz"], "E": seen["energy"]}
        array = awkward.unflatten(awkward.zip(columns, with_name="Momentum4D"), np.diff(edges))
        sequence = self.sequence(array, self.definition)
        jets, members = sequence.inclusive_jets(min_pt=self.pt_min), sequence.constituent_index(min_pt=self.pt_min)
        px, py, pz, energy = (pythia.flat(jets[name]) for name in ("px", "py", "pz", "E"))
        pt = np.hypot(px, py)
        owner = np.repeat(np.arange(len(edges) - 1), awkward.to_numpy(awkward.num(jets)))
        sizes = awkward.to_numpy(awkward.flatten(awkward.num(members, axis=2)))
        ends, parts = np.cumsum(sizes), awkward.to_numpy(awkward.flatten(members, axis=None))
        order = np.lexsort((-pt, owner))
        for jet in order[np.unique(owner[order], return_index=True)[1]]:
            eta = np.arcsinh(pz[jet] / pt[jet])
            if self.pt_min < pt[jet] < self.pt_max and abs(eta) < self.eta_max:
                mass = max(energy[jet] ** 2 - pt[jet] ** 2 - pz[jet] ** 2, 0.0) ** 0.5
                scene = {"pt": pt[jet], "eta": eta, "phi": np.arctan2(py[jet], px[jet]), "mass": mass}
                rows = edges[owner[jet]] + parts[ends[jet] - sizes[jet] : ends[jet]]
                yield Jet(int(owner[jet]), rows, scene)
