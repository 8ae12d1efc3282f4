"""Training of taggers: every shipped configuration, resumed without a trace, and from the weights of another one."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cloudchamber import checkpoint
from cloudchamber.__main__ import main
from cloudchamber.config import load, parse
from cloudchamber.data import open_events, store
from cloudchamber.data.loader import Packed, Prepared
from cloudchamber.errors import UserError
from cloudchamber.event import Event, batch, unbatch
from cloudchamber.train import BEST, LAST, LOG, train

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("jets*.toml"))
Maker = Callable[..., Event]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, jets: Maker) -> dict[str, str]:
    """Files of jets: some to train on, some to validate with."""
    directory = tmp_path_factory.mktemp("jets")
    for part, seed, number in (("train", 1, 300), ("valid", 2, 60)):
        store.write(directory / part / "jets.parquet", jets(number, seed))
    return {"train": str(directory / "train"), "valid": str(directory / "valid")}


def values(directory: Path, name: str) -> list[float]:
    with (directory / LOG).open(newline="") as file:
        return [float(row[4]) for row in csv.reader(file) if row[3] == name]


def settings(data: dict[str, str], **loop: Any) -> dict[str, Any]:
    loop = {"epochs": 2, "points": 1000, "fit": 100, "accelerator": "cpu", "rate": 1e-2} | loop
    return {"data": data, "train": loop, "model": {"kind": "mlp", "width": 16}, "task": {"kind": "tag", "pool": "mean"}}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_configuration_trains(path: Path, data: dict[str, str], tmp_path: Path) -> None:
    small = ["train.epochs=1", "train.accelerator=cpu", "train.fit=20", "train.points=300", "data.events=20"]
    run = load(path, [*small, "data.valid_events=5", *(f"data.{name}='{place}'" for name, place in data.items())])
    task, found = checkpoint.load(train(run, tmp_path))
    assert found == run
    events = batch(open_events(data["valid"])[:5])
    predicted = task.decode(task.prepare(events))
    assert len(predicted) == 5
    total = sum(predicted.scene[f"p_{name}"] for name in run.task.classes)
    torch.testing.assert_close(total, torch.ones(5))
    assert list(task.stages(events))[-1] == run.task.stage


def test_a_tagger_learns(data: dict[str, str], tmp_path: Path) -> None:
    train(parse(settings(data, epochs=12), "test"), tmp_path)
    assert values(tmp_path, "valid/accuracy")[-1] > 0.85


def test_killed_and_resumed_without_a_trace(data: dict[str, str], tmp_path: Path) -> None:
    raw = settings(data)
    raw["task"] |= {"vertex": 0.1}  # draws random pairs
    run = parse(raw, "test")
    train(run, tmp_path / "whole")
    train(run, tmp_path / "parts", stop_after=4)
    torch.manual_seed(99)
    train(run, tmp_path / "parts", resume=True)
    one, other = (checkpoint.read(tmp_path / name / LAST)[0] for name in ("whole", "parts"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_loss_of_validation_is_that_of_all_events(data: dict[str, str], tmp_path: Path) -> None:
    for points in (700, 100_000):
        train(parse(settings(data, points=points, rate=0.0, epochs=1), "test"), tmp_path / str(points))
    one, other = (values(tmp_path / name, "valid/loss") for name in ("700", "100000"))
    assert one == pytest.approx(other, rel=1e-4)


def test_fine_tuning_takes_all_but_the_head(
    data: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = train(parse(settings(data), "test"), tmp_path / "first")
    raw = settings(data, rate=0.0, epochs=1)
    raw["task"] |= {"classes": ["a", "b", "c"], "regress": ["mass"]}
    run = parse(raw, "test")
    tuned = train(replace(run, train=replace(run.train, start=str(first))), tmp_path / "tuned")
    before, after = (checkpoint.part(checkpoint.read(path)[0], "weights") for path in (first, tuned))
    heads = tuple(checkpoint.TASKS["tag"][1].heads)
    for name in before.keys() - {name for name in before if name.startswith(heads)}:
        assert torch.equal(before[name], after[name]), name
    assert after["network.head.2.weight"].shape[0] == 4
    assert float(after["middle"]) > 0
    assert checkpoint.read(tuned)[1].train.start == str(first)

    (tmp_path / "run.toml").write_text('[model]\nkind = "mlp"\nwidth = 17\n[task]\nkind = "tag"\npool = "mean"\n')
    places = [f"data.{name}='{place}'" for name, place in data.items()]
    arguments = ["train", str(tmp_path / "run.toml"), "-o", str(tmp_path / "other"), "--from", str(first), *places]
    monkeypatch.setattr(sys, "argv", ["cloudchamber", *arguments])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "network.body.mlp.0.bias: expected shape (17,), found (16,)" in capsys.readouterr().err


def test_a_start_that_is_none(data: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such checkpoint"):
        train(parse(settings(data, start="nowhere.safetensors"), "test"), tmp_path)
    assert not (tmp_path / BEST).exists()


def test_batches_of_many_events_are_those_of_single_ones(jets: Maker) -> None:
    events = unbatch(jets(40, 3, 0))
    order = torch.randperm(40).tolist()
    packed, prepared = Packed(batch(events), lambda event: event), Prepared(events, lambda event: event)
    assert len(packed) == 40
    for points in (1, 100, 10_000):
        for (number, one), (again, two) in zip(
            packed.batches(order, points), prepared.batches(order, points), strict=True
        ):
            assert number == again == len(one)
            assert torch.equal(one.point["px"], two.point["px"])
            assert torch.equal(one.scene["id"], two.scene["id"])
