"""Every task, by the table: fit, prepare, loss, decode, score and stages on toy events."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from cloudchamber.data.graph import Windows, WindowsConfig
from cloudchamber.errors import UserError
from cloudchamber.event import Event, batch, unbatch
from cloudchamber.nn import BLOCKS, MessageConfig
from cloudchamber.tasks import TASKS, Proposal, Task
from cloudchamber.tasks.edges import Edges, EdgesConfig
from cloudchamber.tasks.tracks import fitted_tracks, track_pairs

Maker = Callable[..., Event]
PARAMETERS = ("charge", "pt", "eta", "phi", "d0", "z0", "hits")


def made(kind: str, events: list[Event], **settings: object) -> Task:
    """A fitted task with random weights."""
    torch.manual_seed(0)
    config, task = TASKS[kind]
    model, _ = BLOCKS[task.models[0]]
    result = task(config(**settings), Windows(WindowsConfig(worth=1e-4)), model(width=8, depth=1))  # type: ignore[call-arg]
    result.fit(events)
    return result


SETTINGS: dict[str, dict[str, object]] = {
    "edges": {},
    "embed": {},
    "condense": {"helix": True, "layered": True, "payload": ("pz",)},
}


@pytest.fixture(scope="module", params=SETTINGS)
def task(request: pytest.FixtureRequest, toys: list[Event]) -> Task:
    return made(request.param, toys, **SETTINGS[request.param])


def untrue(event: Event) -> Event:
    """The event as a user without truth has it."""
    point = {name: event.point[name] for name in ("id", "x", "y", "z", "volume", "layer", "module")}
    return Event(point=point, scene=event.scene, count={"point": event.count["point"], "scene": event.count["scene"]})


def check_prediction(predicted: Event, event: Event) -> None:
    assert len(predicted) == len(event)
    assert torch.equal(predicted.count["point"], event.count["point"])
    assert torch.equal(predicted.point["id"], event.point["id"])
    assert predicted.point["object"].dtype == torch.int64
    for name in PARAMETERS:
        assert len(predicted.object[name]) == predicted.rows("object"), name
    used = predicted.point["object"][predicted.point["object"] >= 0]
    assert torch.equal(torch.bincount(used, minlength=predicted.rows("object")), predicted.object["hits"])


def test_the_loss_is_finite_and_trains(task: Task, toys: list[Event]) -> None:
    event = batch([task.prepare(event) for event in toys[:2]])
    optimizer = torch.optim.Adam(task.parameters(), 0.01)
    losses = []
    for _ in range(6):
        torch.manual_seed(0)
        parts = task.loss(event)
        assert all(part.shape == () for part in parts.values())
        loss = torch.stack(list(parts.values())).sum()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in task.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(("tracks", "noise"), [(0, 0), (0, 1), (1, 0), (25, 20)])
def test_predictions_of_any_event(task: Task, toy: Maker, tracks: int, noise: int) -> None:
    event = toy(3, tracks, noise)
    for given in (event, untrue(event)):
        prepared = task.prepare(given)
        check_prediction(task.decode(prepared), given)
        stages = task.stages(given)
        assert stages
        for found in stages.values():
            assert found.edge["sender"].shape == found.edge["receiver"].shape
    parts = task.loss(task.prepare(event))
    assert all(torch.isfinite(part) for part in parts.values())
    for fraction in task.score(task.prepare(event)).values():
        assert fraction.total >= fraction.passed >= 0


def test_a_batch_is_decoded_and_proposed_as_its_events_are(task: Task, toys: list[Event], toy: Maker) -> None:
    parts = [task.prepare(event) for event in (toys[0], toy(1, 0, 0), toys[1], toy(1, 0, 1))]
    for one, two in zip(parts, unbatch(task.decode(batch(parts))), strict=True):
        assert torch.equal(task.decode(one).point["object"], two.point["object"])
    for one, two in zip(parts, unbatch(task.propose(batch(parts))), strict=True):
        alone = task.propose(one)
        assert set(zip(alone.edge["sender"].tolist(), alone.edge["receiver"].tolist(), strict=True)) == set(
            zip(two.edge["sender"].tolist(), two.edge["receiver"].tolist(), strict=True)
        )


def test_a_task_is_the_graph_of_the_next(task: Task, toys: list[Event]) -> None:
    stacked = Edges(EdgesConfig(stage="last"), Proposal(task), MessageConfig(width=8, depth=1))
    stacked.fit(toys)
    event = stacked.prepare(toys[0])
    inner = task.propose(task.prepare(toys[0]))
    assert torch.equal(event.edge["sender"], inner.edge["sender"])
    assert list(stacked.stages(toys[0])) == [*task.stages(toys[0]), "last"]
    stacked.loss(event)["edges"].backward()
    assert all(parameter.grad is not None for parameter in stacked.network.parameters())
    assert not any(parameter.requires_grad for parameter in stacked.graph.parameters())
    check_prediction(stacked.decode(event), toys[0])
    task.requires_grad_(True)


@pytest.mark.parametrize("build", ["walk", "components"])
def test_perfect_edges_give_the_true_tracks(toys: list[Event], build: str) -> None:
    task = made("edges", toys, build=build)
    event = task.prepare(toys[0])
    logit = torch.where(event.edge["hits"] > 0, 5.0, -5.0)
    task.forward = lambda *_: logit  # type: ignore[method-assign,assignment]
    predicted = task.decode(event)
    check_prediction(predicted, toys[0])
    assert predicted.rows("object") == 25
    pairs = torch.stack([predicted.point["object"], toys[0].point["object"]]).unique(dim=1)
    assert pairs.shape[1] == 26  # one to one, and noise
    order = pairs[1][1:]
    torch.testing.assert_close(predicted.object["charge"], toys[0].object["charge"][order])
    true = torch.hypot(toys[0].object["px"], toys[0].object["py"])[order]
    assert (predicted.object["pt"] / true - 1).abs().median() < 0.05
    rates = task.score(event)
    assert float(rates["efficiency"].value) == float(rates["purity"].value) == 1
    assert track_pairs(toys[0], predicted).rows("edge") == 25 * 7


def test_a_sample_of_edges_is_refused_by_message_passing(toys: list[Event]) -> None:
    with pytest.raises(UserError, match="sample"):
        Edges(EdgesConfig(sample=5), Windows(WindowsConfig()), MessageConfig(depth=1))
    task = Edges(EdgesConfig(sample=5), Windows(WindowsConfig()), MessageConfig(width=8, depth=0))
    task.fit(toys)
    assert torch.isfinite(task.loss(task.prepare(toys[0]))["edges"])


def test_sampled_edges_are_judged_as_all_are(toys: list[Event]) -> None:
    task = Edges(EdgesConfig(), Windows(WindowsConfig()), MessageConfig(width=8, depth=0))
    task.fit(toys)
    event, rows = task.prepare(toys[0]), torch.tensor([3, 0, 7])
    torch.testing.assert_close(task(event, rows), task(event)[rows])


def test_tracks_of_a_batch_are_numbered_by_event(toys: list[Event]) -> None:
    event = batch(toys[:2])
    track = torch.where(event.point["object"] >= 0, 49 - event.point["object"], -1)  # those of the second come first
    predicted = fitted_tracks(event, track)
    check_prediction(predicted, event)
    assert predicted.count["object"].tolist() == [25, 25]
    none = fitted_tracks(event, torch.full_like(track, -1))
    assert none.rows("object") == 0
    assert (none.point["object"] == -1).all()
