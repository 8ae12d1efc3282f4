"""Calorimeter clusters against showers: efficiency, fakes, splits, energy response and separation of close pairs.

A cluster and a shower share the energy that the shower has left in the cluster's points. They *match* when that is more
than half of what the shower has left in all points and more than half of the cluster's energy, noise included: double
majority by energy, so that a shower has one cluster at most, and a cluster one shower. A cluster of which no shower has
more than half is *fake*; one that is mostly of a shower, but has not more than half of it, is *split* off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from cloudchamber.errors import UserError
from cloudchamber.event import Event
from cloudchamber.metrics.cluster import column
from cloudchamber.metrics.fraction import Floats, Fraction, Ints, Mask, sums
from cloudchamber.metrics.resolution import Width


@dataclass(frozen=True, kw_only=True)
class Showers:
    """Showers and clusters of one event or many, and how they match.

    ``energy``, ``measured``, ``distance``, ``(showers,)``: true energy (GeV), that of the matched cluster (NaN without)
    and the distance to the nearest shower of the event (mm, infinite without). ``visible``: whether a shower has left
    anything. ``pair``, ``(pairs, 2)``: rows of showers of one event nearer than ``reach`` mm, ``apart`` their distance.
    ``cluster_energy``, ``fake`` and ``split``, ``(clusters,)``: of clusters with points.
    """

    energy: Floats
    measured: Floats
    distance: Floats
    visible: Mask
    pair: Ints
    apart: Floats
    cluster_energy: Floats
    fake: Mask
    split: Mask

    @classmethod
    def of(cls, predicted: Event, truth: Event, reach: float) -> Showers:
        """Compare the ``point.object`` of a prediction with the showers of the truth, whose points are the same.

        The truth has ``point.energy``, ``object.energy``, ``x`` and ``y`` (mm) and the level ``cell``: what each object
        has left in each point; without it a point is all of its object. A cluster's energy is the column
        ``object.energy`` of the prediction, or the sum over its points. Raises ``UserError`` when a column is missing
        or the points are not the same.
        """
        label = column(predicted, "point", "object")
        if not np.array_equal(predicted.count["point"].numpy(), truth.count["point"].numpy()):
            raise UserError("showers: the prediction has other points than the truth")
        clusters, showers = predicted.rows("object"), truth.rows("object")
        deposit = _deposits(truth, column(truth, "point", "energy"))
        points = sums(label[label >= 0], column(truth, "point", "energy")[label >= 0], clusters)
        matched, fake, split, left = _match(label[deposit["point"]], deposit, points, showers)
        energy = column(predicted, "object", "energy") if "energy" in predicted.object else points
        xy = np.stack([column(truth, "object", name) for name in ("x", "y")], axis=1).astype(np.float64)
        pair, apart, distance = _near(xy, truth.index("object").numpy(), reach)
        kept = points > 0
        return cls(
            energy=column(truth, "object", "energy").astype(np.float64),
            measured=np.append(energy, np.nan)[matched].astype(np.float64),
            distance=distance,
            visible=left > 0,
            pair=pair,
            apart=apart,
            cluster_energy=np.asarray(energy, np.float64)[kept],
            fake=fake[kept],
            split=split[kept],
        )

    @staticmethod
    def join(parts: list[Showers]) -> Showers:
        """Those of several events, one after the other."""
        offset = np.cumsum([0, *(len(part.energy) for part in parts)])
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])}
        columns["pair"] = np.concatenate([part.pair + start for part, start in zip(parts, offset, strict=False)])
        return Showers(**columns)

    @property
    def found(self) -> Mask:
        """Showers with a cluster."""
        return ~np.isnan(self.measured)

    def efficiency(self, values: ArrayLike | None = None, bins: ArrayLike | None = None) -> Fraction:
        """Matched showers out of those that have left anything, in ``bins`` of ``values`` per shower."""
        kept = self.visible
        return Fraction.of(self.found[kept], None if values is None else np.asarray(values)[kept], bins)

    def fake_rate(self, least: float = 0.0) -> Fraction:
        """Fake clusters out of those of at least so much energy (GeV)."""
        return Fraction.of(self.fake[self.cluster_energy >= least])

    def split_rate(self, least: float = 0.0) -> Fraction:
        """Split clusters out of those of at least so much energy (GeV)."""
        return Fraction.of(self.split[self.cluster_energy >= least])

    def separation(self, bins: ArrayLike | None = None) -> Fraction:
        """Pairs of showers within ``reach`` of which both have a cluster, out of all, in ``bins`` of their distance."""
        both: Mask = np.all(self.found[self.pair], axis=1)
        return Fraction.of(both, None if bins is None else self.apart, bins)

    def response(self, values: ArrayLike, bins: ArrayLike) -> list[Width]:
        """Measured over true energy of matched showers in bins of ``values``, ``(showers,)``: median and half width.

        The energy resolution is ``value / median``, half of the middle 68.3% over the median.
        """
        place, share = np.digitize(np.asarray(values), np.asarray(bins)) - 1, self.measured / self.energy
        return [Width.of(share[place == bin_]) for bin_ in range(len(np.asarray(bins)) - 1)]


def _deposits(truth: Event, energy: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """What objects have left in points: ``point``, ``object`` and ``energy``, one row each."""
    if truth.cell:
        return {name: column(truth, "cell", name) for name in ("point", "object", "energy")}
    owner = column(truth, "point", "object")
    rows = np.flatnonzero(owner >= 0)
    return {"point": rows, "object": owner[rows], "energy": energy[rows]}


def _match(
    label: Ints, deposit: dict[str, NDArray[Any]], points: Floats, showers: int
) -> tuple[Ints, Mask, Mask, Floats]:
    """The cluster of each shower or -1, fake and split clusters, and what each shower has left."""
    left = sums(deposit["object"], deposit["energy"], showers)
    rows = label >= 0
    key, which = np.unique(label[rows] * max(showers, 1) + deposit["object"][rows], return_inverse=True)
    shared = sums(which, deposit["energy"][rows], len(key))
    cluster, shower = key // max(showers, 1), key % max(showers, 1)
    pure = shared > 0.5 * points[cluster]
    whole = shared > 0.5 * left[shower]
    matched = np.full(showers, -1)
    matched[shower[pure & whole]] = cluster[pure & whole]
    fake, split = np.ones(len(points), bool), np.zeros(len(points), bool)
    fake[cluster[pure]] = False
    split[cluster[pure & ~whole]] = True
    return matched, fake, split, left


def _near(xy: Floats, event: Ints, reach: float) -> tuple[Ints, Floats, Floats]:
    """Pairs of one event within ``reach``, how far apart they are, and the distance of each row to its nearest."""
    if not len(xy):
        return np.empty((0, 2), np.int64), np.empty(0), np.empty(0)
    away = np.concatenate([xy, event[:, None] * (1e3 * reach + 1e6)], axis=1)
    tree = cKDTree(away)
    pair = tree.query_pairs(reach, output_type="ndarray").astype(np.int64)
    pair = pair[np.lexsort(pair.T[::-1])]
    distance = tree.query(away, k=2, distance_upper_bound=1e6)[0][:, 1]
    return pair, np.linalg.norm(xy[pair[:, 0]] - xy[pair[:, 1]], axis=1), distance
