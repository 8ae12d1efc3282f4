"""The bench of taggers: ragged and padded are the same network, and its table holds what was measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import jets_speed
from bench.jets_speed import NETWORKS, batches, check, infer, learn, made, measured, memories, tables, turns
from bench.padded import Padded, Ragged, padded_inputs, ragged_inputs
from cloudchamber.data import store
from cloudchamber.event import Event

Maker = Callable[..., Event]


@pytest.fixture(scope="module")
def some(jets: Maker) -> Event:
    return jets(60, 3, 1)


@pytest.mark.parametrize("name", NETWORKS)
def test_ragged_and_padded_are_the_same(name: str, some: Event) -> None:
    task = made(name, some).eval()
    modules = {"ragged": Ragged(task), "padded": Padded(task)}
    assert check(modules, [*batches(task, some, 9, 2), *batches(task, some, 1, 3)]) < 1e-4
    event = task.prepare(some)
    with torch.inference_mode():
        torch.testing.assert_close(modules["ragged"](*ragged_inputs(task, event)), task(event)[0])
        wide = [torch.nn.functional.pad(rows, (0, 0, 0, 5)) for rows in padded_inputs(task, event)[:2]]
        mask = torch.nn.functional.pad(padded_inputs(task, event)[2], (0, 5))
        torch.testing.assert_close(modules["padded"](*wide, mask), task(event)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_both_have_the_same_gradient(name: str, some: Event) -> None:
    task = made(name, some)
    (one,) = batches(task, some, 20, 1)
    found = []
    for way, module in (("ragged", Ragged(task)), ("padded", Padded(task))):
        task.zero_grad()
        torch.nn.functional.cross_entropy(module(*one.inputs[way]), one.label).backward()
        found.append([p.grad.clone() for p in task.network.parameters() if p.grad is not None])
    assert len(found[0]) == len(found[1]) > 5
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-5)


def test_a_difference_is_found(some: Event) -> None:
    task, other = made("jets-pfn", some), made("jets-pfn", some)
    with torch.no_grad():
        other.network.head[-1].bias.add_(1)
    with pytest.raises(RuntimeError, match="differ by 1"):
        check({"ragged": Ragged(task), "padded": Padded(other)}, batches(task, some, 4, 1))


def test_ways_take_turns(some: Event) -> None:
    task = made("jets-pfn", some)
    given = batches(task, some, 4, 3)
    said: list[str] = []
    ways: dict[str, Any] = {name: lambda one, name=name: said.append(name) for name in ("a", "b")}
    spent = turns(ways, given)
    assert said == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert {name: len(seconds) for name, seconds in spent.items()} == {"a": 3, "b": 3}


def test_learning_changes_copies(some: Event) -> None:
    task = made("jets-pfn", some)
    modules = {"ragged": Ragged(task), "padded": Padded(task)}
    before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    (one,) = batches(task, some, 10, 1)
    first = infer(modules)["ragged"](one)
    for step in learn(modules).values():
        step(one)
    assert torch.equal(infer(modules)["ragged"](one), first)
    assert all(torch.equal(tensor, before[name]) for name, tensor in task.state_dict().items())


def test_the_table(some: Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jets_speed, "exported", lambda *arguments: None)
    rows = measured("jets-pfn", some, 4, 3, threads=1)
    assert [(row["what"], row["way"]) for row in rows] == [
        (what, way) for what in ("inference", "training") for way in ("ragged", "padded")
    ]
    assert all(row["rate"] > 0 and row["low"] <= row["ratio"] <= row["high"] for row in rows)
    assert rows[0]["ratio"] == 1
    store.write(tmp_path / "jets.parquet", some, {"labels": ["qcd", "top"]})
    needs = memories(["jets-pfn"], tmp_path / "jets.parquet", 10) if Path("/proc/self/clear_refs").exists() else []
    text = tables(rows, needs, some, 4)
    assert text.count("jets-pfn") == len(rows) + len(needs)
    assert "60 jets of" in text
