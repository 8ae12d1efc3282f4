"""From edges to objects on graphs made by hand."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cloudchamber.cluster import attach, components, link, walk

Array = NDArray[Any]
Edges = list[tuple[int, int, float]]


def columns(edges: Edges) -> tuple[Array, Array, Array]:
    """Sender, receiver and gain."""
    sender, receiver, gain = zip(*edges, strict=True) if edges else ((), (), ())
    return np.array(sender, np.int64), np.array(receiver, np.int64), np.array(gain, np.float64)


def walked(edges: Edges, points: int, **settings: int) -> set[frozenset[int]]:
    """The objects that the walk makes of a graph whose points lie ever further out."""
    return objects(walk(*columns(edges), np.arange(points, dtype=np.float64), **settings))


def objects(label: Array) -> set[frozenset[int]]:
    """The points of each object; checks that objects are numbered 0, 1, ..."""
    assert set(np.unique(label[label >= 0])) == set(range(label.max(initial=-1) + 1))
    return {frozenset(np.flatnonzero(label == number).tolist()) for number in range(label.max(initial=-1) + 1)}


def chain(*points: int, gain: float = 1.0) -> Edges:
    return [(a, b, gain) for a, b in pairwise(points)]


def sets(*groups: tuple[int, ...]) -> set[frozenset[int]]:
    return {frozenset(group) for group in groups}


def test_components_of_chains_and_their_least_size() -> None:
    sender, receiver, _ = columns([*chain(0, 3, 5), *chain(1, 2), (6, 7, 1), (7, 8, 1), (6, 8, 1)])
    label = components(sender, receiver, 10)
    assert objects(label) == sets((0, 3, 5), (6, 7, 8))
    assert label[[1, 2, 4, 9]].tolist() == [-1] * 4
    assert objects(components(sender, receiver, 10, min_points=2)) == sets((0, 3, 5), (1, 2), (6, 7, 8))
    assert len(objects(components(sender, receiver, 10, min_points=1))) == 5


@pytest.mark.parametrize("points", [0, 1, 4])
def test_graphs_without_edges_have_no_objects(points: int) -> None:
    none = np.zeros(0, np.int64)
    assert components(none, none, points).tolist() == [-1] * points
    assert walk(none, none, np.zeros(0), np.arange(float(points))).tolist() == [-1] * points


def test_simple_chains() -> None:
    assert walked([*chain(0, 2, 4, 6), *chain(1, 3, 5)], 8) == sets((0, 2, 4, 6), (1, 3, 5))
    assert walked(chain(0, 1), 2) == set()
    assert walked(chain(0, 1), 2, min_points=2) == sets((0, 1))


def test_skipping_edges_do_not_shorten_a_track() -> None:
    assert walked([*chain(0, 1, 2, 3), (0, 2, 1.5), (1, 3, 1.5), (0, 3, 2.5)], 4) == sets((0, 1, 2, 3))


def test_a_merged_component_is_split_along_its_best_paths() -> None:
    tracks = [*chain(0, 2, 4, 6, 8, gain=2.0), *chain(1, 3, 5, 7, 9, gain=1.8)]
    wrong = [(2, 5, 0.3), (3, 6, 0.3)]
    sender, receiver, _ = columns([*tracks, *wrong])
    assert len(objects(components(sender, receiver, 10))) == 1
    assert walked([*tracks, *wrong], 10) == sets((0, 2, 4, 6, 8), (1, 3, 5, 7, 9))


def test_two_tracks_that_cross_at_one_hit() -> None:
    first, second = chain(0, 2, 4, 5, 7, gain=2.0), chain(1, 3, 4, 6, 8, gain=1.0)
    assert walked([*first, *second], 9, min_points=2) == sets((0, 2, 4, 5, 7), (1, 3), (6, 8))
    assert walked([*first, *second], 9, min_points=3) == sets((0, 2, 4, 5, 7))


def test_edges_below_the_threshold_are_left_out() -> None:
    assert walked([*chain(0, 1, 2, 3), (3, 4, -0.1), (4, 5, 0.05)], 6) == sets((0, 1, 2, 3))
    assert walked([*chain(0, 1, 2), (2, 3, -1.0), (3, 4, 5.0)], 5) == sets((0, 1, 2, 3, 4))  # bridged: it pays


def test_rounds_bound_the_splitting() -> None:
    comb = [*chain(0, 1, 2, 3, gain=9.0), *chain(4, 5, 6), (2, 5, 5.0)]  # 6 is best reached through the first track
    assert walked(comb, 7, rounds=1) == sets((0, 1, 2, 3))
    assert walked(comb, 7, rounds=2) == sets((0, 1, 2, 3), (4, 5, 6))


def test_edges_between_points_at_one_distance_make_no_circle() -> None:
    edges = [(0, 1, 1.0), (1, 0, 1.0), (1, 2, 1.0), (2, 2, 9.0), (2, 0, 5.0)]
    label = walk(*columns(edges), np.array([1.0, 1.0, 2.0]))
    assert label.tolist() == [0, 0, 0]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Edges, int]:
    points = draw(st.integers(2, 12))
    pairs = st.tuples(st.integers(0, points - 1), st.integers(0, points - 1)).filter(lambda pair: pair[0] < pair[1])
    chosen = draw(st.lists(pairs, unique=True, max_size=25))
    gains = np.random.default_rng(draw(st.integers(0, 99))).normal(0.5, 1.0, len(chosen))
    return [(a, b, float(gain)) for (a, b), gain in zip(chosen, gains, strict=True)], points


@settings(deadline=None, max_examples=60)
@given(graphs(), st.randoms(use_true_random=False))
def test_the_order_of_edges_does_not_matter_and_objects_are_paths(graph: tuple[Edges, int], random: Any) -> None:
    edges, points = graph
    found = walked(edges, points, min_points=2)
    shuffled = list(edges)
    random.shuffle(shuffled)
    assert walked(shuffled, points, min_points=2) == found
    linked = {(a, b) for a, b, _ in edges}
    for track in found:
        path = sorted(track)
        assert all(pair in linked for pair in pairwise(path))
    if edges:  # the first path taken is the best there is
        best = np.zeros(points)
        for a, b, gain in sorted(edges, key=lambda edge: edge[1]):
            best[b] = max(best[b], best[a] + gain)
        gain_of = {(a, b): gain for a, b, gain in edges}
        total = [sum(gain_of[p] for p in pairwise(sorted(t))) for t in found]
        assert max(total, default=0.0) == pytest.approx(best.max())


def linked(label: list[int], edges: Edges, **settings: Any) -> set[frozenset[int]]:
    """The objects after linking, of points that lie ever further out."""
    return objects(
        link(np.array(label, np.int64), *columns(edges), np.arange(len(label), dtype=np.float64), **settings)
    )


def test_a_broken_path_is_mended() -> None:
    assert linked([0, 0, 0, 1, 1, 1], [(2, 3, 0.1)]) == sets((0, 1, 2, 3, 4, 5))
    assert linked([0, 0, -1, 1, 1], [(1, 2, 0.1), (2, 3, 0.1)]) == sets((0, 1, 2, 3, 4))  # across a point on no path
    assert linked([2, 2, 0, 0, 1, 1], [(3, 4, 0.2), (1, 2, 0.1)]) == sets((0, 1, 2, 3, 4, 5))  # two breaks


def test_paths_are_linked_at_their_ends_and_by_edges_of_positive_gain() -> None:
    apart = sets((0, 1, 2), (3, 4, 5))
    assert linked([0, 0, 0, 1, 1, 1], []) == apart
    assert linked([0, 0, 0, 1, 1, 1], [(2, 3, 0.0), (2, 3, -1.0)]) == apart
    assert linked([0, 0, 0, 1, 1, 1], [(1, 3, 9.0), (2, 4, 9.0), (0, 5, 9.0)]) == apart


def test_a_path_gets_one_next_and_one_previous_and_the_best_edge_first() -> None:
    label = [0, 0, 1, 1, 2, 2]  # 0 may go on with 1 or 2
    assert linked(label, [(1, 2, 1.0), (1, 4, 2.0)], min_points=2) == sets((0, 1, 4, 5), (2, 3))
    assert linked(label, [(1, 2, 2.0), (1, 4, 1.0)], min_points=2) == sets((0, 1, 2, 3), (4, 5))
    assert linked(label, [(1, 4, 1.0), (3, 4, 2.0)], min_points=2) == sets((0, 1), (2, 3, 4, 5))
    assert linked(label, [(1, 4, 2.0), (3, 4, 1.0)], min_points=2) == sets((0, 1, 4, 5), (2, 3))


def test_links_go_outward() -> None:
    edges = columns([(2, 3, 5.0), (5, 0, 5.0)])
    label = np.array([0, 0, 0, 1, 1, 1])
    same = np.array([0.0, 1, 2, 2, 3, 4])  # the first path ends where the second begins
    assert objects(link(label, *edges, same)) == sets((0, 1, 2), (3, 4, 5))
    inward = np.array([3.0, 4, 5, 0, 1, 2])
    assert objects(link(label, *edges, inward)) == sets((0, 1, 2, 3, 4, 5))  # from the second to the first


def test_linking_leaves_out_what_stays_short() -> None:
    assert linked([0, 0, -1, -1, -1], [(2, 3, 1.0)]) == set()
    assert linked([0, 0, -1, -1, -1], [(2, 3, 1.0)], min_points=2) == sets((0, 1), (2, 3))
    assert linked([-1, -1, -1], chain(0, 1, 2)) == sets((0, 1, 2))  # single points make a path
    assert linked([-1, -1], [], min_points=1) == sets((0,), (1,))
    assert linked([0, 0, 0, 1, 1, 1], [(2, 3, 1.0)], min_points=7) == set()


@pytest.mark.parametrize("points", [0, 1, 3])
def test_nothing_to_link_or_attach(points: int) -> None:
    label, none = np.full(points, -1), columns([])
    assert link(label, *none, np.arange(float(points))).tolist() == label.tolist()
    assert attach(label, *none).tolist() == label.tolist()


def test_points_are_attached_along_their_best_edge() -> None:
    label = np.array([0, 0, 1, 1, -1])
    assert attach(label, *columns([(4, 1, 0.5), (2, 4, 0.7), (0, 4, 0.6)])).tolist() == [0, 0, 1, 1, 1]
    assert attach(label, *columns([(4, 1, 0.9), (2, 4, 0.7)])).tolist() == [0, 0, 1, 1, 0]
    assert label.tolist() == [0, 0, 1, 1, -1]  # as it was


def test_nothing_is_attached_without_gain_or_to_points_on_no_path() -> None:
    label = np.array([0, 0, -1, -1])
    assert attach(label, *columns([(1, 2, 0.0), (3, 0, -0.5)])).tolist() == label.tolist()
    assert attach(label, *columns([(2, 3, 5.0), (3, 2, 5.0)])).tolist() == label.tolist()
    assert attach(label, *columns([(1, 2, 1.0), (2, 3, 1.0)])).tolist() == [0, 0, 0, -1]  # one step
    assert attach(np.array([0, 0, 1, 1]), *columns([(1, 2, 9.0)])).tolist() == [0, 0, 1, 1]  # paths stay as they are


@settings(deadline=None, max_examples=60)
@given(graphs(), st.randoms(use_true_random=False))
def test_linking_and_attaching_do_not_depend_on_the_order_of_edges(graph: tuple[Edges, int], random: Any) -> None:
    edges, points = graph
    shuffled = list(edges)
    random.shuffle(shuffled)
    distance = np.arange(float(points))
    found = []
    for given_edges in (edges, shuffled):
        sender, receiver, gain = columns(given_edges)
        label = walk(sender, receiver, gain - 1.0, distance, min_points=2)
        joined = link(label, sender, receiver, gain, distance, min_points=2)
        found.append((objects(joined), objects(attach(joined, sender, receiver, gain + 0.5))))
        assert all(any(track <= other for other in found[-1][0]) for track in objects(label))
    assert found[0] == found[1]
