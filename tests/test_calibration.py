"""Calibration, rejection in bins and sculpting: by hand, against scikit-learn and scipy, and in known cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from cloudchamber.metrics import binned_rejection, jensen_shannon, rejection, reliability, sculpting, threshold

calibration = pytest.importorskip("sklearn.calibration")


def test_reliability_by_hand() -> None:
    found = reliability([0.1, 0.2, 0.3, 0.6, 0.8, 1.0], [0, 1, 0, 1, 1, 0], bins=2)
    assert found.edges.tolist() == [0, 0.5, 1]
    assert found.predicted == pytest.approx([0.2, 0.8])
    assert (found.observed.passed.tolist(), found.observed.total.tolist()) == ([1, 2], [3, 3])
    assert found.error == pytest.approx(0.5 * abs(1 / 3 - 0.2) + 0.5 * abs(2 / 3 - 0.8))
    empty = reliability([0.9], [1], bins=3)
    assert np.isnan(empty.predicted[:2]).all()
    assert empty.error == pytest.approx(0.1)
    assert math.isnan(reliability([], [], bins=3).error)


def test_reliability_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(1)
    probability = random.random(500)
    true = random.random(500) < probability**2
    observed, predicted = calibration.calibration_curve(true, probability, n_bins=8)
    found = reliability(probability, true, 8)
    assert found.observed.value == pytest.approx(observed)
    assert found.predicted == pytest.approx(predicted)
    assert found.error == pytest.approx(1 / 6, abs=0.04)  # the integral of p - p^2


def test_honest_probabilities_are_within_their_errors() -> None:
    random = np.random.default_rng(2)
    probability = random.random(20_000)
    found = reliability(probability, random.random(20_000) < probability, 20)
    inside = (found.observed.low <= found.predicted) & (found.predicted <= found.observed.high)
    assert 9 <= inside.sum() <= 19
    assert found.error < 0.02


def test_what_are_no_probabilities() -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        reliability([1.1], [1])
    with pytest.raises(ValueError, match="from 0 to 1"):
        reliability([np.nan], [1])
    with pytest.raises(ValueError, match="one length"):
        reliability([0.1, 0.2], [1])


def test_rejection_in_bins_is_that_of_the_events_inside() -> None:
    random = np.random.default_rng(3)
    score, true, pt = random.random(400), random.random(400) < 0.5, random.uniform(0, 3, 400)
    pt[:2] = 2.0, 3.0
    value, low, high = binned_rejection(score, true, pt, [0, 1, 2, 3, 4], 0.5)
    for i in range(3):
        inside = (pt >= i) & ((pt < i + 1) | (pt == 3))
        inside &= ~((pt == 3) & (i == 2))  # closed below, open above
        expected = rejection(score[inside], true[inside], 0.5)
        assert (value[i], low[i], high[i]) == (expected.value, expected.low, expected.high)
    assert np.isnan([value[3], low[3], high[3]]).all()  # one event, which is of one kind
    value, *_ = binned_rejection(score, true, pt, [0, 3], 0.5)
    assert value[0] == rejection(score, true, 0.5).value  # the last bin is closed


def test_divergence_by_hand_and_as_in_scipy() -> None:
    assert jensen_shannon([1, 2, 3], [10, 20, 30]) == pytest.approx(0, abs=1e-15)
    assert jensen_shannon([1, 1, 0, 0], [0, 0, 3, 1]) == pytest.approx(1)
    # p = (1, 0), q = (1/2, 1/2), m = (3/4, 1/4)
    by_hand = 0.5 * math.log2(4 / 3) + 0.5 * (0.5 * math.log2(2 / 3) + 0.5 * math.log2(2))
    assert jensen_shannon([5, 0], [2, 2]) == pytest.approx(by_hand)
    assert math.isnan(jensen_shannon([0, 0], [1, 2]))
    one, other = np.random.default_rng(4).integers(0, 9, (2, 30))
    assert jensen_shannon(one, other) == pytest.approx(jensenshannon(one, other, base=2) ** 2)


def test_a_cut_on_the_mass_sculpts_it_and_a_random_one_does_not() -> None:
    random = np.random.default_rng(5)
    true = np.repeat([True, False], [500, 4000])
    mass = np.where(true, random.normal(170, 10, 4500), random.exponential(60, 4500))
    edges = np.linspace(0, 300, 31)
    close = sculpting(-np.abs(mass - 170), true, mass, edges, 0.5)
    assert close.divergence > 0.5 > 0.25 > close.chance
    assert close.before.sum() == (~true & (mass <= 300)).sum()
    limit = threshold(-np.abs(mass - 170), true, 0.5)
    assert close.after.sum() == (np.abs(mass[~true] - 170) <= -limit).sum()
    blind = sculpting(random.random(4500), true, mass, edges, 0.5)
    assert blind.divergence == pytest.approx(blind.chance, rel=0.5)
    assert blind.after.sum() == pytest.approx(2000, rel=0.1)


def test_a_cut_that_keeps_no_background() -> None:
    found = sculpting([3, 2, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1], [0, 2], 1.0)
    assert math.isnan(found.divergence)
    assert math.isnan(found.chance)
    assert found.after.tolist() == [0]
