"""Export of taggers to ONNX: the same scores as PyTorch's, for jets in any number and a table of any width."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cloudchamber import checkpoint
from cloudchamber.config import parse
from cloudchamber.data.constituents import example_jets
from cloudchamber.event import Event
from cloudchamber.export import MANIFEST, PARITY, Network, export
from cloudchamber.predict import Tagger
from tests.test_tag import RAW, made

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def wider(slot: Tensor, columns: int) -> Tensor:
    """The same jets, their points in other columns of a table that has so many more."""
    slot = torch.cat([slot, slot.new_full((len(slot), columns), -1)], dim=1)
    return slot[:, torch.randperm(slot.shape[1])]


@pytest.mark.parametrize("name", RAW)
def test_onnx_gives_what_pytorch_gives(name: str, jets: Callable[..., Event], tmp_path: Path) -> None:
    task = made(name, jets(30, 1), regress=["mass"])
    model, settings, graph = RAW[name]
    raw = {"model": model, "task": {"kind": "tag", "regress": ["mass"], **settings}, "graph": graph}
    path = tmp_path / "model.safetensors"
    checkpoint.save(path, {f"weights/{key}": tensor for key, tensor in task.state_dict().items()}, parse(raw, "test"))
    export(path, tmp_path / "onnx")
    task, _ = checkpoint.load(path)
    (entry,) = json.loads((tmp_path / "onnx" / MANIFEST).read_text())["stages"]
    assert entry["parity"] <= PARITY
    assert [item["name"] for item in entry["inputs"]][-1] == "slot"
    assert entry["inputs"][-1]["shape"] == ["scenes", "slots"]
    assert entry["outputs"][0]["shape"] == ["scenes", 3]
    for item in entry["inputs"]:
        if item["name"] in task.columns:
            assert tuple(column["name"] for column in item["columns"]) == task.columns[item["name"]]
    for threads in (1, 2):
        network = Network(tmp_path / "onnx" / entry["file"], threads=threads)
        for sizes in [(), (0,), (1,), (0, 5, 0), (9, 60, 2, 33, 1) * 8]:
            event = example_jets(sizes, seed=len(sizes)) if sizes else example_jets((0,))
            with torch.inference_mode():
                arrays = task.arrays(task.prepare(event))
                if not sizes:
                    arrays["slot"] = arrays["slot"][:0]
                expected = task.judge(*arrays.values())
                for columns in (0, 11):
                    wide = arrays | {"slot": wider(arrays["slot"], columns)}
                    for _ in range(2 if threads > 1 else 1):
                        found = network(*wide.values())
                        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_table_gives_what_the_sets_give(jets: Callable[..., Event]) -> None:
    event = jets(12, 5)
    for name in RAW:
        task = made(name, event).eval()
        with torch.no_grad():
            prepared = task.prepare(event)
            torch.testing.assert_close(
                task.judge(*task.arrays(prepared).values()), task(prepared)[0], rtol=1e-4, atol=1e-5
            )


def test_predict_takes_the_engine(
    tagger: Path, jets: Callable[..., Event], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    one, other = Tagger(tagger), Tagger(tagger, "onnx")
    assert isinstance(other.task.judge, Network)
    for event in (jets(300, 3, 0), jets(3, 4).take(torch.zeros(0, dtype=torch.int64))):
        expected, found = one(event), other(event)
        assert list(found) == ["p_qcd", "p_top", "mass"]
        for name, column in found.items():
            torch.testing.assert_close(column, expected[name], rtol=1e-4, atol=1e-5)
