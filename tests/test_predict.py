"""Scores of jets on disk: of every format, streamed, and what becomes of files and jets that are malformed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jetfiles
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from test_cli import Call, call, refused

from cloudchamber import predict as predicting
from cloudchamber.data import ranges, store
from cloudchamber.data.jetsource import open_jets
from cloudchamber.data.ranges import Ranges, readable
from cloudchamber.errors import UserError
from cloudchamber.event import Event
from cloudchamber.predict import SCORES, Tagger, label_names, predict

__all__ = ["call"]
LABELS = {"labels": ["top", "qcd"]}
Maker = Callable[..., Event]


def with_labels(event: Event) -> Event:
    """Toy jets have the label 1 for top, which is 0 of these files."""
    return event.with_columns("scene", label=1 - event.scene["label"])


@pytest.fixture
def directory(tmp_path: Path, jets: Maker) -> Path:
    for number, seed in enumerate((5, 6, 7)):
        store.write(tmp_path / "jets" / f"{number}.parquet", with_labels(jets(30, seed, 0)), LABELS)
    return tmp_path / "jets"


def spoiled(path: Path, jets: list[int], name: str, value: float) -> list[int]:
    """Set the first constituent of some jets, counted among those that have any, to a value; gives their rows."""
    event = store.EventFile(path).range(0, 30)
    count = event.count["point"]
    rows = torch.nonzero(count).squeeze(1)[jets]
    column = event.point[name].clone()
    column[(count.cumsum(0) - count)[rows]] = value
    store.write(path, event.with_columns("point", **{name: column}), LABELS)
    return rows.tolist()


def test_scores_are_those_of_the_task(directory: Path, tagger: Path, tmp_path: Path, jets: Maker) -> None:
    said: list[tuple[str, int]] = []
    outcome = predict(open_jets(directory), tmp_path / "out", tagger, lambda *told: said.append(told))
    assert (outcome.events, outcome.rows, outcome.failed) == (3, 90, [])
    assert said == [(f"{number}.parquet", 30) for number in range(3)]
    found = pd.read_parquet(tmp_path / "out" / SCORES)
    assert list(found) == ["id", "file", "row", "label", "p_qcd", "p_top", "mass"]
    assert found.id.tolist() == 3 * list(range(30))
    assert found.row.tolist() == 3 * list(range(1, 31))
    score = Tagger(tagger)
    for number, (name, part) in enumerate(found.groupby("file")):
        event = jets(30, 5 + number, 0)
        assert name == f"{number}.parquet"
        assert part.label.tolist() == ["top" if label else "qcd" for label in event.scene["label"].tolist()]
        for column, values in score(event).items():
            np.testing.assert_allclose(part[column], values, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.p_qcd + found.p_top, 1, rtol=1e-5)


@pytest.mark.parametrize("workers", [1, 2])
def test_parts_and_processes_do_not_matter(
    workers: int, directory: Path, tagger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_jets(directory)
    predict(source, tmp_path / "whole", tagger)
    monkeypatch.setattr(predicting, "RANGE_JETS", 7)
    predict(source, tmp_path / "parts", tagger, workers=workers)
    one, other = (pd.read_parquet(tmp_path / name / SCORES) for name in ("whole", "parts"))
    pd.testing.assert_frame_equal(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", ["top_tagging", "jetnet", "jetclass", "nanoaod"])
def test_every_format(form: str, tagger: Path, tmp_path: Path) -> None:
    suffix = {"top_tagging": "h5", "jetnet": "hdf5"}.get(form, "root")
    pytest.importorskip("uproot" if suffix == "root" else "h5py")
    path = tmp_path / f"t150.{suffix}"
    getattr(jetfiles, form)(path)
    source = open_jets(path)
    outcome = predict(source, tmp_path, tagger)
    assert (outcome.rows, outcome.failed) == (len(source), [])
    found = pd.read_parquet(tmp_path / SCORES)
    assert found.id.tolist() == list(range(len(source)))
    assert set(found.label.dropna()) <= set(source.labels)
    assert found.label.isna().all() == (not source.labels)


def test_what_is_malformed_is_named_and_the_rest_scored(
    directory: Path, tagger: Path, tmp_path: Path, call: Call
) -> None:
    (directory / "0.parquet").write_bytes((directory / "1.parquet").read_bytes()[:-100])
    rows = spoiled(directory / "1.parquet", [3, 20], "px", np.nan)
    status, said, complaints = call("predict", directory, "-o", tmp_path / "out", "--model", tagger)
    lines = complaints.splitlines()
    assert status == 2
    assert len(lines) == 3
    assert "0.parquet" in lines[0]
    for line, row in zip(lines[1:], rows, strict=True):
        assert line.startswith(
            f"cloudchamber: {directory / '1.parquet'}: row {row + 1}, column point.px: expected a finite"
        )
    assert "58 of 60 jets" in said
    found = pd.read_parquet(tmp_path / "out" / SCORES)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [SCORES]
    kept = {"1.parquet": [row + 1 for row in range(30) if row not in rows], "2.parquet": list(range(1, 31))}
    assert {name: part.row.tolist() for name, part in found.groupby("file")} == kept


def test_many_faults_of_a_file_are_counted(directory: Path, tagger: Path, tmp_path: Path) -> None:
    spoiled(directory / "1.parquet", list(range(13)), "energy", np.inf)
    outcome = predict(open_jets(directory), tmp_path, tagger)
    assert outcome.rows == 90 - 13
    assert len(outcome.failed) == 11
    assert outcome.failed[-1] == "1.parquet: 3 more faults"


def test_what_can_be_read_of_a_range() -> None:
    class Numbers(Ranges):
        path = Path("numbers")
        bad: tuple[int, ...] = (0, 3, 4, 15)
        asked = 0

        def __len__(self) -> int:
            return 16

        def range(self, first: int, last: int) -> Event:
            self.asked += 1
            for number in self.bad:
                if first <= number < last:
                    raise UserError(f"number {number}")
            return Event(scene={"id": torch.arange(first, last)}, count={"scene": torch.ones(last - first).long()})

    numbers, faults = Numbers(), list[str]()
    found = list(readable(numbers, 0, 16, faults))
    assert faults == ["number 0", "number 3", "number 4", "number 15"]
    assert torch.cat([event.scene["id"] for _, event in found]).tolist() == [1, 2, *range(5, 15)]
    assert all(int(event.scene["id"][0]) == first for first, event in found)
    numbers.bad, numbers.asked, faults = tuple(range(16)), 0, ["before"] * ranges.FAULTS
    assert list(readable(numbers, 0, 16, faults)) == []
    assert (numbers.asked, len(faults)) == (1, ranges.FAULTS + 1)


def test_a_score_that_is_not_finite(directory: Path, tagger: Path, tmp_path: Path) -> None:
    spoiled(directory / "2.parquet", [2], "energy", 3e38)
    source = open_jets(directory)
    score = Tagger(tagger)
    expected = torch.isfinite(torch.stack(list(score(source.range(60, 90)).values()))).all(0)
    outcome = predict(source, tmp_path, tagger)
    assert outcome.rows == 60 + int(expected.sum())
    assert len(outcome.failed) == int((~expected).sum())


def test_names_of_labels() -> None:
    assert label_names(torch.tensor([1, -1, 0, 5]), ("qcd", "top")) == ["top", None, "qcd", "5"]


def test_models_that_are_no_taggers(directory: Path, finder: Callable[[str], Path], call: Call, tmp_path: Path) -> None:
    arguments: list[Any] = ["predict", directory, "-o", tmp_path / "out", "--model"]
    refused(call(*arguments, finder("edges")), "task.kind: expected 'tag'")
    refused(call(*arguments, tmp_path / "none"), "no such checkpoint")
    refused(call("predict", tmp_path / "nothing", "-o", tmp_path / "out"), "no such file or directory")
    assert not (tmp_path / "out").exists()


def test_the_tagger_that_ships_is_the_default(directory: Path, call: Call, tmp_path: Path) -> None:
    assert call("predict", directory, "-o", tmp_path / "out")[0] == 0
    names = pq.read_schema(tmp_path / "out" / SCORES).names
    assert [name for name in names if name.startswith("p_")] == ["p_qcd", "p_top"]


def test_a_column_that_the_tagger_needs(directory: Path, tmp_path: Path, jets: Maker) -> None:
    from cloudchamber import checkpoint
    from cloudchamber.config import parse

    raw = {"model": {"kind": "mlp", "width": 4}, "task": {"kind": "tag", "columns": ["deta", "d0"]}}
    run, task = checkpoint.start(parse(raw, "test"))
    task.fit([jets(20)])
    model = tmp_path / "model.safetensors"
    checkpoint.save(model, {f"weights/{name}": tensor for name, tensor in task.state_dict().items()}, run)
    event = jets(30, 5)
    point = {name: column for name, column in event.point.items() if name != "d0"}
    store.write(directory / "1.parquet", replace(event, point=point), LABELS)
    outcome = predict(open_jets(directory), tmp_path, model)
    assert outcome.failed == [f"{directory / '1.parquet'}: point.d0: missing in the events"]
    assert outcome.rows == 60
