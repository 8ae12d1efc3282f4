"""Jets of JetClass: ROOT trees of jets with lists of constituents."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np

from cloudchamber.data.jetcolumns import to_event
from cloudchamber.data.jetfile import JetFile, flat, opened_root, reading, require, require_columns, trees
from cloudchamber.event import Event

LABELS = ("QCD", "Hbb", "Hcc", "Hgg", "H4q", "Hqql", "Zqq", "Wqq", "Tbqq", "Tbl")
#: Our columns of constituents -> theirs.
MOMENTUM = {"px": "part_px", "py": "part_py", "pz": "part_pz", "energy": "part_energy"}
TRACK = {"charge": "part_charge", "d0": "part_d0val", "z0": "part_dzval"}
TRACK |= {"sigma_d0": "part_d0err", "sigma_z0": "part_dzerr"}
TYPES = tuple(f"part_is{kind}" for kind in ("ChargedHadron", "NeutralHadron", "Photon", "Electron", "Muon"))
JET = ("jet_pt", "jet_eta", "jet_phi", "jet_energy")


class JetClass(JetFile):
    """JetClass: a tree of jets with lists of constituents.

    H. Qu, C. Li, S. Qian, arXiv:2202.03772, https://zenodo.org/records/6619768: ``part_px``, ``part_py``, ``part_pz``,
    ``part_energy`` (GeV), ``part_charge``, ``part_isChargedHadron``, ..., ``part_d0val``, ``part_d0err``,
    ``part_dzval``, ``part_dzerr`` (mm), ``jet_pt``, ``jet_eta``, ``jet_phi``, ``jet_energy``, ``label_QCD``, ... The
    sign of d0 is that of Delphes there, the opposite of ours.
    """

    suffixes = (".root",)
    mark = "a tree with part_px"

    @classmethod
    def open(cls, path: Path) -> Self | None:
        """See ``JetFile``."""
        with opened_root(path) as file, reading(path):
            tree = next((name for name, columns in trees(file).items() if "part_px" in columns), None)
            return cls(path, file, tree) if tree else None

    def __init__(self, path: Path, file: Any, tree: str) -> None:
        self.path, self.tree = path, tree
        columns = set(file[tree].keys())
        self.labels = tuple(name for name in LABELS if f"label_{name}" in columns)
        self.track = {ours: name for ours, name in TRACK.items() if name in columns}
        self.types = TYPES if columns.issuperset(TYPES) else ()
        require_columns(path, tree, columns, [*MOMENTUM.values(), *JET])
        self.jets = int(file[tree].num_entries)

    def __len__(self) -> int:
        return self.jets

    def range(self, first: int, last: int) -> Event:
        """See ``JetFile``."""
        import awkward

        self.check(first, last)
        names = [*MOMENTUM.values(), *self.track.values(), *self.types, *JET]
        names += [f"label_{name}" for name in self.labels]
        with opened_root(self.path) as file, reading(self.path):
            table = file[self.tree].arrays(names, entry_start=first, entry_stop=last)
            count = awkward.to_numpy(awkward.num(table["part_px"]))
            for name in (*MOMENTUM.values(), *self.track.values(), *self.types):
                sizes = awkward.to_numpy(awkward.num(table[name]))
                require(self.path, sizes == count, first + np.arange(len(count)), name, sizes, "as many as of part_px")
            point = {ours: flat(table[name]) for ours, name in (MOMENTUM | self.track).items()}
            flags = np.stack([flat(table[name]) for name in self.types]) if self.types else None
            pt, eta, phi, energy = (awkward.to_numpy(table[name]).astype(np.float64) for name in JET)
            labels = [awkward.to_numpy(table[f"label_{name}"]) for name in self.labels]
        if "d0" in point:
            point["d0"] = 0 - point["d0"]
        if flags is not None:
            kinds, owner = (flags != 0).sum(axis=0), first + np.repeat(np.arange(len(count)), count)
            require(self.path, kinds == 1, owner, "part_is*", kinds, "one type of 1")
            point["type"] = flags.argmax(axis=0)
        mass = np.sqrt(np.maximum(energy**2 - (pt * np.cosh(eta)) ** 2, 0.0))
        scene = {"pt": pt, "eta": eta, "phi": phi, "mass": mass}
        if labels:
            marks = np.stack(labels)
            one = (marks != 0).sum(axis=0) == 1
            require(self.path, one, first + np.arange(len(one)), "label_*", (marks != 0).sum(axis=0), "one label of 1")
            scene = {"label": marks.argmax(axis=0), **scene}
        names_of_jets = dict(zip(("pt", "eta", "phi", "mass"), JET, strict=True))
        return to_event(self.path, first, count, point, scene, MOMENTUM | self.track | names_of_jets)
