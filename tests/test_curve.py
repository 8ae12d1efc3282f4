"""Scores of classifiers: by hand, against scikit-learn, and what their errors cover."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cloudchamber.metrics import Fraction, accuracy, auc, rejection, roc

metrics = pytest.importorskip("sklearn.metrics")


def drawn(signal: int, background: int, seed: int = 0, digits: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    score = np.concatenate([random.normal(1, 1, signal), random.normal(0, 1, background)])
    true = np.repeat([True, False], [signal, background])
    return (score if digits is None else score.round(digits)), true


def test_accuracy_by_hand() -> None:
    probability = [[0.9, 0.1, 0.0], [0.2, 0.3, 0.5], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]]
    assert accuracy(probability, [0, 2, 0, -1]) == Fraction(np.asarray(2), np.asarray(3))
    assert math.isnan(float(accuracy(np.zeros((0, 2)), [])))
    with pytest.raises(ValueError, match="no class"):
        accuracy(probability, [0, 1, 2, 3])
    with pytest.raises(ValueError, match="expected"):
        accuracy(probability, [0, 1])


def test_the_curve_by_hand() -> None:
    efficiency, mistaken, threshold = roc([0.9, 0.8, 0.8, 0.3, 0.1], [1, 1, 0, 0, 1])
    assert efficiency.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 2 / 3, 1])
    assert mistaken.tolist() == pytest.approx([0, 0, 1 / 2, 1, 1])
    assert threshold.tolist() == [np.inf, 0.9, 0.8, 0.3, 0.1]
    # pairs: 0.9 beats both, 0.8 beats 0.3 and ties with 0.8, 0.1 beats none
    assert auc([0.9, 0.8, 0.8, 0.3, 0.1], [1, 1, 0, 0, 1]).value == pytest.approx((2 + 1.5 + 0) / 6)


@pytest.mark.parametrize("digits", [None, 1, 0])
@pytest.mark.parametrize(("signal", "background"), [(300, 700), (1, 5), (5, 1)])
def test_the_area_is_that_of_scikit_learn(signal: int, background: int, digits: int | None) -> None:
    score, true = drawn(signal, background, digits=digits)
    found = auc(score, true)
    assert found.value == pytest.approx(metrics.roc_auc_score(true, score), abs=1e-12)
    assert 0 <= found.low <= found.value <= found.high <= 1
    efficiency, mistaken, _ = roc(score, true)
    under = np.diff(mistaken) * (efficiency[1:] + efficiency[:-1]) / 2
    assert under.sum() == pytest.approx(found.value, abs=1e-12)


def test_rejection_by_hand() -> None:
    score = [10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 9.5, 7, 6.5, 0.5, 0.4, 0.3, 0.2, 0.1]
    signal = [1] * 10 + [0] * 8
    assert rejection(score, signal, 0.5).value == pytest.approx(8 / 3)  # the 5th is 6: 9.5, 7 and 6.5 pass
    assert rejection(score, signal, 0.3).value == pytest.approx(8 / 1)
    assert rejection(score, signal, 0.4).value == pytest.approx(8 / 2)  # the 4th is 7, and one of background has 7
    none = rejection(score, signal, 0.1)
    assert none.value == none.high == math.inf
    assert none.low == pytest.approx(1 / float(Fraction(np.asarray(0), np.asarray(8)).high))
    half = rejection(score, signal, 0.5)
    kept = Fraction(np.asarray(3), np.asarray(8))
    assert (half.low, half.high) == pytest.approx((1 / float(kept.high), 1 / float(kept.low)))
    assert str(half).startswith("2.667 +")


def test_errors_cover_what_repetition_shows() -> None:
    areas = [auc(*drawn(200, 400, seed)) for seed in range(200)]
    truth = 0.5 * (1 + math.erf(0.5))  # P(N(1, 1) > N(0, 1))
    inside = np.mean([found.low <= truth <= found.high for found in areas])
    assert 0.6 < inside < 0.76
    spread = np.std([found.value for found in areas])
    assert np.mean([(found.high - found.low) / 2 for found in areas]) == pytest.approx(spread, rel=0.15)


def test_what_is_no_score() -> None:
    with pytest.raises(ValueError, match="both"):
        auc([0.1, 0.2], [1, 1])
    with pytest.raises(ValueError, match=r"event 1 has none"):
        roc([0.1, np.nan], [1, 0])
    with pytest.raises(ValueError, match="one length"):
        auc([0.1], [1, 0])
    with pytest.raises(ValueError, match="efficiency"):
        rejection([0.1, 0.2], [1, 0], 0.0)
