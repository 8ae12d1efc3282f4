"""Objects that are no tracks: found, written, scored and drawn by the verbs that do it for tracks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cloudchamber import checkpoint
from cloudchamber.__main__ import app
from cloudchamber.config import parse
from cloudchamber.data import open_events, store
from cloudchamber.errors import UserError
from cloudchamber.event import Event
from cloudchamber.predictions import OBJECTS, holds_objects, read_predictions, write_objects
from cloudchamber.reconstruct import Reconstructor, reconstruct

CENTRES = (-150.0, -60.0, 0.0, 18.0, 120.0)  # two of them are close


def showers(seed: int, centres: tuple[float, ...] = CENTRES) -> Event:
    """Cells around centres on a line, the energies of which sum up to those of the showers."""
    random = np.random.default_rng(seed)
    label = np.repeat(np.arange(len(centres)), 12)
    place = random.normal(0, 1.5, (len(label), 3)) + np.array([*centres, 0.0])[label][:, None] * [1.0, 0.0, 0.0]
    energy = random.exponential(1.0, len(label)) + 0.1
    point = {name: torch.from_numpy(place[:, i].astype(np.float32)) for i, name in enumerate("xyz")}
    point |= {"id": torch.arange(len(label)) + 7, "energy": torch.from_numpy(energy.astype(np.float32))}
    total = np.bincount(label, energy, minlength=len(centres))
    objects = {"x": torch.tensor(centres), "y": torch.zeros(len(centres))}
    objects["energy"] = torch.from_numpy(total.astype(np.float32))
    return Event(point=point | {"object": torch.from_numpy(label)}, object=objects, scene={"id": torch.tensor([seed])})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network whose space is that of the cells, so that it finds what lies apart."""
    task = {"kind": "condense", "columns": ["energy"], "start": ["x", "y"], "unit": 10.0, "spread": 1.0, "radius": 0.8}
    task |= {"payload": ["energy"], "ratio": ["energy"], "threshold": 0.01, "take": 1.2}
    run, found = checkpoint.start(parse({"model": {"kind": "mlp", "width": 4}, "task": task}, "test"))
    found.fit([showers(seed) for seed in range(3)])
    state = found.state_dict()
    last = max(name for name in state if name.startswith("network.") and name.endswith("weight"))
    for name in (last, last.replace("weight", "bias")):
        state[name] *= 0.0  # what it learns to add is nothing yet
    path = tmp_path_factory.mktemp("model") / "showers.safetensors"
    checkpoint.save(path, {f"weights/{name}": tensor for name, tensor in state.items()}, run)
    return path


@pytest.fixture
def events(tmp_path: Path) -> Path:
    for number in (3, 4, 5):
        store.write(tmp_path / "events" / f"event{number}.parquet", showers(number, CENTRES if number != 4 else ()))
    return tmp_path / "events"


def test_showers_from_events_to_scores_and_plots(model: Path, events: Path, tmp_path: Path) -> None:
    found, run = tmp_path / "found", CliRunner()
    done = run.invoke(app, ["reconstruct", str(events), "-o", str(found), "--model", str(model)])
    assert done.exit_code == 0, done.output
    assert "10 objects in 3 of 3 events" in done.output.replace("\n", "")
    assert sorted(path.name for path in found.iterdir()) == [OBJECTS]
    predicted = read_predictions(found)
    assert list(predicted) == [3, 4, 5]
    assert set(predicted[3].object) == {"energy", "hits"}
    assert torch.equal(predicted[3].point["id"], showers(3).point["id"])
    assert predicted[4].rows("object") == 0

    scored = run.invoke(app, ["evaluate", str(found), str(events)])
    assert scored.exit_code == 0, scored.output
    assert "Showers found, by energy" in scored.output
    assert "matching" not in scored.output  # rates that count points
    read = json.loads((found / "scores.json").read_text())
    scores, weighted = read["showers"], read["scores"]["v_weighted"]
    assert weighted["mean"] == pytest.approx(1)
    assert len(weighted["per_event"]) == 3
    assert (scores["efficiency"]["passed"], scores["efficiency"]["total"]) == (10, 10)
    assert (scores["separated"]["passed"], scores["separated"]["total"]) == (2, 2)
    assert scores["fake"]["passed"] == scores["split"]["passed"] == 0

    drawn = run.invoke(app, ["report", str(found), str(events), "-o", str(tmp_path / "report")])
    assert drawn.exit_code == 0, drawn.output
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"showers.png", "scores.md"}
    wrong = run.invoke(app, ["report", str(found), str(events), "-o", str(tmp_path / "report"), "--model", str(model)])
    assert isinstance(wrong.exception, UserError)
    assert "holds no tracks" in str(wrong.exception)


def test_objects_do_not_depend_on_the_processes(model: Path, events: Path, tmp_path: Path) -> None:
    for workers in (1, 2):
        assert reconstruct(open_events(events), tmp_path / str(workers), model, workers=workers).rows == 10
    one, two = (read_predictions(tmp_path / str(workers)) for workers in (1, 2))
    for number, event in one.items():
        for level in ("point", "object", "scene"):
            own, other = getattr(event, level), getattr(two[number], level)
            assert own.keys() == other.keys()
            assert all(torch.equal(own[name], other[name]) for name in own)


def test_a_malformed_event_is_named_and_the_others_are_written(model: Path, events: Path, tmp_path: Path) -> None:
    good = showers(6)
    energy = good.point["energy"].clone()
    energy[2] = torch.nan
    bad = {
        "a-nan": good.with_columns("point", energy=energy),
        "b-missing": Event(point={k: v for k, v in good.point.items() if k != "energy"}, object=good.object),
    }
    for name, event in bad.items():
        store.write(events / f"{name}.parquet", event)
    outcome = reconstruct(open_events(events), tmp_path / "found", model)
    assert (outcome.events, outcome.rows) == (3, 10)
    assert outcome.failed == [
        "a-nan: row 3, point.energy: expected a finite number, found nan",
        "b-missing: point.energy: missing in the events",
    ]
    assert list(read_predictions(tmp_path / "found")) == [3, 4, 5]


def test_truth_is_not_looked_at_and_an_event_may_be_empty(model: Path) -> None:
    find, event = Reconstructor(model), showers(8)
    point = {name: column for name, column in event.point.items() if name != "object"}
    with_truth, without = find(event), find(Event(point=point, scene=event.scene))
    assert torch.equal(with_truth.point["object"], without.point["object"])
    assert torch.equal(with_truth.object["energy"], without.object["energy"])
    assert find(Event()).rows("object") == 0


def test_the_model_that_ships_finds_what_lies_apart() -> None:
    find = Reconstructor("showers")
    assert find(Event()).rows("object") == 0
    found = find(showers(9))
    assert {"energy", "x", "y", "dx", "dy", "hits"} == set(found.object)


def test_predictions_of_another_kind_are_left_alone(events: Path, tmp_path: Path) -> None:
    """Of one directory ``evaluate`` could not tell which are meant."""
    (tmp_path / "submission.csv").write_text("event_id,hit_id,track_id\n")
    with pytest.raises(UserError, match=r"submission\.csv: holds tracks, the model makes other objects"):
        reconstruct(open_events(events), tmp_path, "showers")
    (tmp_path / "submission.csv").unlink()
    reconstruct(open_events(events), tmp_path, "showers")
    before = (tmp_path / OBJECTS).read_bytes()
    with pytest.raises(UserError, match=r"objects\.parquet: holds other objects, the model makes tracks"):
        reconstruct(open_events(events), tmp_path)
    assert (tmp_path / OBJECTS).read_bytes() == before
    assert not (tmp_path / "submission.csv").exists()


def test_files_that_are_none_of_ours_are_named(tmp_path: Path) -> None:
    write_objects(tmp_path, [showers(1), showers(1)])
    assert holds_objects(tmp_path)
    with pytest.raises(UserError, match=r"objects\.parquet: expected events with a scene\.id each, all different"):
        read_predictions(tmp_path)
    (tmp_path / "submission.csv").write_text("event_id,hit_id,track_id\n")
    with pytest.raises(UserError, match=r"holds submission\.csv and objects\.parquet"):
        read_predictions(tmp_path)
    (tmp_path / "submission.csv").unlink()
    (tmp_path / OBJECTS).write_bytes(b"PAR1 no more")
    with pytest.raises(UserError, match=r"objects\.parquet: not a readable Parquet file"):
        read_predictions(tmp_path)
