"""Shapes of clusters: what they tell of the direction of a track, and that tracks are found faster with them."""

from __future__ import annotations

import os
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch

from cloudchamber import checkpoint
from cloudchamber.data import open_events
from cloudchamber.data.features import layer_key, true_pairs
from cloudchamber.data.graph import Windows, WindowsConfig
from cloudchamber.data.shapes import directions, lengths
from cloudchamber.errors import UserError
from cloudchamber.event import Event
from cloudchamber.follow import LENGTHS, cluster_sizes, ways
from cloudchamber.follow.shape import lean
from cloudchamber.tasks.follow import Follow, FollowConfig

DATA = Path(os.environ.get("CLOUDCHAMBER_DATA", Path(__file__).parents[2] / "shared" / "data"))
DEPTH, PITCH_U, PITCH_V = 0.3, 0.05, 0.05625  # mm


def with_cells(event: Event, seed: int) -> Event:
    """The event with cells: each track charges those of a barrel sensor that it crosses, noise any direction's."""
    random, point = np.random.default_rng(seed), event.point
    x, y, px, py, pz = (point[name].double().numpy() for name in ("x", "y", "tpx", "tpy", "tpz"))
    noise = point["object"].numpy() < 0
    with np.errstate(invalid="ignore"):
        steep, tangent = np.abs(pz) / np.hypot(px, py), (x * py - y * px) / (x * px + y * py)
    steep = np.where(noise, random.uniform(0, 3, len(x)), steep)
    tangent = np.where(noise, random.uniform(-1, 1, len(x)), tangent)
    sizes = [
        1 + np.floor(np.abs(t) * DEPTH / pitch + random.random(len(x))).astype(np.int64)
        for t, pitch in ((tangent, PITCH_U), (steep, PITCH_V))
    ]
    ends = torch.arange(len(x)).repeat(2)  # the first and the last cell, in any order
    u, v = (torch.from_numpy(np.concatenate([size + 6, np.full(len(x), 7)])) for size in sizes)
    order = torch.from_numpy(random.permutation(2 * len(x)))
    return event.with_level("cell", {"point": ends[order], "u": u[order], "v": v[order]})


@pytest.fixture(scope="module")
def finder(toy: Callable[..., Event]) -> Follow:
    found = Follow(FollowConfig())
    found.fit([with_cells(toy(seed, tracks=500, noise=100), seed) for seed in range(5)])
    return found


def tried(finder: Follow, event: Event) -> int:
    return int(finder._tracks(event)[3].sum())


def test_the_size_of_a_cluster_is_from_its_first_to_its_last_cell() -> None:
    point, channel = np.array([2, 0, 2, 2, 3, -1]), np.array([9, 4, 7, 7, 1000, 5])
    assert cluster_sizes(point, channel, 5).tolist() == [1, 0, 3, 1, 0]
    assert cluster_sizes(np.array([0, 0]), np.array([0, 500]), 1).tolist() == [LENGTHS - 1]


def test_cells_of_no_hit_are_refused(toy: Callable[..., Event]) -> None:
    event = with_cells(toy(1), 1)
    beyond = event.with_columns("cell", point=event.cell["point"] + 1)
    with pytest.raises(UserError, match=r"cell\.point: expected rows of 220 hits, found 1 to 220"):
        lengths(beyond)


def test_directions_of_a_track_by_hand() -> None:
    """From (30, 0, 10) to (60, 30, 40): 45 degrees to the left at the first, 0 at the second of the way out there."""
    x, y, z = np.array([30.0, 60.0]), np.array([0.0, 30.0]), np.array([10.0, 40.0])
    found = ways(x, y, z, np.array([False, True]), np.array([0]), np.array([1]))
    r = np.hypot(60, 30)
    assert found[0] == pytest.approx([30 / (r - 30), 1.0, (60 * 30 - 30 * 30) / (r * 30)])
    assert lean(0.0, 50.0, 0.0, 20.0, 5.0, False) == 0.0
    assert lean(0.0, 50.0, -10.0, 20.0, 5.0, False) == pytest.approx(0.5)
    assert lean(0.0, 50.0, 10.0, 20.0, 5.0, True) == pytest.approx(-2.0)


def test_a_size_tells_the_directions_that_sensors_allow(finder: Follow, toy: Callable[..., Event]) -> None:
    """n cells along v: from n - 2 to n pitches in the depth, but for the share that is given up and the errors of z."""
    for row in finder.directions[:4]:
        for n in (2, 3, 4):
            assert (n - 2) * PITCH_V / DEPTH - 0.02 < row[0, n] < row[1, n] < n * PITCH_V / DEPTH + 0.02
    events = [with_cells(toy(seed, tracks=100, noise=60), seed) for seed in range(3)]
    layer = [torch.searchsorted(finder.keys, layer_key(event)).numpy() for event in events]
    pairs = [tuple(ends.numpy() for ends in true_pairs(event)) for event in events]
    wide = directions(events, layer, pairs, np.zeros(8, bool), 0.0)
    assert np.isinf(wide).all()
    least, most = directions(events, layer, pairs, np.zeros(8, bool), 0.1)[:, :2].transpose(1, 0, 2)
    assert np.isinf(least[:, 0]).all()
    assert (most - least)[:, 1].max() < PITCH_V / DEPTH


def test_shapes_leave_out_pairs_and_few_tracks(finder: Follow, toy: Callable[..., Event]) -> None:
    plain = toy(77, tracks=150, noise=300)
    event = with_cells(plain, 77)
    assert tried(finder, event) < 0.5 * tried(finder, plain)
    lost = 1 - finder.find(event).rows("object") / finder.find(plain).rows("object")
    assert lost < 0.06  # four windows of a pair give up 1% each, and the toys all begin in the same layers
    found = finder.find(event.with_columns("cell", v=torch.full_like(event.cell["v"], 7)))
    assert 20 < found.rows("object") < 90
    assert torch.sinh(found.object["eta"]).abs().max() < PITCH_V / DEPTH + 0.02  # one cell: no steeper ones


def test_without_cells_nothing_is_left_out(finder: Follow, toy: Callable[..., Event]) -> None:
    event = toy(78, tracks=50, noise=50)
    anything = deepcopy(finder)
    anything.directions = torch.tensor([-torch.inf, torch.inf] * 2).double()[:, None].expand(finder.directions.shape)
    assert torch.equal(anything.find(event).point["object"], finder.find(event).point["object"])
    assert all((length == 0).all() for length in lengths(event))


def test_the_finder_that_ships_knows_the_cells_of_a_real_event() -> None:
    """What it learned of simulated cells holds for those of a TrackML event: 1% of its tracks is given up."""
    folder = DATA / "trackml" / "thin_event"
    if not folder.exists():
        pytest.skip(f"no {folder}: set CLOUDCHAMBER_DATA")
    task, _ = checkpoint.load(checkpoint.shipped_model())
    graph = task.graph
    event = open_events(folder)[0]
    layer, disc = torch.searchsorted(graph.keys, layer_key(event)).numpy(), graph.shape[:, 0].numpy() > 0
    inner, outer = (ends.numpy() for ends in true_pairs(event))
    x, y, z = (event.point[name].double().numpy() for name in "xyz")
    momentum = torch.hypot(event.object["px"], event.object["py"]).numpy()[event.point["object"].numpy()[inner]]
    good = (layer[inner] != layer[outer]) & (np.hypot(x, y)[outer] - np.hypot(x, y)[inner] >= 1) & (momentum > 0.5)
    inner, outer = inner[good], outer[good]
    way, (long, wide) = ways(x, y, z, disc[layer], inner, outer), lengths(event)
    windows = graph.directions.numpy()
    for hit, tangent in ((inner, way[:, 1]), (outer, way[:, 2])):
        row = windows[layer[hit]]
        for value, (low, high), size in ((way[:, 0], (0, 1), long), (tangent, (2, 3), wide)):
            which = np.arange(len(hit)), size[hit]
            inside = (value >= row[which[0], low, which[1]]) & (value <= row[which[0], high, which[1]])
            assert len(inside) > 1000
            assert inside.mean() > 0.98


def test_windows_leave_out_edges_that_shapes_speak_against(toy: Callable[..., Event]) -> None:
    graph = Windows(WindowsConfig(shape=0.004))
    graph.fit([with_cells(toy(seed, tracks=500, noise=100), seed) for seed in range(3)])
    plain = toy(79, tracks=150, noise=300)
    event = with_cells(plain, 79)
    every, kept = (
        {(int(a), int(b)) for a, b in zip(found.edge["sender"], found.edge["receiver"], strict=True)}
        for found in (graph(plain), graph(event))
    )
    assert kept < every
    particle = plain.point["object"]
    true = {(a, b) for a, b in every if particle[a] == particle[b] >= 0}
    assert len(true & kept) > 0.94 * len(true)  # four windows at two ends give up 0.8% each, at most
    assert len(kept - true) < 0.7 * len(every - true)
    blind = Windows(WindowsConfig(shape=0.0))
    blind.fit([with_cells(toy(seed, tracks=60, noise=100), seed) for seed in range(2)])
    assert torch.equal(blind(event).edge["sender"], blind(plain).edge["sender"])
