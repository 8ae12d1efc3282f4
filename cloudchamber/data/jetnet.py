"""Jets of JetNet: HDF5 with one kind of jets per file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Self

import numpy as np

from cloudchamber.data.jetcolumns import from_angles, to_event
from cloudchamber.data.jetfile import JetFile, opened_hdf5, reading
from cloudchamber.errors import UserError
from cloudchamber.event import Event

#: What the names of files stand for.
KINDS = {"g": "gluon", "q": "quark", "t": "top", "w": "w", "z": "z"}


class JetNet(JetFile):
    """JetNet: ``particle_features`` (jets, 30 or 150, [eta_rel, phi_rel, pt_rel, mask]) and ``jet_features`` (jets,
    [pt, eta, mass, number of particles]).

    R. Kansal et al., arXiv:2106.11535, https://zenodo.org/records/6975118. Constituents are massless and taken relative
    to the jet; as its phi is not given it is 0 here. The file's name tells the kind: g, q, t, w, z, as in
    ``t150.hdf5``.
    """

    suffixes = (".h5", ".hdf5")
    mark = "particle_features and jet_features"
    labels: tuple[str, ...] = tuple(KINDS.values())

    @classmethod
    def open(cls, path: Path) -> Self | None:
        """See ``JetFile``."""
        with opened_hdf5(path) as file, reading(path):
            return cls(path, file) if "particle_features" in file else None

    def __init__(self, path: Path, file: Any) -> None:
        self.path = path
        match = re.fullmatch(r"([gqtwz])\d*", path.stem)
        if match is None:
            raise UserError(
                f"{path}: expected the kind of jet as the name, such as t.hdf5 or t150.hdf5: g, q, t, w or z"
            )
        self.label = list(KINDS).index(match[1])
        for name, width, dimensions in (("particle_features", 4, 3), ("jet_features", 4, 2)):
            shape = getattr(file.get(name), "shape", None)
            if shape is None or len(shape) != dimensions or shape[-1] < width:
                wanted = "(jets, particles, 4)" if dimensions == 3 else "(jets, 4)"
                raise UserError(f"{path}: {name}: expected shape {wanted}, found {shape or 'nothing'}")
        self.jets = len(file["jet_features"])
        if len(file["particle_features"]) != self.jets:
            raise UserError(f"{path}: particle_features: expected {self.jets} jets as in jet_features")

    def __len__(self) -> int:
        return self.jets

    def range(self, first: int, last: int) -> Event:
        """See ``JetFile``."""
        self.check(first, last)
        with opened_hdf5(self.path) as file, reading(self.path):
            particles = file["particle_features"][first:last].astype(np.float64)
            features = file["jet_features"][first:last].astype(np.float64)
        there = particles[..., 3] > 0.5
        count = there.sum(axis=1)
        pt, eta = (np.repeat(features[:, i], count) for i in range(2))
        eta_rel, phi_rel, pt_rel = (particles[..., i][there] for i in range(3))
        scene = {"label": np.full(len(features), self.label), "pt": features[:, 0], "eta": features[:, 1]}
        scene |= {"phi": np.zeros(len(features)), "mass": features[:, 2]}
        point = from_angles(pt * pt_rel, eta + eta_rel, phi_rel, 0.0)
        return to_event(self.path, first, count, point, scene, dict.fromkeys(point, "particle_features"))
