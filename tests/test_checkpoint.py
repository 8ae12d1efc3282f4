"""Checkpoints: what goes in comes out, and what is none is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from cloudchamber import checkpoint
from cloudchamber.config import Run, parse
from cloudchamber.errors import UserError
from cloudchamber.event import Event

RAWS: dict[str, dict[str, Any]] = {
    "edges": {"model": {"kind": "message", "width": 6, "depth": 1}, "task": {"kind": "edges"}},
    "embed": {"model": {"kind": "mlp", "width": 6}, "task": {"kind": "embed"}},
}


def saved(path: Path, events: list[Event], kind: str = "edges") -> tuple[Run, dict[str, torch.Tensor]]:
    """Write a fitted task; returns its run and weights."""
    run, task = checkpoint.start(parse(RAWS[kind], "test"))
    task.fit(events)
    weights = {f"weights/{name}": tensor for name, tensor in task.state_dict().items()}
    checkpoint.save(path, weights, run, step=7)
    return run, weights


@pytest.mark.parametrize("kind", RAWS)
def test_round_trip(kind: str, tmp_path: Path, toys: list[Event]) -> None:
    path = tmp_path / "a.safetensors"
    run, weights = saved(path, toys, kind)
    tensors, found, extra = checkpoint.read(path)
    assert (found, extra) == (run, {"step": 7})
    assert tensors.keys() == weights.keys()
    task, found = checkpoint.load(path)
    assert found == run
    assert not task.training
    for name, tensor in task.state_dict().items():
        assert torch.equal(tensor, weights[f"weights/{name}"]), name
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("kind", RAWS)
def test_a_stage_on_a_stage_holds_both(kind: str, tmp_path: Path, toys: list[Event]) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    _, weights = saved(first, toys, kind)
    run, both = _on(first, second, toys)
    for name, tensor in weights.items():
        assert torch.equal(tensor, both[name.replace("weights/", "weights/graph.task.")])
    first.unlink()  # the second needs it no more
    task, found = checkpoint.load(second)
    assert found == run
    event = task.decode(task.prepare(toys[0]))
    assert event.rows("point") == toys[0].rows("point")


def _on(first: Path, second: Path, events: list[Event]) -> tuple[Run, dict[str, torch.Tensor]]:
    run, task = checkpoint.start(parse(RAWS["edges"] | {"graph": {"kind": "task", "weights": str(first)}}, "test"))
    task.fit(events)
    weights = {f"weights/{name}": tensor for name, tensor in task.state_dict().items()}
    checkpoint.save(second, weights, run)
    return run, weights


def refused(message: str, path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        checkpoint.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    refused("no such checkpoint", path)
    for content in (b"", b"{}", b"\x00" * 100, b"not a checkpoint " * 99):
        path.write_bytes(content)
        refused("corrupt checkpoint", path)
    save_file({"x": torch.ones(2)}, path)
    refused("not a cloudchamber checkpoint", path)
    refused("no such checkpoint", tmp_path)


@pytest.mark.parametrize("part", [0.0, 0.001, 0.3, 0.999])
def test_truncated(part: float, tmp_path: Path, toys: list[Event]) -> None:
    path = tmp_path / "a.safetensors"
    saved(path, toys)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    refused("corrupt checkpoint", path)


Change = Callable[[dict[str, torch.Tensor], dict[str, str]], object]
CHANGES: dict[str, tuple[Change, str]] = {
    "missing tensor": (
        lambda t, m: t.pop("weights/network.head.edge.bias"),
        r"lacks tensor 'network\.head\.edge\.bias'",
    ),
    "left-over tensor": (lambda t, m: t.update({"weights/more": torch.ones(1)}), "unexpected tensor 'more'"),
    "parameter of another shape": (
        lambda t, m: t.update({"weights/network.head.edge.bias": torch.ones(5)}),
        r"expected shape \(6,\), found \(5,\)",
    ),
    "no run": (lambda t, m: m.pop("run"), "corrupt"),
    "run that is no JSON": (lambda t, m: m.update(run="{"), "corrupt"),
    "run that is no table": (lambda t, m: m.update(run="[]"), "expected a table"),
    "another configuration": (
        lambda t, m: m.update(run=m["run"].replace('"width": 6', '"width": 7')),
        "expected shape",
    ),
    "another depth": (lambda t, m: m.update(run=m["run"].replace('"depth": 1', '"depth": 2')), "lacks tensor"),
    "model of another kind": (
        lambda t, m: m.update(run=json.dumps(json.loads(m["run"]) | {"model": {"kind": "mlp"}})),
        r"model\.kind",
    ),
    "another format": (lambda t, m: m.update(format="cloudchamber checkpoint 9"), "not a cloudchamber checkpoint"),
    "windows of other columns": (
        lambda t, m: t.update({"weights/graph.low": torch.zeros(3, 2)}),
        r"graph\.low: expected shape \(0, 5\)",
    ),
    "scales that do not fit": (
        lambda t, m: t.update({"weights/edge_scale.mean": torch.zeros(3)}),
        r"edge_scale\.mean: expected shape",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_files(name: str, tmp_path: Path, toys: list[Event]) -> None:
    path = tmp_path / "a.safetensors"
    run, tensors = saved(path, toys)
    metadata = {"format": checkpoint.FORMAT, "version": "0", "run": json.dumps(run.to_dict()), "extra": "{}"}
    save_file(tensors, path, metadata)
    checkpoint.load(path)
    change, message = CHANGES[name]
    change(tensors, metadata)
    save_file(tensors, path, metadata)
    with pytest.raises(UserError, match=message) as caught:
        checkpoint.load(path)
    assert "\n" not in str(caught.value)


def test_a_graph_of_kind_task_needs_a_checkpoint(tmp_path: Path) -> None:
    raw = RAWS["edges"] | {"graph": {"kind": "task"}}
    with pytest.raises(UserError, match=r"graph\.weights"):
        checkpoint.start(parse(raw, "test"))
    raw["graph"] = {"kind": "task", "weights": str(tmp_path / "none")}
    with pytest.raises(UserError, match="no such checkpoint"):
        checkpoint.start(parse(raw, "test"))
