"""Scores of predictions: the perfect one, one counted by hand, and what cannot be scored."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from cloudchamber.data import EventSource
from cloudchamber.errors import UserError
from cloudchamber.evaluate import SCORES, evaluate, evaluate_directory
from cloudchamber.event import Event
from cloudchamber.predictions import SUBMISSION

HEADER = "event_id,hit_id,track_id\n"


def source(*events: Event) -> EventSource:
    return EventSource(
        Path("events"), tuple((f"event{i}", lambda event=event: event) for i, event in enumerate(events))
    )


def submit(directory: Path, *events: Event) -> Path:
    """A submission in which every particle is a track."""
    rows = [
        f"{int(event.scene['id'])},{hit},{track + 1}\n"
        for event in events
        for hit, track in zip(event.point["id"].tolist(), event.point["object"].tolist(), strict=True)
    ]
    (directory / SUBMISSION).write_text(HEADER + "".join(rows))
    return directory


def test_a_perfect_prediction(toys: list[Event], tmp_path: Path) -> None:
    scores = evaluate_directory(submit(tmp_path, *toys), source(*toys))
    assert scores.events == 4
    for values in scores.per_event.values():
        assert values == pytest.approx([1.0] * 4)
    assert set(scores.rates) == {"pT > 1 GeV", "pT > 0.5 GeV", "all"}
    for styles in scores.rates.values():
        for found in styles.values():
            assert float(found["efficiency"].value) == float(found["purity"].value) == 1
            assert float(found["fake_rate"].value) == float(found["duplicate_rate"].value) == 0
    assert int(scores.rates["all"]["double"]["efficiency"].total) == 100
    read = json.loads((tmp_path / SCORES).read_text(), parse_constant=pytest.fail)  # NaN is no JSON
    assert read == scores.to_dict()
    assert read["scores"]["trackml"]["mean"] == pytest.approx(1)
    assert len(read["efficiency"]["pt"]["value"]) + 1 == len(read["efficiency"]["pt"]["edges"])


def small(*objects: int) -> Event:
    """An event of hits 1, 2, ... of equal weight that belong to particles 0, 1, ..."""
    label = torch.tensor(objects)
    weight = torch.full((len(objects),), 1 / len(objects), dtype=torch.float64)
    point = {"id": torch.arange(1, len(objects) + 1), "object": label, "weight": weight}
    number = int(label.max()) + 1
    particles = {"id": torch.arange(1, number + 1), "hits": torch.bincount(label[label >= 0], minlength=number)}
    return Event(point=point, object=particles, scene={"id": torch.tensor([0])})


def test_a_prediction_counted_by_hand(tmp_path: Path) -> None:
    truth = small(*[0] * 6, *[1] * 4, *[2] * 4)
    tracks = [*[1] * 5, 2, 2, 2, 2, 2, 0, 3, 3, 0]  # 5 of 6; 4 of 4 and one more; 2 of 4, too short to be counted
    (tmp_path / SUBMISSION).write_text(HEADER + "".join(f"0,{i},{track}\n" for i, track in enumerate(tracks, 1)))
    scores = evaluate_directory(tmp_path, source(truth))
    assert scores.per_event["trackml"] == pytest.approx([(5 + 4) / 14])
    found = scores.rates["all"]["double"]
    assert (int(found["efficiency"].passed), int(found["efficiency"].total)) == (2, 3)
    assert (int(found["fake_rate"].passed), int(found["fake_rate"].total)) == (0, 2)
    assert list(scores.rates) == ["all"]  # no momenta, nothing to select by
    assert scores.binned == {}
    read = json.loads((tmp_path / SCORES).read_text(), parse_constant=pytest.fail)
    assert read["scores"]["trackml"]["error"] is None  # one event has none


def test_mean_and_error_over_events(toys: list[Event]) -> None:
    nothing = Event(
        point={"id": toys[1].point["id"], "object": torch.full_like(toys[1].point["id"], -1)},
        object={"hits": torch.zeros(0, dtype=torch.int64)},
        scene=toys[1].scene,
    )
    scores = evaluate([toys[0], nothing], toys[:2])
    assert scores.mean("trackml") == pytest.approx((0.5, 0.5))
    assert math.isnan(evaluate([], []).mean("v")[0])


def test_without_weights(toys: list[Event], tmp_path: Path) -> None:
    point = {name: column for name, column in toys[0].point.items() if name != "weight"}
    bare = Event(point=point, object=toys[0].object, scene=toys[0].scene)
    scores = evaluate_directory(submit(tmp_path, bare), source(bare))
    assert scores.per_event["trackml"] == []
    assert scores.per_event["v"] == pytest.approx([1.0])
    assert json.loads((tmp_path / SCORES).read_text())["scores"]["trackml"]["mean"] is None


def test_an_event_without_hits_is_passed_over(toys: list[Event], tmp_path: Path) -> None:
    none = toys[1].point["id"] < 0
    empty = Event(
        point={name: column[none] for name, column in toys[1].point.items()},
        object=toys[1].object,
        scene={**toys[1].scene},
    )
    assert evaluate_directory(submit(tmp_path, toys[0], empty), source(toys[0], empty)).events == 1


def test_what_cannot_be_scored(toys: list[Event], tmp_path: Path) -> None:
    submit(tmp_path, toys[0])
    with pytest.raises(UserError, match=r"no prediction for event 1 \(event1\)"):
        evaluate_directory(tmp_path, source(*toys[:2]))
    point = {name: toys[0].point[name] for name in ("id", "x", "y", "z")}
    with pytest.raises(UserError, match="event0: has no truth"):
        evaluate_directory(tmp_path, source(Event(point=point, scene=toys[0].scene)))
    (tmp_path / SUBMISSION).write_text(f"{HEADER}0,1,1\n0,9999,1\n")
    with pytest.raises(UserError, match=r"event 0 \(event0\): .*9999"):
        evaluate_directory(tmp_path, source(toys[0]))
    assert not (tmp_path / SCORES).exists()
