"""The loop: killed and resumed without a trace, loud about numbers that are none, and every shipped configuration."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cloudchamber import checkpoint
from cloudchamber.config import Run, load, override, parse
from cloudchamber.data import open_events, store
from cloudchamber.errors import UserError
from cloudchamber.event import Event
from cloudchamber.tasks.edges import Edges
from cloudchamber.tasks.embed import Embed
from cloudchamber.train import BEST, LAST, LOG, train

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("tracks*.toml"))
Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, toy: Callable[..., Event]) -> dict[str, str]:
    """Directories with five events to train on and one to validate with."""
    directory = tmp_path_factory.mktemp("events")
    for number in range(6):
        part = "valid" if number == 5 else "train"
        store.write(directory / part / f"event{number:09d}.parquet", toy(number, 10, 5))
    return {"train": str(directory / "train"), "valid": str(directory / "valid")}


KINDS: dict[str, dict[str, Any]] = {
    "edges": {"model": {"kind": "message", "width": 6, "depth": 1}, "task": {"kind": "edges"}},
    "sampled": {"model": {"kind": "message", "width": 6, "depth": 0}, "task": {"kind": "edges", "sample": 40}},
    "embed": {"model": {"kind": "mlp", "width": 6}, "task": {"kind": "embed", "sample": 30}},
}


def made(kind: str, data: dict[str, str], **settings: Any) -> Run:
    loop = {"epochs": 2, "fit": 3, "every": 2, "accelerator": "cpu", "points": 180} | settings
    return parse(KINDS[kind] | {"data": data, "train": loop}, "test")


def weights(path: Path) -> Weights:
    return checkpoint.read(path)[0]


def same(one: Weights, two: Weights) -> None:
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name


def log(directory: Path) -> list[tuple[str, ...]]:
    """Epoch, step, name and value of every line: all but the time."""
    with (directory / LOG).open(newline="") as file:
        return [tuple(row[1:]) for row in csv.reader(file)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data: dict[str, str]) -> dict[str, Path]:
    """Uninterrupted runs."""
    directories = {kind: tmp_path_factory.mktemp(kind) / "run" for kind in KINDS}
    for kind, directory in directories.items():
        assert train(made(kind, data), directory) == directory / BEST
    return directories


@pytest.mark.parametrize(  # in mid-epoch, at its end, in the next; an epoch has three steps
    ("kind", "steps"), [("edges", 1), ("edges", 3), ("edges", 4), ("sampled", 1), ("embed", 2)]
)
def test_killed_and_resumed_without_a_trace(
    kind: str, steps: int, whole: dict[str, Path], data: dict[str, str], tmp_path: Path
) -> None:
    train(made(kind, data), tmp_path, stop_after=steps)
    assert checkpoint.read(tmp_path / LAST)[2]["step"] == steps
    torch.manual_seed(99)  # another process has other random numbers
    train(made(kind, data), tmp_path, resume=True)
    same(weights(tmp_path / LAST), weights(whole[kind] / LAST))
    same(weights(tmp_path / BEST), weights(whole[kind] / BEST))
    assert log(tmp_path) == log(whole[kind])


def test_a_crash_goes_back_to_the_last_saved_step(
    whole: dict[str, Path], data: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps after the last save are done again, and are in the log once."""
    loss, calls = Edges.loss, [0]

    def crash(self: Edges, event: Event) -> dict[str, Tensor]:
        calls[0] += 1
        if calls[0] == 6:  # three steps and a validation, two steps
            raise KeyboardInterrupt
        return loss(self, event)

    monkeypatch.setattr(Edges, "loss", crash)
    with pytest.raises(KeyboardInterrupt):
        train(made("edges", data, every=50), tmp_path)
    monkeypatch.undo()
    assert checkpoint.read(tmp_path / LAST)[2]["step"] == 3
    assert log(tmp_path)[-1][:2] == ("1", "4")
    train(made("edges", data, every=50), tmp_path, resume=True)
    same(weights(tmp_path / BEST), weights(whole["edges"] / BEST))
    assert log(tmp_path) == log(whole["edges"])


def test_what_a_training_leaves(whole: dict[str, Path]) -> None:
    for kind, directory in whole.items():
        rows = log(directory)
        losses = [row for row in rows if row[2] == "valid/loss"]
        assert len(losses) == 2
        assert len([row for row in rows if row[2].startswith("train/")]) == 6
        _, run, extra = checkpoint.read(directory / BEST)
        assert extra["loss"] == pytest.approx(min(float(row[3]) for row in losses), rel=1e-5)
        assert run.task.kind == KINDS[kind]["task"]["kind"]
        assert list(directory.glob("events.out.tfevents*"))
        assert not list(directory.glob(".*"))
        position = checkpoint.read(directory / LAST)[2]
        assert (position["step"], position["epoch"], position["done"]) == (6, 2, 0)


def test_an_occupied_directory_is_refused(whole: dict[str, Path], data: dict[str, str], tmp_path: Path) -> None:
    before = (whole["edges"] / LAST).read_bytes()
    with pytest.raises(UserError, match="holds a training already"):
        train(made("edges", data), whole["edges"])
    assert (whole["edges"] / LAST).read_bytes() == before
    with pytest.raises(UserError, match="no such checkpoint"):
        train(made("edges", data), tmp_path, resume=True)


def test_a_run_is_resumed_as_what_it_was(whole: dict[str, Path], data: dict[str, str]) -> None:
    with pytest.raises(UserError, match="another model"):
        train(
            replace(made("edges", data), model=replace(made("edges", data).model, width=7)), whole["edges"], resume=True
        )
    train(made("edges", data), whole["edges"], resume=True)  # nothing left to do


@pytest.mark.parametrize("how", ["loss", "gradient", "validation loss"])
def test_numbers_that_are_none_stop_the_training(
    how: str, data: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = Edges.loss

    def bad(self: Edges, event: Event) -> dict[str, Tensor]:
        good = loss(self, event)["edges"]
        if how == "validation loss":
            return {"edges": good, "bad": good * (1 if self.training else torch.nan)}
        last = self.network.head.rest[-1].bias  # type: ignore[index]
        return {"edges": good, "bad": good * torch.nan if how == "loss" else (last - last.detach()).abs().sqrt().sum()}

    train(made("edges", data), tmp_path, stop_after=2)
    before = weights(tmp_path / LAST)
    monkeypatch.setattr(Edges, "loss", bad)
    with pytest.raises(
        UserError, match=rf"^{how} is not finite at step \d+ of epoch 0: .*'edges': .*'bad': "
    ) as caught:
        train(made("edges", data), tmp_path, resume=True)
    assert "\n" not in str(caught.value)
    same(weights(tmp_path / LAST), before)
    monkeypatch.undo()
    train(made("edges", data), tmp_path, resume=True)


def test_a_coordinate_that_is_none_stops_an_embedding(
    data: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Embed.forward
    monkeypatch.setattr(Embed, "forward", lambda self, event: forward(self, event) * torch.nan)
    with pytest.raises(UserError, match="loss is not finite at step 0"):
        train(made("embed", data), tmp_path)


def test_unusable_settings(data: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.train: names no directory"):
        train(made("edges", {}), tmp_path / "a")
    with pytest.raises(UserError, match="no such file"):
        train(made("edges", data | {"valid": str(tmp_path / "none")}), tmp_path / "b")
    with pytest.raises(UserError, match="precision"):
        train(made("edges", data, precision="12-odd"), tmp_path / "c")
    with pytest.raises(UserError, match=r"model\.kind"):
        train(parse(KINDS["edges"] | {"data": data, "model": {"kind": "mlp"}}, "test"), tmp_path / "d")
    assert not list(tmp_path.iterdir())  # a refused training leaves nothing behind


def test_mixed_precision(data: dict[str, str], tmp_path: Path) -> None:
    best = train(made("edges", data, epochs=1, precision="bf16-mixed"), tmp_path)
    assert all(tensor.dtype != torch.bfloat16 for tensor in weights(best).values())


SMALL = ["train.epochs=1", "train.accelerator=cpu", "data.events=2"]
TRAINED: dict[str, Path] = {}


def trained(path: Path, data: dict[str, str], directory: Path) -> Path:
    """The best checkpoint of a shipped configuration on toy events; the stages it starts from are trained first."""
    if path.stem not in TRAINED:
        settings = [*SMALL, *(f"data.{name}={json.dumps(place)}" for name, place in data.items())]
        run = load(path, settings)
        if run.graph.kind == "task":
            stage = Path(run.graph.weights).parent.name  # runs/filter is made by configs/tracks-filter.toml
            (first,) = (other for other in CONFIGS if other.stem in (stage, f"tracks-{stage}"))
            raw = override(run.to_dict(), [f"graph.weights={json.dumps(str(trained(first, data, directory)))}"])
            del raw["graph"]["run"]
            run = parse(raw, str(path))
        TRAINED[path.stem] = train(run, directory / path.stem)
    return TRAINED[path.stem]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_configuration_trains(
    path: Path, data: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    task, run = checkpoint.load(trained(path, data, tmp_path_factory.getbasetemp() / "shipped"))
    event = open_events(data["valid"])[0]
    predicted = task.decode(task.prepare(event))
    assert predicted.rows("point") == event.rows("point")
    assert list(task.stages(event))[-1] == run.task.stage
