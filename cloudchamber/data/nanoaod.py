"""Jets of CMS NanoAOD with PF candidates (PFNano): ROOT trees of collisions, each with some jets."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np

from cloudchamber.data.jetcolumns import from_angles, to_event
from cloudchamber.data.jetfile import (
    JetFile,
    flat,
    opened_root,
    reading,
    require_columns,
    require_finite,
    trees,
)
from cloudchamber.data.smear import CHARGED, ELECTRON, MUON, NEUTRAL, PHOTON
from cloudchamber.data.transport import Array, Table
from cloudchamber.errors import UserError
from cloudchamber.event import Event

#: A candidate's and a link's collection, and the column of the link that tells the candidate: PFNano, NanoAOD 15.
LINKS = (("PFCands", "FatJetPFCands", "pFCandsIdx"), ("PFCand", "FatJetPFCand", "pfCandIdx"))
#: |PDG numbers| of candidates -> types; 1 and 2 are those of the forward calorimeter. Others are charged hadrons.
KINDS = {11: ELECTRON, 13: MUON, 22: PHOTON, 2: PHOTON, 130: NEUTRAL, 1: NEUTRAL}
#: Our columns of tracks -> theirs.
TRACK = {"d0": "d0", "sigma_d0": "d0Err", "z0": "dz", "sigma_z0": "dzErr"}


class NanoAOD(JetFile):
    """CMS NanoAOD with PF candidates: of each event the ``FatJet`` (AK8) jets with their candidates, by index.

    PFNano (https://github.com/cms-jet/PFNano): ``FatJetPFCands_jetIdx`` and ``FatJetPFCands_pFCandsIdx`` link
    ``FatJet_pt``, ... with ``PFCands_pt``, ``eta``, ``phi``, ``mass`` (GeV), ``pdgId`` and, where there,
    ``charge``, ``d0``, ``d0Err``, ``dz``, ``dzErr`` (cm; errors of -1 without a track). NanoAOD 15 has ``FatJetPFCand``
    and ``PFCand``. There are no labels. Weights of candidates are not applied.
    """

    suffixes = (".root",)
    mark = "a tree with FatJetPFCands_pFCandsIdx"
    labels: tuple[str, ...] = ()

    @classmethod
    def open(cls, path: Path) -> Self | None:
        """See ``JetFile``."""
        with opened_root(path) as file, reading(path):
            for tree, columns in trees(file).items():
                for candidate, link, index in LINKS:
                    if f"{link}_{index}" in columns:
                        return cls(path, file, tree, (candidate, link, index))
        return None

    def __init__(self, path: Path, file: Any, tree: str, link: tuple[str, str, str]) -> None:
        self.path, self.tree, self.link = path, tree, link
        columns = set(file[tree].keys())
        candidate, name, index = link
        self.jet = {column: f"FatJet_{column}" for column in ("pt", "eta", "phi", "mass")}
        self.candidate = {column: f"{candidate}_{column}" for column in ("pt", "eta", "phi", "mass", "pdgId")}
        self.rows = {"jet": f"{name}_jetIdx", "candidate": f"{name}_{index}"}
        require_columns(path, tree, columns, [*self.jet.values(), *self.candidate.values(), *self.rows.values()])
        track = {ours: f"{candidate}_{theirs}" for ours, theirs in TRACK.items()}
        self.track = track if columns.issuperset(track.values()) else {}
        if f"{candidate}_charge" in columns:
            self.candidate["charge"] = f"{candidate}_charge"
        self.starts = np.concatenate([[0], np.cumsum(_counts(file[tree], self.jet["pt"]))])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def range(self, first: int, last: int) -> Event:
        """See ``JetFile``."""
        self.check(first, last)
        begin = int(np.searchsorted(self.starts, first, side="right")) - 1
        end = int(np.searchsorted(self.starts, last, side="left")) if last > first else begin
        columns = self.jet | {f"candidate {k}": v for k, v in (self.candidate | self.track).items()}
        columns |= {f"link {k}": v for k, v in self.rows.items()}
        with opened_root(self.path) as file, reading(self.path):
            table = file[self.tree].arrays(list(columns.values()), entry_start=begin, entry_stop=max(end, begin))
            candidates, jet = self._links(table, begin)
            values = {name: flat(table[theirs]) for name, theirs in columns.items() if not name.startswith("link")}
        chosen = slice(first - int(self.starts[begin]), last - int(self.starts[begin]))
        scene = {name: values[name][chosen].astype(np.float64) for name in self.jet}
        inside = (jet >= chosen.start) & (jet < chosen.stop)
        rows = candidates[inside][np.argsort(jet[inside], kind="stable")]
        count = np.bincount(jet[inside] - chosen.start, minlength=last - first)
        seen = {name.removeprefix("candidate "): c[rows] for name, c in values.items() if name.startswith("candidate")}
        owner = first + np.repeat(np.arange(len(count)), count)
        require_finite(self.path, owner, {(self.candidate | self.track)[name]: c for name, c in seen.items()})
        return to_event(self.path, first, count, self._point(seen), scene, self.jet)

    def _links(self, table: Any, begin: int) -> tuple[Array, Array]:
        """Of each link its candidate and its jet, as rows of the table laid end to end."""
        import awkward

        columns = {"jet": self.jet["pt"], "candidate": self.candidate["pt"], "link": self.rows["jet"]}
        counts = {name: awkward.to_numpy(awkward.num(table[column])) for name, column in columns.items()}
        event = np.repeat(np.arange(len(table)), counts["link"])
        found = []
        for name in ("candidate", "jet"):
            column = flat(table[self.rows[name]]).astype(np.int64)
            good = (column >= 0) & (column < counts[name][event])
            if not good.all():
                place = int(np.argmin(good))
                rest = f"expected a row of {self.link[0] if name == 'candidate' else 'FatJet'}, found {column[place]}"
                raise UserError(f"{self.path}: event {begin + event[place] + 1}, column {self.rows[name]}: {rest}")
            found.append(column + (np.cumsum(counts[name]) - counts[name])[event])
        return found[0], found[1]

    def _point(self, seen: Table) -> Table:
        point = from_angles(seen["pt"], seen["eta"], seen["phi"], seen["mass"].astype(np.float64))
        pdg = np.abs(seen["pdgId"].astype(np.int64))
        point["type"] = np.full(len(pdg), CHARGED)
        for number, kind in KINDS.items():
            point["type"][pdg == number] = kind
        neutral = np.isin(point["type"], (PHOTON, NEUTRAL))
        lepton = np.isin(point["type"], (ELECTRON, MUON))
        sign = np.sign(seen["pdgId"].astype(np.int64)) * np.where(lepton, -1, 1)
        point["charge"] = seen.get("charge", np.where(neutral, 0, sign)).astype(np.float64)
        for name in self.track:
            there = seen[f"sigma_{name.removeprefix('sigma_')}"] > 0
            point[name] = np.where(there, 10.0 * seen[name], 0.0)  # cm -> mm
        return point


def _counts(tree: Any, column: str) -> Array:
    """The number of values of each event, from the counter where there is one."""
    import awkward

    counter = f"n{column.split('_')[0]}"
    if counter in tree.keys():  # noqa: SIM118  a tree is no mapping
        counts: Array = tree[counter].array(library="np")
        return counts.astype(np.int64)
    return np.asarray(awkward.num(tree[column].array()))
