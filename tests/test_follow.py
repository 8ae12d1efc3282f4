"""Track following as a whole: its tracks against those that were put in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2 as chi2_distribution

from cloudchamber.data.features import layer_key
from cloudchamber.errors import UserError
from cloudchamber.event import Event, batch
from cloudchamber.follow import HIT, follow_pairs
from cloudchamber.follow.best import inside_out
from cloudchamber.tasks import follow
from cloudchamber.tasks.follow import FOLLOWED, Follow, FollowConfig
from cloudchamber.tasks.layers import or_after
from cloudchamber.tasks.tracks import without_outliers


@pytest.fixture(scope="module")
def finder(toys: list[Event]) -> Follow:
    found = Follow(FollowConfig())
    found.fit(toys)
    return found


def test_tracks_are_found_whole(finder: Follow, toy: Callable[..., Event]) -> None:
    event = toy(77, tracks=40, noise=100)
    found = finder.find(event)
    track, particle = found.point["object"].numpy(), event.point["object"].numpy()
    tracks = found.rows("object")
    assert 37 <= tracks <= 40
    pure = [len(np.unique(particle[track == row])) == 1 for row in range(tracks)]
    assert np.mean(pure) > 0.9
    assert (track[particle >= 0] >= 0).mean() > 0.93
    assert set(found.object) >= set(FOLLOWED)
    ratio = []
    for row in range(tracks):
        own = np.bincount(particle[(track == row) & (particle >= 0)]).argmax()
        ratio.append(float(found.object["pt"][row] / torch.hypot(event.object["px"][own], event.object["py"][own])))
        assert abs(float(found.object["z0"][row] - event.object["vz"][own])) < 1
        assert abs(float(found.object["d0"][row])) < 0.5
    assert np.median(np.abs(np.array(ratio) - 1)) < 0.02
    assert np.median(found.object["missed"]) == 0


def test_chi2_of_tracks_without_scattering_is_a_chi2(finder: Follow, toy: Callable[..., Event]) -> None:
    """The toys do not scatter, the filter expects it: chi2 lies below its distribution, by far at low momenta only."""
    found = finder.find(toy(78, tracks=60, noise=0))
    stiff = found.object["pt"].numpy() > 1.5
    probability = chi2_distribution.sf(found.object["chi2"].numpy(), found.object["ndf"].numpy())
    assert stiff.sum() > 10
    assert (probability[stiff] < 0.01).mean() < 0.1
    assert 0.4 < probability[stiff].mean() < 0.95


def _without(event: Event, dropped: torch.Tensor) -> Event:
    """The event without those of its hits."""
    kept = torch.nonzero(~dropped).squeeze(1)
    return Event(
        point={name: column[kept] for name, column in event.point.items()}, object=event.object, scene=event.scene
    )


def test_a_missing_layer_is_bridged(finder: Follow, toy: Callable[..., Event]) -> None:
    """No particle missed a layer in the events that were learned from."""
    whole = toy(79, tracks=40, noise=0)
    layers = layer_key(whole)
    middle = layers.unique()[len(layers.unique()) // 2]
    event = _without(whole, layers == middle)
    found = finder.find(event)
    track, particle = found.point["object"], event.point["object"]
    bridged = 0
    for row in range(event.rows("object")):
        own, there = track[particle == row], layers[whole.point["object"] == row]
        if (there < middle).sum() >= 4 and (there > middle).sum() >= 2 and (there == middle).any():
            bridged += int(len(own.unique()) == 1 and int(own[0]) >= 0)
    assert bridged > 20


def test_a_particle_may_end_anywhere(finder: Follow, toy: Callable[..., Event]) -> None:
    whole = toy(80, tracks=40, noise=0)
    ends = layer_key(whole).unique()[7]  # the first pass takes seven hits
    found = finder.find(_without(whole, layer_key(whole) >= ends))
    assert found.rows("object") >= 37
    assert found.object["ends"].max() < finder.find(whole).object["ends"].min()


def _doubled(event: Event, layers: torch.Tensor) -> tuple[Event, torch.Tensor]:
    """The event whose particles cross a second module 3 mm behind that in some layers, and the hits they have there."""
    point, double = event.point, torch.nonzero(torch.isin(layer_key(event), layers)).squeeze(1)
    second = {name: column[double] for name, column in point.items()}
    way = 3 / torch.hypot(second["tpx"], second["tpy"])
    second |= {name: second[name] + way * second[f"tp{name}"] for name in "xyz"} | {"module": second["module"] + 1}
    second["id"] = second["id"] + len(point["id"])
    both = {name: torch.cat([column, second[name]]) for name, column in point.items()}
    return Event(point=both, object=event.object, scene=event.scene), double


def test_hits_of_a_second_module_are_added(finder: Follow, toy: Callable[..., Event]) -> None:
    whole = toy(81, tracks=40, noise=0)
    event, double = _doubled(whole, layer_key(whole).unique()[3:4])
    track = finder.find(event).point["object"]
    assert ((track[whole.rows("point") :] == track[double]) & (track[double] >= 0)).float().mean() > 0.95


def test_a_track_is_followed_once_where_modules_overlap(
    finder: Follow, toy: Callable[..., Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two hits in each of three layers there are eight seeds of a track, all of them of one path."""
    paths: list[int] = []

    def counted(*args: Any) -> tuple[int, int]:
        found: tuple[int, int] = follow_pairs(*args)
        paths.append(found[0])
        return found

    whole = toy(82, tracks=40, noise=0)
    event, _ = _doubled(whole, layer_key(whole).unique())
    monkeypatch.setattr(follow, "follow_pairs", counted)
    alone = finder.find(whole).rows("object"), sum(paths)
    paths.clear()
    double = finder.find(event).rows("object"), sum(paths)
    assert double[0] <= alone[0] + 2
    assert double[1] < 1.6 * alone[1]


def test_tracks_are_completed_in_the_end(
    finder: Follow, toy: Callable[..., Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hit of the last layer eight errors off (1.2 mm / sqrt(12)) is too far for the passes, and added after them."""
    event = toy(82, tracks=40, noise=40)
    last = layer_key(event) == layer_key(event).max()
    off = event.with_columns("point", z=event.point["z"] + torch.where(last, 8 * 1.2 / 12**0.5, 0.0))
    after = finder.find(off).point["object"]
    monkeypatch.setattr(follow, "complete_all", lambda *arguments: None)
    before, particle = finder.find(off).point["object"], event.point["object"]
    added = (before < 0) & (after >= 0)
    assert torch.equal(after[~added], before[~added])
    shared = torch.zeros((int(before.max()) + 1, int(particle.max()) + 1))
    true = (before >= 0) & (particle >= 0)
    shared.index_put_((before[true], particle[true]), torch.ones(()), accumulate=True)
    assert added.sum() > 5
    assert (particle[added] == shared.argmax(1)[after[added]]).float().mean() > 0.8


def test_hits_of_tracks_from_inside_out() -> None:
    random, hits = np.random.default_rng(3), np.zeros(500, HIT)
    hits["track"], hits["radius"], hits["z"] = random.integers(-1, 40, 500), *random.uniform(0, 1000, (2, 500))
    hits["track"][hits["track"] == 20] = -1  # a track without hits
    begin, order = inside_out(hits, 7, 40)
    there = np.flatnonzero(hits["track"] >= 7)
    away = np.hypot(hits["radius"], hits["z"])[there]
    assert order.tolist() == there[np.lexsort((away, hits["track"][there]))].tolist()
    assert begin.tolist() == [0, *np.cumsum(np.bincount(hits["track"][there] - 7, minlength=33))]


def test_extent_of_tracks(finder: Follow, toys: list[Event]) -> None:
    found, point = finder.find(toys[0]), toys[0].point
    radius, keys = torch.hypot(point["x"], point["y"]), layer_key(toys[0])
    for row in range(0, found.rows("object"), 5):
        own = found.point["object"] == row
        assert float(found.object["begins"][row]) == pytest.approx(float(radius[own].min()), rel=1e-6)
        assert float(found.object["ends"][row]) == pytest.approx(float(radius[own].max()), rel=1e-6)
        assert found.object["layers"][row] == len(keys[own].unique())


def test_layers_after_a_missing_one() -> None:
    count = np.array([[0.0, 8, 2, 0], [4, 0, 0, 4], [0, 0, 0, 2], [0, 0, 0, 0]])
    # 0 -> 1 -> 3: 8 x 4/8, 0 -> 2 -> 3: 2 x 2/2; 1 -> 0 -> 2: 4 x 2/10; nothing comes back to where it was.
    assert or_after(count).tolist() == [[0, 8, 2, 6], [4, 0, 0.8, 4], [0, 0, 0, 2], [0, 0, 0, 0]]


def partition(event: Event, label: torch.Tensor) -> set[frozenset[int]]:
    return {frozenset(event.point["id"][label == row].tolist()) for row in range(int(label.max()) + 1)}


@pytest.mark.parametrize("angle", [0.3, 3.0])
def test_neither_the_order_of_hits_nor_the_angle_matters(finder: Follow, toys: list[Event], angle: float) -> None:
    event = toys[1]
    expected = partition(event, finder.find(event).point["object"])
    order = torch.randperm(event.rows("point"), generator=torch.Generator().manual_seed(0))
    x, y = event.point["x"], event.point["y"]
    turned = event.with_columns(
        "point", x=np.cos(angle) * x - np.sin(angle) * y, y=np.sin(angle) * x + np.cos(angle) * y
    )
    shuffled = Event(point={name: column[order] for name, column in turned.point.items()}, scene=event.scene)
    assert partition(shuffled, finder.find(shuffled).point["object"]) == expected


def test_a_batch_is_its_events(finder: Follow, toys: list[Event]) -> None:
    together = finder.find(batch(toys[:2]))
    apart = batch([finder.find(event) for event in toys[:2]])
    for level in ("point", "object"):
        for name, column in getattr(apart, level).items():
            assert torch.equal(getattr(together, level)[name], column), name


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_events_of_almost_nothing(finder: Follow, toys: list[Event], rows: int) -> None:
    event = Event(point={name: column[:rows] for name, column in toys[0].point.items()})
    found = finder.find(event)
    assert (found.rows("point"), found.rows("object")) == (rows, 0)
    assert finder(event).rows("edge") == 0
    assert without_outliers(event, found).rows("object") == 0


def test_hits_of_unknown_layers_are_on_no_track(finder: Follow, toys: list[Event]) -> None:
    layer = toys[0].point["layer"].clone()
    layer[::3] = 99
    found = finder.find(toys[0].with_columns("point", layer=layer))
    assert (found.point["object"][::3] == -1).all()
    assert Follow(FollowConfig()).find(toys[0]).rows("object") == 0


def test_memory_for_paths_grows(finder: Follow, toys: list[Event], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = finder.find(toys[0]).point["object"]
    monkeypatch.setattr(follow, "_PATHS", 1)
    assert torch.equal(finder.find(toys[0]).point["object"], expected)


def test_edges_join_neighbours_on_tracks(finder: Follow, toys: list[Event]) -> None:
    edges, track = finder(toys[0]).edge, finder.find(toys[0]).point["object"]
    assert (track[edges["sender"]] == track[edges["receiver"]]).all()
    assert len(edges["sender"]) == int((track >= 0).sum() - track.max() - 1)


def test_stages_are_passes(finder: Follow, toys: list[Event]) -> None:
    stages = finder.stages(toys[0])
    assert list(stages) == ["pass 1", "passes 1-2", "passes 1-3"]
    edges = [event.rows("edge") for event in (*stages.values(), finder(toys[0]))]
    assert edges == sorted(edges)


def test_every_setting_has_a_value_per_pass() -> None:
    with pytest.raises(UserError, match=r"graph\.hits: expected 4 values as in graph\.pt, one per pass, found 2"):
        Follow(FollowConfig(hits=(5, 4)))


def test_a_second_pass_finds_what_the_first_leaves(toys: list[Event]) -> None:
    stiff = FollowConfig(pt=(1.5, *FollowConfig().pt[1:]))
    names = [name for name in FollowConfig.__dataclass_fields__ if name not in ("kind", "worth")]
    first, both = Follow(FollowConfig(**{name: getattr(stiff, name)[:1] for name in names})), Follow(stiff)
    for finder in (first, both):
        finder.fit(toys)
    before, after = first.find(toys[0]), both.find(toys[0])
    assert 0 < before.rows("object") < after.rows("object")
    assert set(before.object["pass"].tolist()) == {0.0} < set(after.object["pass"].tolist())
    kept = before.point["object"] >= 0
    assert torch.equal(before.point["object"][kept], after.point["object"][kept])
