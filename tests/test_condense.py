"""Condensation as a task: any cloud with objects, what is predicted of them, settings that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cloudchamber import checkpoint
from cloudchamber.config import parse
from cloudchamber.errors import UserError
from cloudchamber.event import Event, batch, unbatch
from cloudchamber.nn import MessageConfig, MLPConfig
from cloudchamber.reconstruct import Reconstructor
from cloudchamber.tasks.condense import Condense
from cloudchamber.tasks.condense_config import CondenseConfig
from cloudchamber.tasks.payload import Payload
from cloudchamber.tasks.share import share

MODELS = {
    "mlp": MLPConfig(width=16),
    "neighbours": MessageConfig(width=12, depth=2, hidden=1, neighbours=4),
}
LEARN = ("condensation", "influencer")


def showers(seed: int, number: int = 6, noise: int = 10) -> Event:
    """Cells with energies, without id or layer, around showers; a third of the energy is not seen."""
    random = np.random.default_rng(seed)
    cells = random.integers(8, 20, number)
    label = np.concatenate([np.repeat(np.arange(number), cells), np.full(noise, -1)])
    place = random.uniform(-8, 8, (number, 2))
    spread = random.normal(0, 0.3, (len(label), 2))
    x = np.where(label[:, None] >= 0, np.concatenate([place, np.zeros((1, 2))])[label] + spread, 30 * spread)
    energy = random.exponential(1.0, len(label)) + 0.1
    point = {"x": x[:, 0], "y": x[:, 1], "energy": energy}
    total = np.bincount(label[label >= 0], energy[label >= 0], minlength=number) * random.uniform(1.4, 1.6, number)
    columns = {name: torch.from_numpy(column.astype(np.float32)) for name, column in point.items()}
    objects = {"energy": torch.from_numpy(total.astype(np.float32))}
    slope = random.uniform(-0.1, 0.1, (number, 2))
    axes = {"x": place[:, 0], "y": place[:, 1], "u": place[:, 0], "dx": slope[:, 0], "dy": slope[:, 1]}
    objects |= {name: torch.from_numpy(column).float() for name, column in axes.items()}
    return Event(point={**columns, "object": torch.from_numpy(label)}, object=objects)


def made(model: str = "mlp", **settings: Any) -> Condense:
    torch.manual_seed(0)
    defaults: dict[str, Any] = {
        "columns": ("x", "y", "energy"),
        "payload": ("energy", "u"),
        "ratio": ("energy",),
        "near": ("x", "y"),
    }
    task = Condense(CondenseConfig(**{**defaults, **settings}), nn.Identity(), MODELS[model])
    task.fit([showers(seed) for seed in range(4)])
    return task


@pytest.mark.parametrize("learn", LEARN)
@pytest.mark.parametrize("model", MODELS)
def test_showers_are_learned_with_their_energies(model: str, learn: str) -> None:
    task = made(model, learn=learn, start=("x", "y"), spread=1.0, radius=1.0, threshold=0.2)
    event = batch([task.prepare(showers(seed)) for seed in range(4)])
    optimizer = torch.optim.Adam(task.parameters(), 0.01)
    losses = []
    for _ in range(60):
        loss = torch.stack(list(task.loss(event).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in task.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    with torch.no_grad():
        after = task.score(event)
        found = task.decode(event)
    assert float(after["efficiency"].value) > 0.8
    rows = torch.nonzero((found.point["object"] >= 0) & (event.point["object"] >= 0))[:, 0]
    ratio = found.object["energy"][found.point["object"][rows]] / event.object["energy"][event.point["object"][rows]]
    assert 0.9 < float(ratio.median()) < 1.1
    assert not any(name in found.object for name in ("pt", "chi2"))


@pytest.mark.parametrize("learn", LEARN)
@pytest.mark.parametrize("model", MODELS)
def test_a_batch_is_decoded_as_its_events_are(model: str, learn: str) -> None:
    task = made(model, learn=learn, radius=5.0, threshold=0.0, object_hits=1).eval()
    parts = [
        task.prepare(showers(seed, number, noise))
        for seed, (number, noise) in enumerate([(5, 9), (0, 0), (0, 1), (3, 0)])
    ]
    with torch.no_grad():
        for one, two in zip(parts, unbatch(task.decode(batch(parts))), strict=True):
            alone = task.decode(one)
            assert torch.equal(alone.point["object"], two.point["object"])
            assert len(two.object["energy"]) == two.rows("object") == alone.rows("object")
            torch.testing.assert_close(alone.object["energy"], two.object["energy"], rtol=1e-4, atol=1e-4)
        assert all(torch.isfinite(part) for event in parts for part in task.loss(event).values())


@pytest.mark.parametrize("build", ["own", "dbscan", "hdbscan"])
@pytest.mark.parametrize("learn", LEARN)
def test_a_perfect_space_gives_the_true_objects(learn: str, build: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = made(learn=learn, build=build, radius=0.5, core=3, payload=("energy", "x"), offset=("x",))
    event = showers(0, number=6, noise=0)
    object = event.point["object"]
    space = torch.stack([3.0 * object, torch.zeros(len(object))], dim=1)
    best = torch.tensor([int(torch.nonzero(object == k)[2]) for k in range(6)])  # the third point of each
    logit = torch.zeros(len(object))
    logit[best] = 2.0
    target = task.payload(event)
    values = torch.full((len(object), 2), 99.0) if learn == "condensation" else target
    values[best] = target[best]
    monkeypatch.setattr(task, "forward", lambda _: (logit if learn == "condensation" else space, space, values))
    found = task.decode(event)
    pairs = torch.stack([found.point["object"], object]).unique(dim=1)
    assert pairs.shape[1] == found.rows("object") == 6
    for name in ("energy", "x"):
        torch.testing.assert_close(found.object[name], event.object[name][pairs[1]], rtol=1e-4, atol=1e-4)
    rates = task.score(event)
    assert float(rates["efficiency"].value) == float(rates["purity"].value) == 1


def test_payload_there_and_back() -> None:
    event = showers(1)
    payload = Payload(("energy", "x"), ("energy",), ("x",))
    payload.fit([event])
    target, own = payload(event), event.point["object"] >= 0
    torch.testing.assert_close(target[own].mean(0), torch.zeros(2), atol=1e-3, rtol=0)
    assert float(payload.middle[0]) == pytest.approx(np.log(1.5), abs=0.06)
    away = event.point["x"][own] - event.object["x"][event.point["object"][own]]
    assert float(payload.width[1]) == pytest.approx(float(away.std(correction=0)), rel=1e-4)
    first = torch.stack([torch.nonzero(event.point["object"] == k)[0, 0] for k in range(event.rows("object"))])
    found = payload.found(event, payload.absolute(event, target)[first], event.point["object"])
    for name, column in found.items():
        torch.testing.assert_close(column, event.object[name], rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match=r"object\.mass: missing"):
        Payload(("mass",)).fit([event])
    again = Payload(("energy", "x"), ("energy",), ("x",))
    again.fit([Event(), event])  # an event without points has no columns
    torch.testing.assert_close(again.width, payload.width)
    Payload(()).fit([Event()])


def test_moving_all_points_moves_what_is_found() -> None:
    task = made("neighbours", columns=("energy",), start=("x", "y"), payload=("x",), ratio=(), offset=("x",), unit=2.0)
    event = task.prepare(showers(3))
    moved = event.with_columns("point", x=event.point["x"] + 40, y=event.point["y"] - 8)
    with torch.no_grad():
        for one, two, shift in zip(task(event), task(moved), (0.0, torch.tensor([20.0, -4.0, 0.0]), 0.0), strict=True):
            torch.testing.assert_close(two, one + shift, rtol=1e-4, atol=1e-4)
        found, other = task.decode(event), task.decode(moved)
    assert torch.equal(found.point["object"], other.point["object"])
    torch.testing.assert_close(other.object["x"], found.object["x"] + 40, rtol=1e-4, atol=1e-4)


def test_towers_are_given_to_the_network() -> None:
    columns = ("energy", "tower", "around", "peak")
    task, plain = (made("neighbours", columns=columns[:size], tower=3.0, payload=(), ratio=()) for size in (4, 1))
    event = showers(3)
    known = task.arrays(task.prepare(event))["point"]
    assert known.shape[1] == plain.arrays(plain.prepare(event))["point"].shape[1] + 3
    assert torch.equal(known[:, 1], event.point["energy"])  # no two cells have one place
    assert known[:, 3].max() == 1


def test_small_objects_are_neither_learned_nor_noise() -> None:
    event = showers(2, number=3, noise=0)
    task = made(min_hits=50, payload=(), ratio=())
    parts = task.loss(event)
    assert all(float(part.detach()) == 0 for part in parts.values())
    weighted = made(payload=(), ratio=(), weights=(1.0, 2.0, 3.0, 4.0)).loss(event)
    for factor, (name, part) in enumerate(made(payload=(), ratio=()).loss(event).items(), start=1):
        assert float(weighted[name].detach()) == pytest.approx(factor * float(part.detach()))


AXES: dict[str, Any] = {"payload": ("energy", "x", "y", "dx", "dy"), "offset": ("x", "y"), "start": ("x", "y")}


def deep(seed: int, number: int = 6, noise: int = 10) -> Event:
    """``showers`` with cells at depths."""
    event = showers(seed, number, noise)
    return event.with_columns(
        "point", z=60 * torch.rand(event.rows("point"), generator=torch.Generator().manual_seed(1))
    )


def test_a_shower_gets_the_points_in_which_it_leaves_most() -> None:
    # Two axes at x = 0 and 8 mm where z = 30 mm, the second leaning by 1 in 10; energies 1 and e GeV, lateral 2 mm.
    point = {
        "x": torch.tensor([0.0, 8.0, 3.0, 3.5, 3.5, 3.5, 50.0, 3.5]),
        "y": torch.zeros(8),
        "z": torch.tensor([30.0, 30.0, 30.0, 30.0, 20.0, 30.0, 30.0, 30.0]),
    }
    objects = {"energy": [1.0, np.e], "x": [0.0, 8.0], "y": [0.0, 0.0], "dx": [0.0, 0.1], "dy": [0.0, 0.0]}
    columns = {name: torch.tensor(column) for name, column in objects.items()}
    place = torch.tensor([[0.0], [2.0], [1.0], [1.0], [1.0], [0.8], [9.0], [1.0]])
    number = torch.tensor([0, 1, 1, 0, 0, 1, 0, -1])
    settings: dict[str, float] = {"take": 1.5, "lateral": 2.0}
    found = share(Event(point=point), place, torch.tensor([0, 1]), number, columns, **settings)
    # by hand, ln E - r / 2 - d:
    # 2: -3/2 - 1 = -2.50 against 1 - 5/2 - 1 = -2.50, of equals the first of the pairs, by place: the one at 0
    # 3: -3.5/2 - 1 = -2.75 against 1 - 4.5/2 - 1 = -2.25
    # 4: the same against 1 - 3.5/2 - 1 = -1.75, as the second axis is at 7 mm there
    # 5: -3.5/2 - 0.8 = -2.55 against 1 - 4.5/2 - 1.2 = -2.45;  6: out of reach of both, stays;  7: noise, stays
    assert found.tolist() == [0, 1, 0, 1, 1, 1, 0, -1]
    # out of reach of one: 5 stays with the other, whatever the axes say
    near = share(Event(point=point), place, torch.tensor([0, 1]), number, columns, take=1.1, lateral=2.0)
    assert near.tolist() == [0, 1, 0, 1, 1, 0, 0, -1]
    # the point that stands for a shower stays with it
    columns["energy"] = torch.tensor([1.0, 1e6])
    place[1] = 1.2
    assert share(Event(point=point), place, torch.tensor([0, 1]), number, columns, **settings).tolist()[:2] == [0, 1]


def test_shared_showers_have_the_energies_of_their_points() -> None:
    common = {"threshold": 0.3, "radius": 0.8, "take": 2.0, "join": ("x", "y"), "near": ("x", "y"), **AXES}
    task, plain = made("neighbours", lateral=2.0, **common), made("neighbours", **common)  # of the same weights
    parts = [task.prepare(deep(seed, number, 9)) for seed, number in enumerate([5, 0, 8, 1])]
    together = batch(parts)
    with torch.no_grad():
        found, before = task.decode(together), plain.decode(together)
        assert task.decode(task.prepare(Event())).rows("object") == 0
        for one, two in zip(parts, unbatch(found), strict=True):
            assert torch.equal(task.decode(one).point["object"], two.point["object"])
    assert torch.equal(found.point["object"] >= 0, before.point["object"] >= 0)
    assert not torch.equal(found.point["object"], before.point["object"])
    ratios = []
    for one in (found, before):
        own = one.point["object"] >= 0
        number, energy = one.point["object"][own], together.point["energy"][own]
        ratios.append(one.object["energy"] / torch.zeros(one.rows("object")).index_add(0, number, energy))
        assert torch.equal(one.object["hits"], torch.bincount(number))
    torch.testing.assert_close(*ratios)


def test_joined_columns_are_dimensions_of_the_space(monkeypatch: pytest.MonkeyPatch) -> None:
    task = made(learn="condensation", join=("x",), unit=2.0, radius=0.6, object_hits=1, **AXES)
    event = deep(0, number=1, noise=0)
    points = event.rows("point")
    logit, space = torch.full((points,), 2.0), torch.zeros((points, 2))
    event = event.with_columns("point", x=torch.arange(points).float())
    values = torch.zeros((points, 5))
    monkeypatch.setattr(task, "forward", lambda _: (logit, space, values))
    # places 0.5 apart: each point that begins takes the next one
    assert task.decode(event).rows("object") == (points + 1) // 2


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "start": ({"start": ("z",)}, r"point\.z: missing in the events"),
    "ratio": ({"ratio": ("mass",)}, r"task\.ratio: expected some of task\.payload, energy, u, found 'mass'"),
    "columns": ({"columns": (), "near": ()}, r"task\.columns: expected at least one"),
    "offset": ({"offset": ("x",)}, r"task\.offset: expected some of task\.payload, energy, u, found 'x'"),
    "near": ({"near": ("x", "x", "x", "x", "x")}, r"task\.near: expected at most 4 columns"),
    "take": ({"take": 0.2}, r"task\.take: expected 0, or at least task\.radius = 0\.5, found 0\.2"),
    "join": ({"join": ("x",)}, r"task\.join: expected some of task\.payload, energy, u, found 'x'"),
    "joined ratio": ({"join": ("energy",), "ratio": ("energy",)}, r"task\.join: expected columns that are not in task"),
    "followers": ({"join": ("u",), "learn": "influencer"}, r'task\.lateral: expected task\.learn = "condensation"'),
    "lateral": ({"lateral": -1.0}, r"task\.lateral: expected 0, or a distance in mm, found -1\.0"),
    "axes": ({"lateral": 1.0, "take": 1.0}, r"task\.lateral: expected energy, x, y, dx, dy in task\.payload, and"),
    "shared": ({"lateral": 1.0, "payload": AXES["payload"]}, r"in task\.payload, and task\.take above 0"),
    "tower": ({"tower": -1.0}, r"task\.tower: expected 0, or a distance in mm, found -1\.0"),
    "towers": ({"columns": ("x", "peak"), "near": ()}, r"point\.peak: missing in the events"),
    "unit": ({"unit": 0.0}, r"task\.unit: expected a number above 0, found 0\.0"),
    "dimensions": ({"start": ("x", "y"), "dimensions": 1}, r"task\.start: expected at most task\.dimensions = 1"),
    "weights": ({"weights": (1.0,)}, r"task\.weights: expected 5 numbers"),
    "missing": ({"columns": ("x", "time"), "near": ()}, r"point\.time: missing in the events"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name: str) -> None:
    settings, message = MISTAKES[name]
    with pytest.raises(UserError, match=message):
        made(**settings)


def test_a_network_of_points_alone_is_refused() -> None:
    with pytest.raises(UserError, match=r"edges = true and depth of at least 1"):
        Condense(CondenseConfig(), nn.Identity(), MessageConfig(depth=0))


def saved(path: Path, raw: dict[str, Any], events: list[Event]) -> Path:
    run, task = checkpoint.start(parse(raw, "test"))
    task.fit(events)
    checkpoint.save(path, {f"weights/{name}": tensor for name, tensor in task.state_dict().items()}, run)
    return path


@pytest.mark.parametrize("learn", LEARN)
def test_any_cloud_is_exported(learn: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from cloudchamber.export import MANIFEST, Network, export

    raw = {
        "model": {"kind": "message", "width": 6, "depth": 1, "neighbours": 3},
        "task": {
            "kind": "condense",
            "learn": learn,
            "columns": ["energy"],
            "payload": ["energy"],
            "start": ["x", "y"],
            "near": ["x", "y"],
        },
    }
    path = saved(tmp_path / "model.safetensors", raw, [showers(seed) for seed in range(3)])
    assert export(path, tmp_path / "out") == tmp_path / "out" / MANIFEST  # on points made up
    task = checkpoint.load(path)[0]
    event = task.prepare(batch([showers(7), showers(8, 2, 0)]))
    arrays = list(task.arrays(event).values())
    with torch.inference_mode():
        expected = task.judge(*arrays)
    found = Network(tmp_path / "out" / "1-condensation.onnx", threads=2)(*arrays)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_reconstruct_fits_tracks_alone(toys: list[Event], toy: Callable[..., Event], tmp_path: Path) -> None:
    raw: dict[str, Any] = {
        "model": {"kind": "mlp", "width": 6},
        "task": {"kind": "condense", "layered": True, "threshold": 0.0, "helix": True},
    }
    finder = Reconstructor(saved(tmp_path / "tracks.safetensors", raw, toys))
    predicted = finder(toys[0])
    assert len(predicted.object["pt"]) == predicted.rows("object") > 0
    assert list(finder.stage_rates(toys[0])) == ["condensation", "tracks"]
    raw["task"]["helix"] = False
    found = Reconstructor(saved(tmp_path / "other.safetensors", raw, toys))(toys[0])
    assert set(found.object) == {"hits"}
