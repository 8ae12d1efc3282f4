"""How crowded the surroundings of a particle are."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from cloudchamber.event import Event
from cloudchamber.metrics.cluster import column
from cloudchamber.metrics.fraction import Floats, sums


def local_density(truth: Event, radius: float = 10.0) -> Floats:
    """The mean number of other hits within ``radius`` (mm) of a hit of each particle, shape ``(particles,)``.

    Hits of other particles and of noise count, in three dimensions; NaN for a particle without hits. Raises
    ``UserError`` when x, y, z or ``object`` is missing in ``point``.
    """
    xyz = np.stack([column(truth, "point", name) for name in "xyz"], axis=1).astype(np.float64)
    particle, event = column(truth, "point", "object"), truth.index("point").numpy()
    pairs = cKDTree(xyz).query_pairs(radius, output_type="ndarray") if len(xyz) else np.zeros((0, 2), np.int64)
    apart = (particle[pairs[:, 0]] != particle[pairs[:, 1]]) | (particle[pairs[:, 0]] < 0)
    pairs = pairs[apart & (event[pairs[:, 0]] == event[pairs[:, 1]])]
    near = np.bincount(pairs.ravel(), minlength=len(xyz))
    owned, number = particle >= 0, truth.rows("object")
    hits = np.bincount(particle[owned], minlength=number)
    with np.errstate(invalid="ignore"):
        return sums(particle[owned], near[owned].astype(np.float64), number) / hits
