"""Tagging: the symmetries that each network claims, and what a batch of jets goes through."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cloudchamber import checkpoint
from cloudchamber.config import parse
from cloudchamber.data.constituents import MOMENTUM
from cloudchamber.errors import UserError
from cloudchamber.event import Event, unbatch
from cloudchamber.tasks.tag import Tag

Maker = Callable[..., Event]

#: Settings of every kind of network: model, task, graph.
RAW: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "deep sets": ({"kind": "mlp", "width": 12}, {"pool": "mean"}, {}),
    "deep sets, maximum": ({"kind": "mlp", "width": 12}, {"pool": "max"}, {}),
    "deep sets, attention": ({"kind": "mlp", "width": 12}, {"pool": "attention"}, {}),
    "particle flow": ({"kind": "mlp", "width": 12}, {"columns": ["deta", "dphi", "lnptrel", "type"]}, {}),
    "energy flow": ({"kind": "mlp", "width": 12}, {"columns": ["deta", "dphi"], "weight": "pt"}, {}),
    "edge convolution": (
        {"kind": "message", "width": 12, "depth": 2, "neighbours": 5, "edges": False, "both": False, "gather": "mean"},
        {"pool": "mean"},
        {},
    ),
    "graph attention": (
        {"kind": "message", "width": 12, "depth": 2, "both": False, "gather": "attention", "heads": 3},
        {},
        {"join": "nearest", "k": 5},
    ),
    "interaction network": ({"kind": "message", "width": 12, "depth": 2}, {}, {"join": "all"}),
    "rewired and placed": (
        {"kind": "message", "width": 12, "depth": 2},
        {"columns": ["deta", "dphi", "lnpt", "degree", "return2", "return3", "return4"]},
        {"join": "nearest", "k": 4, "rewire": "diffusion", "places": True},
    ),
    "set transformer": ({"kind": "attention", "width": 12, "depth": 2, "inducing": 3}, {"pool": "attention"}, {}),
    "particle transformer": (
        {"kind": "attention", "width": 12, "depth": 2, "pairs": 8},
        {"pool": "attention", "pool_depth": 2},
        {},
    ),
    "lorentz": ({"kind": "lorentz", "width": 12, "depth": 3}, {"columns": [], "pool": "mean"}, {}),
    "lorentz, beam": (
        {"kind": "lorentz", "width": 12, "depth": 3, "beam": True},
        {"columns": ["lnpt", "lnptrel"], "pool": "mean"},
        {},
    ),
}
every = pytest.mark.parametrize("name", RAW)


def made(name: str, events: Event, **task: Any) -> Tag:
    """A fitted task with random weights."""
    model, settings, graph = RAW[name]
    raw = {"model": model, "task": {"kind": "tag", **settings, **task}, "graph": graph}
    _, found = checkpoint.start(parse(raw, "test"))
    assert isinstance(found, Tag)
    found.fit(unbatch(events))
    return found


def outputs(task: Tag, event: Event) -> Tensor:
    """The logits of raw events."""
    with torch.no_grad():
        found: Tensor = task(task.prepare(event))[0]
    return found


def changed(event: Event, rows: Tensor, **columns: Tensor) -> Event:
    """The event with the points of other rows, and columns of them replaced."""
    point = {name: column[rows] for name, column in event.point.items()} | columns
    count = torch.bincount(event.index("point")[rows], minlength=len(event))
    return event.with_level("point", point, count)


@every
def test_constituents_may_be_permuted(name: str, jets: Maker) -> None:
    event = jets(12, 1)
    task = made(name, event)
    order = torch.randperm(event.rows("point"))
    order = order[torch.argsort(event.index("point")[order], stable=True)]
    torch.testing.assert_close(outputs(task, changed(event, order)), outputs(task, event), rtol=1e-4, atol=1e-5)


@every
def test_a_batch_of_jets_gives_what_each_gives(name: str, jets: Maker) -> None:
    event = jets(9, 2, 1)
    event = changed(event, torch.nonzero(event.index("point") != 4).squeeze(1))
    task = made(name, event)
    alone = torch.cat([outputs(task, part) for part in unbatch(event)])
    torch.testing.assert_close(outputs(task, event), alone, rtol=1e-4, atol=1e-5)


@every
def test_empty_jets(name: str, jets: Maker) -> None:
    event = jets(3, 2)
    task = made(name, event)
    none = changed(event, torch.zeros(0, dtype=torch.int64))
    assert torch.isfinite(outputs(task, none)).all()
    middle = torch.nonzero(event.index("point") != 1).squeeze(1)
    both = outputs(task, changed(event, middle))
    torch.testing.assert_close(both[[0, 2]], outputs(task, event)[[0, 2]], rtol=1e-4, atol=1e-5)
    for given in (none, changed(event, middle)):
        loss = task.loss(task.prepare(given))["classes"]
        loss.backward()
        assert torch.isfinite(loss)


@every
def test_the_loss_falls_and_its_gradient_reaches_every_parameter(name: str, jets: Maker) -> None:
    event = jets(60, 3)
    task = made(name, event, regress=["mass"], origin=0.3, origins=2, vertex=0.3)
    prepared = task.prepare(event)
    optimizer = torch.optim.Adam(task.parameters(), 0.01)
    losses = []
    for _ in range(8):
        torch.manual_seed(0)
        parts = task.loss(prepared)
        assert list(parts) == ["classes", "numbers", "origin", "vertex"]
        loss = torch.stack(list(parts.values())).sum()
        optimizer.zero_grad()
        loss.backward()
        for key, parameter in task.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.grad.abs().sum() > 0, key
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert set(task.score(prepared)) == {"accuracy", "origin", "vertex"}


@every
def test_weights_survive_a_checkpoint(name: str, jets: Maker, tmp_path: Path) -> None:
    event = jets(6, 9)
    task = made(name, event)
    weights = {f"weights/{key}": tensor for key, tensor in task.state_dict().items()}
    model, settings, graph = RAW[name]
    run = parse({"model": model, "task": {"kind": "tag", **settings}, "graph": graph}, "test")
    checkpoint.save(tmp_path / "a.safetensors", weights, run)
    again, found = checkpoint.load(tmp_path / "a.safetensors")
    assert found == run
    assert isinstance(again, Tag)
    assert torch.equal(outputs(again, event), outputs(task, event))


@pytest.mark.parametrize(
    "name", ["edge convolution", "graph attention", "interaction network", "lorentz", "lorentz, beam"]
)
def test_parts_of_a_batch_give_what_it_gives(name: str, jets: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    event = jets(15, 10)
    event = changed(event, torch.nonzero(event.index("point") != 4).squeeze(1))
    task = made(name, event)
    whole = outputs(task, event)
    for size in (1, 50, 97):
        monkeypatch.setattr("cloudchamber.nn.scene.PART", size)
        torch.testing.assert_close(outputs(task, event), whole, rtol=1e-4, atol=1e-5)


def soft(event: Event, z: float) -> Event:
    """Every jet with one particle more, of a fraction z of its first one's momentum, at an angle to it."""
    points = event.rows("point")
    first = (event.count["point"].cumsum(0) - event.count["point"])[event.count["point"] > 0]
    rows = torch.cat([torch.arange(points), first])
    order = torch.argsort(event.index("point")[rows], stable=True)
    pt = z * torch.hypot(event.point["px"], event.point["py"])[first]
    phi = torch.atan2(event.point["py"], event.point["px"])[first] + 0.3
    new = {"px": pt * phi.cos(), "py": pt * phi.sin(), "pz": pt * 0.2, "energy": pt * 1.04**0.5}
    columns = {name: torch.cat([event.point[name], column])[order] for name, column in new.items()}
    return changed(event, rows[order], **columns)


def split(event: Event) -> Event:
    """The first particle of every jet as two of 30% and 70% of its momentum."""
    first = (event.count["point"].cumsum(0) - event.count["point"])[event.count["point"] > 0]
    fraction = torch.ones(event.rows("point"), dtype=torch.float64)
    fraction[first] = 0.3
    rows = torch.cat([torch.arange(len(fraction)), first])
    order = torch.argsort(event.index("point")[rows], stable=True)
    fraction = torch.cat([fraction, torch.full((len(first),), 0.7, dtype=torch.float64)])[order]
    rows = rows[order]
    return changed(event, rows, **{name: event.point[name][rows] * fraction for name in ("px", "py", "pz", "energy")})


@pytest.mark.parametrize("change", [lambda event: soft(event, 1e-7), split], ids=["soft", "collinear"])
def test_the_energy_flow_network_is_safe_and_the_particle_flow_network_is_not(
    change: Callable[[Event], Event], jets: Maker
) -> None:
    event = jets(50, 4)
    moved = {}
    for name in ("energy flow", "particle flow"):
        task = made(name, event)
        one, other = (outputs(task, given).softmax(1) for given in (event, change(event)))
        moved[name] = float((one - other).abs().max())
    assert moved["energy flow"] < 1e-5
    assert moved["particle flow"] > 1e-3


def along_the_beam(angle: float, rapidity: float) -> Tensor:
    """A turn about z and a boost along it, of (px, py, pz, E): ``(4, 4)``, float64."""
    cos, sin, cosh, sinh = math.cos(angle), math.sin(angle), math.cosh(rapidity), math.sinh(rapidity)
    turn, boost = [[cos, -sin], [sin, cos]], [[cosh, sinh], [sinh, cosh]]
    return torch.block_diag(torch.tensor(turn, dtype=torch.float64), torch.tensor(boost, dtype=torch.float64))


def transformation(seed: int, rapidity: float) -> Tensor:
    """A rotation, a boost along z and another rotation, of (px, py, pz, E): ``(4, 4)``, float64."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.eye(4, dtype=torch.float64)
    for turn in range(2):
        rotation = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
        rotation = rotation * torch.det(rotation)
        full = torch.eye(4, dtype=torch.float64)
        full[:3, :3] = rotation
        found = full @ found
        if not turn:
            found = along_the_beam(0.0, rapidity) @ found
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rapidity", [0.0, 0.5, 2.0])
def test_the_lorentz_network_is_invariant(seed: int, rapidity: float, jets: Maker) -> None:
    event = jets(20, 5)
    task = made("lorentz", event)
    p = torch.stack([event.point[name] for name in MOMENTUM], dim=1)
    turned = (p @ transformation(seed, rapidity).T).unbind(1)
    other = event.with_columns("point", **dict(zip(MOMENTUM, turned, strict=True)))
    single, moved = outputs(task, event), outputs(task, other)
    torch.testing.assert_close(moved, single, rtol=1e-4, atol=1e-4)
    exact, moved = outputs(task.double(), event), outputs(task.double(), other)
    torch.testing.assert_close(moved, exact, rtol=1e-8, atol=1e-8)
    assert float(exact.std(0).min()) > 1e-3  # it does look at the jets


def test_with_the_beam_the_lorentz_network_is_invariant_along_it_alone(jets: Maker) -> None:
    event = jets(20, 5)
    task = made("lorentz, beam", event).double()
    p = torch.stack([event.point[name] for name in MOMENTUM], dim=1).double()
    p[:, 3] = p[:, :3].norm(dim=1)  # pseudorapidities differ by the same in all these frames if there is no mass

    def seen(frame: Tensor) -> Tensor:
        return outputs(task, event.with_columns("point", **dict(zip(MOMENTUM, (p @ frame.T).unbind(1), strict=True))))

    expected = seen(torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(seen(along_the_beam(1.1, 0.8)), expected, rtol=1e-4, atol=1e-4)
    assert float((seen(transformation(1, 0.8)) - expected).abs().max()) > 0.01


def test_the_prediction_is_an_event(jets: Maker) -> None:
    event = jets(7, 6, 0)
    task = made("particle flow", event, regress=["mass"], origin=1.0, origins=2)
    found = task.decode(task.prepare(event))
    assert torch.equal(found.scene["id"], event.scene["id"])
    assert set(found.scene) == {"id", "p_qcd", "p_top", "mass"}
    torch.testing.assert_close(found.scene["p_qcd"] + found.scene["p_top"], torch.ones(7))
    assert torch.equal(found.count["point"], event.count["point"])
    assert set(found.point) == {"origin"}
    for one, two in zip(unbatch(event), unbatch(found), strict=True):
        alone = task.decode(task.prepare(one))
        torch.testing.assert_close(alone.scene["p_top"], two.scene["p_top"], rtol=1e-4, atol=1e-5)
    blind = Event(
        point={k: event.point[k] for k in ("px", "py", "pz", "energy", "type")}, count={"point": event.count["point"]}
    )
    torch.testing.assert_close(task.decode(task.prepare(blind)).scene["p_top"], found.scene["p_top"])


def test_vertices_are_what_likely_pairs_join(jets: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    event = jets(9, 6)
    event = changed(event, torch.nonzero(event.index("point") != 4).squeeze(1))
    task = made("particle flow", event, vertex=1.0)
    vertex, index = event.point["vertex"], event.index("point")

    def together(points: Tensor, one: Tensor, other: Tensor) -> Tensor:
        assert torch.equal(index[one], index[other])
        return torch.where(vertex[one] == vertex[other], 1.0, -1.0)

    monkeypatch.setattr(task, "_together", together)
    found = task.decode(task.prepare(event)).point["vertex"]
    for number in range(len(event)):
        true, own = vertex[index == number], found[index == number]
        assert (torch.stack([true, own]).unique(dim=1).shape[1]) == len(true.unique())  # one to one
        assert own.unique().tolist() == list(range(len(true.unique())))
        assert not len(own) or own[0] == 0


def test_targets_that_are_unknown_do_not_count(jets: Maker) -> None:
    event = jets(8, 7)
    task = made("particle flow", event, origin=1.0, origins=2, vertex=1.0)
    unknown = event.with_columns("scene", label=torch.full_like(event.scene["label"], -1))
    unknown = unknown.with_columns("point", **{k: torch.full_like(event.point[k], -1) for k in ("origin", "vertex")})
    parts = task.loss(task.prepare(unknown))
    assert [float(part.detach()) for part in parts.values()] == [0, 0, 0]
    assert all(score.total == 0 for score in task.score(task.prepare(unknown)).values())


MISTAKES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], str]] = {
    "a column that is none": (
        {"kind": "mlp"},
        {"columns": ["dpsi"]},
        {},
        r"task\.columns: expected some of deta.*dpsi",
    ),
    "nothing to learn": ({"kind": "mlp"}, {"classes": []}, {}, r"task\.classes"),
    "a weighed mean": ({"kind": "mlp"}, {"weight": "pt", "pool": "mean"}, {}, r"task\.weight"),
    "no graph": ({"kind": "message"}, {}, {}, r"graph\.join: this model needs"),
    "places in no graph": (
        {"kind": "mlp"},
        {"columns": ["degree"]},
        {"places": True},
        r"graph\.join: this model needs",
    ),
    "places not asked for": (
        {"kind": "mlp"},
        {"columns": ["degree"]},
        {"join": "all"},
        r"graph\.places: expected true",
    ),
    "an idle graph": ({"kind": "mlp"}, {}, {"join": "all"}, r"graph\.join: this model does not"),
    "heads": ({"kind": "attention", "width": 10, "heads": 4}, {}, {}, r"model\.heads"),
    "another graph": ({"kind": "mlp"}, {}, {"kind": "windows"}, r"graph\.kind: .*'neighbours', found 'windows'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name: str) -> None:
    model, task, graph, message = MISTAKES[name]
    with pytest.raises(UserError, match=message):
        checkpoint.start(parse({"model": model, "task": {"kind": "tag", **task}, "graph": graph}, "test"))


def test_events_that_do_not_fit(jets: Maker) -> None:
    event = jets(5, 8)
    task = made("deep sets", event)
    with pytest.raises(UserError, match=r"scene\.label: expected -1 to 1 .*found 7"):
        task.prepare(event.with_columns("scene", label=torch.full_like(event.scene["label"], 7)))
    with pytest.raises(UserError, match=r"point\.py: missing"):
        task.prepare(Event(point={"px": event.point["px"]}, count={"point": event.count["point"]}))
    with pytest.raises(UserError, match=r"scene\.label: missing"):
        task.loss(task.prepare(replace(event, scene={})))
    with pytest.raises(UserError, match=r"scene\.label: missing"):
        task.loss(task.prepare(Event(point=event.point, count={"point": event.count["point"]})))
