"""Track quality: what is known of a track, what it is trained to, and which tracks it drops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cloudchamber import checkpoint
from cloudchamber.config import parse
from cloudchamber.errors import UserError
from cloudchamber.event import Event, batch, unbatch
from cloudchamber.tasks.quality import Quality
from cloudchamber.tasks.tracks import EVIDENCE, GATHERED, evidence, gathering


@pytest.fixture(scope="module", params=["edges", "condensation", "influencer"])
def quality(request: pytest.FixtureRequest, finder: Callable[[str], Path], toys: list[Event]) -> Quality:
    raw = {
        "graph": {"kind": "task", "weights": str(finder(request.param))},
        "model": {"kind": "mlp", "width": 8},
        "task": {"kind": "quality"},
    }
    _, task = checkpoint.start(parse(raw, "test"))
    assert isinstance(task, Quality)
    task.fit(toys)
    return task


def with_logits(task: Quality, logit: torch.Tensor) -> None:
    task.forward = lambda *_: logit  # type: ignore[method-assign,assignment]


def test_evidence_by_hand() -> None:
    track = np.array([0, 0, 0, 1, 1, -1])
    sender, receiver = np.array([0, 1, 0, 3, 2, 4, 5]), np.array([1, 2, 2, 4, 3, 5, 5])
    logit = np.array([3.0, 1.0, -2.0, 99.0, 0.5, -1.0, 7.0])
    found = evidence(track, sender, receiver, logit)
    expected = {
        "joined": [3 / 3, 1 / 2],
        "mean_logit": [2 / 3, 12.0],
        "least_logit": [-2.0, 12.0],
        "rivals": [1.0, 1.0],
        "rival_logit": [0.5, 0.5],
    }
    assert tuple(found) == EVIDENCE == tuple(expected)
    for name, column in found.items():
        assert column.tolist() == pytest.approx(expected[name]), name
    none = np.zeros(0, np.int64)
    assert all(len(column) == 0 for column in evidence(np.array([-1, -1]), none, none, np.zeros(0)).values())


def test_gathering_by_hand() -> None:
    """Two tracks about (1, 0) and (0, 5), and a point of none."""
    track = torch.tensor([0, 0, 1, 1, -1])
    space = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 8.0], [9.0, 9.0]])
    found = gathering(track, space, torch.tensor([0.0, 2.0, -1.0, -2.0, 7.0]), 2)
    assert found["extent"].tolist() == pytest.approx([1.0, 3.0])
    assert found["core"].tolist() == pytest.approx([np.log(1 + np.exp(2)), np.log(1 + np.exp(-1))])
    influencers = torch.tensor([[1.0, 2.0], [1.0, -2.0], [0.0, 5.0], [4.0, 5.0], [0.0, 0.0]])
    found = gathering(track, space, influencers, 2)
    assert found["core"].tolist() == pytest.approx([2.0, np.sqrt(8)])


def test_tracks_over_judged_edges_are_known_by_these_too(finder: Callable[[str], Path], toys: list[Event]) -> None:
    raw = {
        "graph": {"kind": "task", "weights": str(finder("edges"))},
        "model": {"kind": "message", "width": 6, "depth": 1},
        "task": {"kind": "condense", "columns": ["eta"], "threshold": 0.0, "helix": True},
    }
    _, task = checkpoint.start(parse(raw, "test"))
    task.fit(toys)
    found = task.decode(task.prepare(toys[0]))
    assert found.rows("object") > 0
    assert set(getattr(task, "evidence", ())) == {*GATHERED, *EVIDENCE} < set(found.object)


def test_the_target_is_the_double_majority(quality: Quality, toys: list[Event]) -> None:
    particle = toys[0].point["object"]
    swapped = torch.where(
        (particle >= 0) & (particle < 10) & (torch.arange(len(particle)) % 2 == 0), particle ^ 1, particle
    )
    found = quality.prepare(toys[0].with_columns("point", object=swapped))
    track, particle = found.point["object"].numpy(), swapped.numpy()
    for row in range(found.rows("object")):
        own, count = np.unique(particle[track == row], return_counts=True)
        good = 0
        for number, shared in zip(own, count, strict=True):
            good += number >= 0 and 2 * shared > (track == row).sum() and 2 * shared > (particle == number).sum()
        assert bool(found.object["right"][row]) == bool(good)
    assert 0 < int(found.object["right"].sum()) < found.rows("object")


def test_the_loss_trains_the_network_and_nothing_before_it(quality: Quality, toys: list[Event]) -> None:
    event = batch([quality.prepare(toy) for toy in toys])
    optimizer = torch.optim.Adam([p for p in quality.parameters() if p.requires_grad], 0.01)
    losses = []
    for _ in range(30):
        loss = quality.loss(event)["tracks"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert not any(parameter.requires_grad for parameter in quality.graph.parameters())
    rates = quality.score(event)
    assert 0 < rates["purity"].total <= event.rows("object")


def test_doubtful_tracks_are_dropped_and_the_others_renumbered(quality: Quality, toys: list[Event]) -> None:
    event = batch([quality.prepare(toys[0]), quality.prepare(toys[1])])
    tracks = event.rows("object")
    kept = torch.arange(tracks) % 3 != 0
    logit = torch.where(kept, 2.0, -2.0)
    try:
        with_logits(quality, logit)
        found = quality.decode(event)
    finally:
        del quality.forward
    assert found.rows("object") == int(kept.sum()) == len(found.object["pt"])
    assert found.object["quality"].tolist() == pytest.approx([1 / (1 + np.exp(-2))] * int(kept.sum()))
    torch.testing.assert_close(found.object["pt"], event.object["pt"][kept], equal_nan=True)
    hits = torch.bincount(found.point["object"][found.point["object"] >= 0], minlength=found.rows("object"))
    assert torch.equal(hits, found.object["hits"])
    before, after = event.point["object"], found.point["object"]
    assert torch.equal(after >= 0, (before >= 0) & kept[before.clamp(min=0)])
    for one, two in zip(unbatch(quality.decode(event)), toys[:2], strict=True):
        alone = quality.decode(quality.prepare(two))
        assert torch.equal(alone.point["object"], one.point["object"])


def test_inputs_are_finite_whatever_the_fit_gave(quality: Quality, toys: list[Event]) -> None:
    event = quality.prepare(toys[0])
    bad = event.with_columns("object", chi2=torch.full_like(event.object["chi2"], torch.nan))
    assert torch.isfinite(quality.arrays(bad)["object"]).all()
    assert quality.arrays(bad)["object"].shape == (event.rows("object"), len(quality.columns["object"]))
    empty = quality.decode(quality.prepare(Event(point={k: v[:1] for k, v in toys[0].point.items()})))
    assert empty.rows("object") == 0


@pytest.mark.parametrize("graph", [{"kind": "windows"}, {"kind": "task", "weights": "embed"}])
def test_only_found_tracks_can_be_judged(finder: Callable[[str], Path], graph: dict[str, str]) -> None:
    if "weights" in graph:
        graph = graph | {"weights": str(finder("embed"))}
    with pytest.raises(UserError, match="edges"):
        checkpoint.start(parse({"graph": graph, "model": {"kind": "mlp"}, "task": {"kind": "quality"}}, "test"))


def test_nothing_is_built_on_tracks(quality: Quality, toys: list[Event]) -> None:
    with pytest.raises(UserError, match="ends a pipeline"):
        quality.propose(quality.prepare(toys[0]))
