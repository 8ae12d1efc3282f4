"""Scores of showers, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cloudchamber.errors import UserError
from cloudchamber.event import Event, batch
from cloudchamber.metrics import Showers


def _truth() -> Event:
    """Showers of 10, 5 and 1 GeV at x = 0, 20 and 300 mm; points 3 and 4 are shared, point 6 is noise."""
    energy = [6.0, 2.0, 1.0, 2.0, 2.0, 0.8, 0.5]
    cell = [(0, 0, 6.0), (1, 0, 2.0), (2, 0, 1.0), (3, 0, 1.2), (3, 1, 0.8), (4, 1, 1.8), (4, 0, 0.2), (5, 2, 0.8)]
    point, owner, deposit = zip(*cell, strict=True)
    return Event(
        point={"energy": torch.tensor(energy), "object": torch.tensor([0, 0, 0, 0, 1, 2, -1])},
        object={name: torch.tensor(values) for name, values in {
            "energy": [10.0, 5.0, 1.0], "x": [0.0, 20.0, 300.0], "y": [0.0, 0.0, 0.0]
        }.items()},
        cell={"point": torch.tensor(point), "object": torch.tensor(owner), "energy": torch.tensor(deposit)},
    )  # fmt: skip


def _found(label: list[int], energy: list[float] | None = None) -> Event:
    objects = max(label, default=-1) + 1
    values = torch.arange(objects) if energy is None else torch.tensor(energy)
    return Event(
        point={"object": torch.tensor(label, dtype=torch.int64)},
        object={"number" if energy is None else "energy": values},
    )


@pytest.mark.parametrize(
    ("label", "matched", "fake", "split"),
    [
        ([0, 0, 0, 0, 1, 2, -1], [11.0, 2.0, 0.8], [0, 0, 0], [0, 0, 0]),
        ([0, 0, 0, 0, 0, -1, -1], [13.0, np.nan, np.nan], [0], [0]),  # merged
        ([0, 1, 1, 1, 2, 3, 4], [6.0, 2.0, 0.8], [0, 0, 0, 0, 1], [0, 1, 0, 0, 0]),  # a piece, and a cluster of noise
        ([-1] * 7, [np.nan] * 3, [], []),
        ([0, 0, 0, 0, 1, 2, 2], [11.0, 2.0, 1.3], [0, 0, 0], [0, 0, 0]),  # 0.8 of 1.3 is the shower's
    ],
)
def test_clusters_match_the_shower_that_they_share_most_energy_with(label, matched, fake, split):  # type: ignore[no-untyped-def]
    showers = Showers.of(_found(label), _truth(), 22.0)
    np.testing.assert_allclose(showers.measured, matched, rtol=1e-6)
    assert showers.fake.tolist() == fake
    assert showers.split.tolist() == split
    assert showers.efficiency().passed == np.sum(~np.isnan(matched))
    assert (showers.fake_rate().passed, showers.fake_rate().total) == (sum(fake), len(fake))
    assert (showers.split_rate(3.0).passed, showers.split_rate(3.0).total) == (
        sum(split),
        np.sum(showers.cluster_energy >= 3),
    )


def test_pairs_and_distances_stay_within_an_event():
    truth = batch([_truth(), _truth()])
    showers = Showers.of(batch([_found([0, 0, 0, 0, 1, 2, -1]), _found([0, 0, 0, 0, 0, 1, -1])]), truth, 22.0)
    assert showers.pair.tolist() == [[0, 1], [3, 4]]
    np.testing.assert_allclose(showers.distance, [20, 20, 280] * 2)
    assert (showers.separation().passed, showers.separation().total) == (1, 2)
    assert showers.separation([0, 10, 22]).total.tolist() == [0, 2]
    both = Showers.join(
        [Showers.of(_found([0, 0, 0, 0, 1, 2, -1]), _truth(), 22.0), Showers.of(_found([0] * 7), _truth(), 22.0)]
    )
    assert both.pair.tolist() == [[0, 1], [3, 4]]
    assert both.separation().passed == 1


def test_a_predicted_energy_counts_before_the_sum_of_the_points():
    showers = Showers.of(_found([0, 0, 0, 0, 1, 2, -1], [9.0, 5.5, 0.9]), _truth(), 22.0)
    np.testing.assert_allclose(showers.measured / showers.energy, [0.9, 1.1, 0.9], rtol=1e-6)
    low, high = showers.response(showers.energy, [0.0, 2.0, 20.0])
    assert low.count == 1
    assert high.count == 2
    assert high.median == pytest.approx(1.0)
    assert high.value == pytest.approx(0.1 * 0.6826894921370859)


def test_without_shares_a_point_is_all_of_its_object():
    truth = _truth()
    plain = Event(point=truth.point, object=truth.object)
    showers = Showers.of(_found([0, 0, 0, 0, 1, 2, -1]), plain, 22.0)
    assert showers.efficiency().passed == 3


def test_a_shower_that_has_left_nothing_does_not_count():
    truth = _truth()
    few = Event(point={k: v[:5] for k, v in truth.point.items()}, object=truth.object)
    assert Showers.of(_found([0, 0, 0, 0, 1]), few, 22.0).efficiency().total == 2


def test_no_shower_and_no_cluster():
    none = Event(
        point={"energy": torch.zeros(0), "object": torch.zeros(0, dtype=torch.int64)},
        object={name: torch.zeros(0) for name in ("energy", "x", "y")},
    )
    showers = Showers.of(_found([]), none, 22.0)
    assert showers.efficiency().total == 0
    assert showers.separation().total == 0


def test_other_points_are_refused():
    with pytest.raises(UserError, match="other points"):
        Showers.of(_found([0, 0]), _truth(), 22.0)
