"""From a learned space to objects: greedy condensation, followers of influencers, density clustering."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from cloudchamber import cluster
from cloudchamber.cluster import condense, density, follow
from cloudchamber.errors import UserError

Array = NDArray[Any]
LINE = np.array([[0.0], [0.4], [0.8], [2.0], [2.1], [9.0]])
BETA = np.array([0.5, 0.9, 0.4, 0.6, 0.7, 0.1])


def blobs(points: int, objects: int, dims: int = 3, seed: int = 0, width: float = 0.1) -> tuple[Array, Array]:
    """Gaussian blobs at random places of constant density, and the blob of each point."""
    random = np.random.default_rng(seed)
    place = random.uniform(0, 3 * objects ** (1 / min(dims, 3)), (objects, dims))
    label = random.integers(0, objects, points)
    return place[label] + random.normal(0, width, (points, dims)), label


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of threads of numba, and puts it back."""
    before = numba.get_num_threads()
    yield lambda number: numba.set_num_threads(min(number, numba.config.NUMBA_NUM_THREADS))
    numba.set_num_threads(before)


def test_greedy_condensation_by_hand() -> None:
    assert condense(LINE, BETA, threshold=0.3, radius=0.5).tolist() == [0, 0, 0, 1, 1, -1]
    assert condense(LINE, BETA, threshold=0.05, radius=0.5).tolist() == [0, 0, 0, 1, 1, 2]
    assert condense(LINE, BETA, threshold=0.3, radius=0.5, min_points=3).tolist() == [0, 0, 0, -1, -1, -1]
    assert condense(LINE, BETA, threshold=0.95, radius=0.5).tolist() == [-1] * 6
    # The point of next largest beta takes what the first left.
    assert condense(LINE, np.array([0.9, 0.1, 0.8, 0, 0, 0]), threshold=0.3, radius=0.5).tolist()[:3] == [0, 0, 1]


def plain_condense(space: Array, order: Array, radius: float) -> Array:
    label, number = np.full(len(space), -1), 0
    for i in order:
        if label[i] < 0:
            near = ((space - space[i]) ** 2).sum(1) <= radius**2
            label[near & (label < 0)] = number
            number += 1
    return label


@pytest.mark.parametrize("min_points", [1, 4])
def test_in_the_end_points_go_to_the_nearest_centre(min_points: int) -> None:
    space, _ = blobs(150, 12, 2, seed=3, width=0.4)
    beta = np.random.default_rng(1).uniform(0, 1, 150)
    order = np.argsort(-beta)
    first = plain_condense(space, order, 0.3)
    hits = np.bincount(first)
    centre = [i for n, i in enumerate(order) if first[i] not in first[order[:n]] and hits[first[i]] >= min_points]
    distance = np.linalg.norm(space[:, None] - space[centre], axis=2)
    nearest = np.where(distance.min(1) <= 0.6, distance.argmin(1), -1)
    kept = np.bincount(nearest[nearest >= 0], minlength=len(centre)) >= min_points
    number = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1)[nearest]
    found = condense(space, beta, threshold=0.0, radius=0.3, take=0.6, min_points=min_points)
    assert (found[number < 0] < 0).all()
    pairs = np.unique(np.stack([found, number]), axis=1)
    assert pairs.shape[1] == len(np.unique(number))  # the same objects
    assert condense(LINE, BETA, threshold=0.95, radius=0.5, take=0.5).tolist() == [-1] * 6


def plain_follow(user: Array, leader: Array, radius: float) -> Array:
    inside = ((user[:, None] - leader[None]) ** 2).sum(2) <= radius**2
    followers = inside.sum(0)
    best = [min(np.flatnonzero(row), key=lambda j: (-followers[j], j), default=-1) for row in inside]
    _, label = np.unique(best, return_inverse=True)
    return np.asarray(label - (1 if -1 in best else 0))


@pytest.mark.parametrize("dims", [1, 2, 3, 5])
@pytest.mark.parametrize("radius", [0.05, 0.4, 50.0])
def test_decoding_is_that_of_every_pair(dims: int, radius: float) -> None:
    space, _ = blobs(150, 12, dims, seed=dims)
    beta = np.random.default_rng(1).uniform(0, 1, 150)
    order = np.argsort(-beta)
    assert condense(space, beta, threshold=0.0, radius=radius).tolist() == plain_condense(space, order, radius).tolist()
    leader = blobs(150, 12, dims, seed=dims, width=0.3)[0]
    assert follow(space, leader, radius=radius).tolist() == plain_follow(space, leader, radius).tolist()


def test_random_order_depends_on_the_seed_alone(threads: Callable[[int], None]) -> None:
    space, _ = blobs(400, 20, width=0.5)
    leader = space + 0.05
    beta = np.random.default_rng(3).uniform(0, 1, 400)
    found = []
    for number in (1, 2):
        threads(number)
        for order in ("beta", "random"):
            found.append([condense(space, beta, threshold=0.2, radius=0.6, order=order, seed=s) for s in (5, 6)])  # type: ignore[arg-type]
        found.append([follow(space, leader, radius=0.6)])
    for one, two in zip(found[:3], found[3:], strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert np.array_equal(*found[0])  # no matter in the order of beta
    assert not np.array_equal(*found[1])


def test_well_separated_objects_are_found_by_all() -> None:
    space, label = blobs(300, 8, width=0.02)
    beta = np.full(300, 0.5)
    found = {order: condense(space, beta, threshold=0.1, radius=0.4, order=order) for order in ("beta", "random")}  # type: ignore[arg-type]
    found["follow"] = follow(space, space, radius=0.4)
    for method in ("dbscan", "hdbscan"):
        found[method] = density(space, method=method, radius=0.4, core=3, min_points=3)  # type: ignore[arg-type]
    for name, own in found.items():
        assert len(set(zip(own.tolist(), label.tolist(), strict=True))) == 8, name
        assert set(own.tolist()) == set(range(8)), name


def test_influencers_by_hand() -> None:
    user = np.array([[0.0], [0.1], [0.2], [1.0], [5.0]])
    leader = np.array([[0.1], [0.6], [9.0], [1.05], [7.0]])  # of 3 users, of 2 (the third and fourth), none, 1, none
    assert follow(user, leader, radius=0.45).tolist() == [
        0,
        0,
        0,
        1,
        -1,
    ]  # the fourth: the one with two, not the nearest
    assert follow(user, leader, radius=0.45, min_points=2).tolist() == [0, 0, 0, -1, -1]
    assert follow(user, user + 10, radius=0.45).tolist() == [-1] * 5
    # Of the two that are followed the nearer one; the first alone where the second has too few.
    assert follow(user, leader, radius=0.45, take=0.5).tolist() == [0, 0, 0, 1, -1]
    assert follow(user, leader, radius=0.45, take=1.0, min_points=2).tolist() == [0, 0, 0, 0, -1]
    assert follow(user, user + 10, radius=0.45, take=1.0).tolist() == [-1] * 5


@pytest.mark.parametrize("points", [0, 1])
def test_few_points(points: int) -> None:
    space, beta = np.zeros((points, 3)), np.ones(points)
    expected = list(range(points))
    assert condense(space, beta, threshold=0.1, radius=1.0).tolist() == expected
    assert follow(space, space, radius=1.0).tolist() == expected
    assert follow(space, space, radius=1.0, take=1.0).tolist() == expected
    assert density(space, method="dbscan", radius=1.0).tolist() == [-1] * points


def test_places_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        condense(np.array([[np.nan]]), np.ones(1), threshold=0.1, radius=1.0)


def test_density_clustering_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(UserError, match=r"pip install 'cloudchamber\[density\]'"):
        density(LINE, method="dbscan", radius=1.0)


def test_distances_looked_at_grow_like_the_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without compilation, so that calls can be counted: at constant density as many per point in any cloud."""
    calls = 0
    distance = cluster.squared_distance.py_func

    def counted(x: Array, y: Array) -> float:
        nonlocal calls
        calls += 1
        return float(distance(x, y))

    monkeypatch.setattr(cluster, "squared_distance", counted)
    monkeypatch.setattr(numba, "prange", range)
    per_point: dict[str, list[float]] = {"condense": [], "follow": []}
    for points in (250, 500, 1000):
        space, _ = blobs(points, points // 10)
        for name, run in {
            "condense": lambda x=space: cluster._condense.py_func(x, np.arange(len(x)), 0.5),
            "follow": lambda x=space: cluster._follow.py_func(x, x, 0.5),
        }.items():
            calls = 0
            run()
            per_point[name].append(calls / points)
    for name, found in per_point.items():
        assert max(found) < 1.5 * min(found), (name, found)
        assert max(found) < 60
