"""The V-measure against numbers worked out by hand and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import homogeneity_completeness_v_measure

from cloudchamber.errors import UserError
from cloudchamber.event import Event, batch
from cloudchamber.metrics import conditional_entropy, entropy, v_measure, v_score

labels = st.integers(-1, 5)
points = st.lists(st.tuples(labels, labels, st.integers(0, 9)), max_size=40)
many = settings(max_examples=40, deadline=None)


def cloud(objects: list[int], weights: list[float] | None = None) -> Event:
    point = {"id": torch.arange(len(objects)), "object": torch.tensor(objects, dtype=torch.int64)}
    if weights is not None:
        point["weight"] = torch.tensor(weights, dtype=torch.float64)
    return Event(point=point, object={"id": torch.arange(6)})


def test_entropy_by_hand() -> None:
    # Shares 1/2, 1/4, 1/4: H = 1/2 log 2 + 2 * 1/4 log 4 = 3/2 log 2.
    assert entropy([7, 7, 0, 9]) == pytest.approx(1.5 * math.log(2))
    # The same shares by weight.
    assert entropy([7, 0, 9], [2, 1, 1]) == pytest.approx(1.5 * math.log(2))
    # Cluster 0 holds classes 0, 0, 1 (H = log 3 - 2/3 log 2), cluster 1 one class; 3/4 of the points are in cluster 0.
    assert conditional_entropy([0, 0, 1, 1], [0, 0, 0, 1]) == pytest.approx(0.75 * (math.log(3) - 2 / 3 * math.log(2)))
    assert entropy([]) == 0
    assert entropy([3, 3, 3], [0.1, 0.2, 0.3]) == 0
    assert conditional_entropy([1, 1, 2], [5, 5, 6], [0.1, 0.2, 0.3]) == 0


def test_v_measure_by_hand() -> None:
    # Classes 0 0 1 1, clusters 0 0 1 2: pure, so h = 1. H(K) = 3/2 log 2, H(K|C) = 1/2 log 2: c = 1 - 1/3 = 2/3.
    # V = 2 h c / (h + c) = 4/5; beta = 2: 3 h c / (2 h + c) = 2 / (8/3) = 3/4.
    h, c, v = v_measure([0, 0, 1, 1], [0, 0, 1, 2])
    assert (float(h), float(c), float(v)) == pytest.approx((1, 2 / 3, 4 / 5))
    assert float(v_measure([0, 0, 1, 1], [0, 0, 1, 2], beta=2).v) == pytest.approx(3 / 4)
    # The last point of no weight: all agree.
    assert [float(x) for x in v_measure([0, 0, 1, 1], [0, 0, 1, 2], [1, 1, 1, 0])] == [1, 1, 1]
    # Independent labels: nothing is known.
    assert [float(x) for x in v_measure([0, 0, 1, 1], [0, 1, 0, 1])] == pytest.approx([0, 0, 0])


def test_noise_by_hand() -> None:
    # Particles 0 0 1 1 and two noise points; track 0 = {1, 2, noise}, track 1 = {3}, points 4 and 6 are in no track.
    truth, predicted = cloud([0, 0, 1, 1, -1, -1]), cloud([0, 0, 1, -1, 0, -1])
    # drop: the example above: classes 0 0 1 1, clusters 0 0 1 2.
    assert [float(x[0]) for x in v_score(predicted, truth, weighted=False)] == pytest.approx([1, 2 / 3, 4 / 5])
    for noise, classes, clusters in (
        ("own", [0, 0, 1, 1, 2, 3], [0, 0, 1, 2, 0, 3]),
        ("label", [0, 0, 1, 1, 2, 2], [0, 0, 1, 2, 0, 2]),
    ):
        score = v_score(predicted, truth, weighted=False, noise=noise)
        expected = homogeneity_completeness_v_measure(classes, clusters)
        np.testing.assert_allclose([x[0] for x in score], expected, atol=1e-12)


@many
@given(points, st.floats(0.1, 10))
def test_equals_scikit_learn(hits: list[tuple[int, int, int]], beta: float) -> None:
    classes, clusters = [c for c, _, _ in hits], [k for _, k, _ in hits]
    expected = homogeneity_completeness_v_measure(classes, clusters, beta=beta)
    np.testing.assert_allclose(v_measure(classes, clusters, beta=beta), expected, atol=1e-12)
    scaled = v_measure(classes, clusters, np.full(len(hits), 0.3), beta=beta)
    np.testing.assert_allclose(scaled, expected, atol=1e-12)
    events = cloud(clusters), cloud(classes)
    np.testing.assert_allclose(
        np.ravel(v_score(*events, weighted=False, noise="label", beta=beta)), expected, atol=1e-12
    )


@many
@given(points)
def test_weight_is_a_number_of_points(hits: list[tuple[int, int, int]]) -> None:
    classes, clusters, weights = (np.array([hit[i] for hit in hits], dtype=np.int64) for i in range(3))
    repeated = homogeneity_completeness_v_measure(classes.repeat(weights), clusters.repeat(weights))
    np.testing.assert_allclose(v_measure(classes, clusters, weights), repeated, atol=1e-12)


@many
@given(points, st.permutations(range(6)), st.randoms(use_true_random=False))
def test_names_and_order_do_not_matter(hits: list[tuple[int, int, int]], names: list[int], random) -> None:
    one = v_measure(*zip(*hits, strict=True)) if hits else v_measure([], [])
    renamed = [(c, [*names, -1][k], w) for c, k, w in hits]
    random.shuffle(renamed)
    two = v_measure(*zip(*renamed, strict=True)) if hits else v_measure([], [])
    np.testing.assert_allclose(one, two, atol=1e-12)
    # Classes and clusters exchanged: homogeneity and completeness exchange.
    swapped = v_measure([k for _, k, _ in hits], [c for c, _, _ in hits], [w for _, _, w in hits])
    np.testing.assert_allclose([swapped[1], swapped[0], swapped[2]], one, atol=1e-12)


@many
@given(st.lists(points, min_size=1, max_size=4), st.sampled_from(["drop", "own", "label"]), st.booleans())
def test_batch_equals_one_by_one(events: list[list[tuple[int, int, int]]], noise: str, weighted: bool) -> None:
    truth = [cloud([c for c, _, _ in hits], [w for _, _, w in hits]) for hits in events]
    predicted = [cloud([k for _, k, _ in hits]) for hits in events]
    together = v_score(batch(predicted), batch(truth), noise=noise, weighted=weighted)
    single = [v_score(p, t, noise=noise, weighted=weighted) for p, t in zip(predicted, truth, strict=True)]
    np.testing.assert_allclose(together, np.concatenate(single, axis=1), atol=1e-12)


def test_mistakes() -> None:
    with pytest.raises(UserError, match=r"no column point\.weight"):
        v_score(cloud([0]), cloud([0]))
    with pytest.raises(UserError, match="expected one of drop, own, label"):
        v_score(cloud([0]), cloud([0]), weighted=False, noise="keep")
    with pytest.raises(UserError, match="not negative, got -1"):
        v_measure([0, 1], [0, 1], [1, -1])
    with pytest.raises(UserError, match="not negative, got nan"):
        v_measure([0, 1], [0, 1], [1, math.nan])
    with pytest.raises(ValueError, match="differ in shape"):
        v_measure([0, 1], [0])
