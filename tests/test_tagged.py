"""Scores of jets against their truth: by hand, from disk, of several trainings, and what cannot be compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_cli import Call, call, refused

from cloudchamber.data import store
from cloudchamber.data.jetsource import open_jets
from cloudchamber.evaluate import SCORES
from cloudchamber.event import Event
from cloudchamber.metrics import auc, rejection
from cloudchamber.predict import SCORES as TABLE
from cloudchamber.predict import predict
from cloudchamber.tagged import Tagged, TagScores, evaluate_scores, read_tagged, spread

__all__ = ["call"]
Maker = Callable[..., Event]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, tagger: Path, jets: Maker) -> tuple[Path, Path]:
    """Scores and their jets: two files, whose labels are in another order than the classes."""
    base = tmp_path_factory.mktemp("tagged")
    for number in range(2):
        event = jets(150, 8 + number)
        event = event.with_columns("scene", label=1 - event.scene["label"])
        store.write(base / "jets" / f"{number}.parquet", event, {"labels": ["top", "qcd"]})
    predict(open_jets(base / "jets"), base / "out", tagger)
    return base / "out", base / "jets"


def tagged(probability: list[list[float]], label: list[int], classes: tuple[str, ...] = ("qcd", "top")) -> Tagged:
    number = len(label)
    mass = np.linspace(10, 200, number)
    return Tagged(classes, np.array(probability), np.array(label), np.linspace(550, 650, number), mass, {})


def test_by_hand() -> None:
    scores = TagScores(tagged([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.6, 0.4], [0.2, 0.8]], [0, 0, 1, 1, -1]))
    assert (int(scores.numbers["accuracy"].passed), int(scores.numbers["accuracy"].total)) == (2, 4)
    assert scores.numbers["top against qcd: AUC"].value == 0.75  # of four pairs only (0.4, 0.6) is the wrong way
    assert scores.numbers["top against qcd: rejection at 50%"].value == np.inf
    error = (abs(0 - 0.1) + abs(0 - 0.6) + abs(1 - 0.7) + abs(1 - 0.4)) / 4  # each bin holds one jet
    assert scores.numbers["top against qcd: calibration error"] == pytest.approx(error)


def test_several_classes_are_told_from_qcd() -> None:
    probability = [[0.2, 0.5, 0.3], [0.1, 0.8, 0.1], [0.6, 0.1, 0.3], [0.0, 1.0, 0.0]]
    found = tagged(probability, [0, 1, 2, 1], ("w", "QCD", "top")).pairs()
    assert list(found) == ["w", "top"]
    assert found["w"].background == "QCD"
    assert found["w"].score == pytest.approx([0.2 / 0.7, 0.1 / 0.9, 0.0])
    assert found["w"].signal.tolist() == [True, False, False]
    assert found["top"].score == pytest.approx([0.1 / 0.9, 0.75, 0.0])
    nothing = tagged([[0.0, 0.0, 1.0], [0.5, 0.5, 0.0]], [0, 1], ("a", "b", "c")).pairs()
    assert nothing["b"].background == "a"
    assert nothing["b"].score.tolist() == [0.5, 0.5]


def test_scores_from_disk(written: tuple[Path, Path]) -> None:
    out, path = written
    table, source = pd.read_parquet(out / TABLE), open_jets(path)
    found, missing = read_tagged(out, source)
    truth = torch.cat([event.scene["label"] for event in source.batches()])
    assert missing == 0
    assert found.label.tolist() == (1 - truth).tolist()  # by name
    mass = torch.cat([event.scene["mass"] for event in source.batches()])
    assert found.mass.tolist() == found.numbers["mass"][1].tolist() == mass.tolist()
    scores = evaluate_scores(out, source)
    expected = rejection(table.p_top, table.label == "top", 0.3)
    assert scores.numbers["top against qcd: rejection at 30%"].value == pytest.approx(expected.value)
    assert scores.numbers["top against qcd: AUC"].value == pytest.approx(auc(table.p_top, table.label == "top").value)
    assert scores.numbers["top against qcd: AUC"].value > 0.9
    read = json.loads((out / SCORES).read_text(), parse_constant=pytest.fail)  # NaN and infinity are no JSON
    assert (read["jets"], read["missing"], sum(read["classes"].values())) == (300, 0, 300)
    assert read["signals"]["top"]["auc"]["value"] == pytest.approx(scores.numbers["top against qcd: AUC"].value)
    assert len(read["signals"]["top"]["rejection_pt"]["value"]) + 1 == len(
        read["signals"]["top"]["rejection_pt"]["edges"]
    )
    assert read["numbers"]["mass"]["count"] == 300


def test_rows_are_matched_by_file_and_row(written: tuple[Path, Path], tmp_path: Path) -> None:
    out, path = written
    table, source = pd.read_parquet(out / TABLE), open_jets(path)
    (tmp_path / "x").mkdir()
    table.sample(frac=0.5, random_state=1).to_parquet(tmp_path / "x" / TABLE)
    found, missing = read_tagged(tmp_path / "x", source)
    assert (len(found.label), missing) == (150, 150)
    whole, _ = read_tagged(out, source)
    kept = table.sample(frac=0.5, random_state=1).sort_index().index
    assert found.label.tolist() == whole.label[kept].tolist()
    assert found.mass.tolist() == whole.mass[kept].tolist()


def test_mean_and_spread_of_trainings() -> None:
    label = [0, 0, 1, 1]
    three = [
        TagScores(tagged([[1 - p, p] for p in scores], label))
        for scores in ([0.1, 0.2, 0.8, 0.9], [0.1, 0.6, 0.4, 0.9], [0.9, 0.8, 0.2, 0.1])
    ]
    found = spread(three)
    assert found["accuracy"].value == pytest.approx((1 + 0.5 + 0) / 3)
    assert found["accuracy"].high - found["accuracy"].value == pytest.approx(0.5)
    assert np.isnan(found["top against qcd: rejection at 50%"].value)  # one is infinite


def test_the_verbs_know_jets_from_tracks(written: tuple[Path, Path], call: Call, tmp_path: Path) -> None:
    out, path = written
    status, said, _ = call("evaluate", out, path)
    assert status == 0
    for words in ("300 jets", "accuracy", "rejection at 50%", "calibration error", "mass divergence at 30%", str(out)):
        assert words in said
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / TABLE).write_bytes((out / TABLE).read_bytes())
    status, said, _ = call("evaluate", out, copy, path)
    assert "2 trainings" in said
    assert (copy / SCORES).is_file()
    refused(call("evaluate", tmp_path, path), "no submission.csv")
    refused(call("evaluate", tmp_path, copy, path), "one directory of tracks")


def test_a_report(written: tuple[Path, Path], call: Call, tmp_path: Path) -> None:
    out, path = written
    status, said, _ = call("report", out, path, "-o", tmp_path)
    names = {"roc.png", "calibration.png", "rejection_pt.png", "mass.png", "scores.png", "scores.md"}
    assert status == 0
    assert {file.name for file in tmp_path.iterdir()} == names
    assert all(str(tmp_path / name) in said for name in names)
    assert "| accuracy" in (tmp_path / "scores.md").read_text()
    for name in names - {"scores.md"}:
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_compared(written: tuple[Path, Path], call: Call, tmp_path: Path, jets: Maker) -> None:
    out, path = written
    table = pd.read_parquet(out / TABLE)
    bad = tmp_path / "bad"
    bad.mkdir()
    for wrong, words in (
        (table.drop(columns="row"), ("expected a column row",)),
        (pd.concat([table, table[7:8]]), ("row 8 of 0.parquet", "twice")),
        (table.assign(file="other.root"), ("scores of other.root",)),
        (table.assign(row=table.row + 1), ("row 151 of 0.parquet", "no such jet")),
    ):
        wrong.to_parquet(bad / TABLE)
        refused(call("evaluate", bad, path), str(bad / TABLE), *words)
    (bad / TABLE).write_bytes(b"none")
    refused(call("evaluate", bad, path), str(bad / TABLE), "cannot read")
    event = jets(150, 8)
    scene = {name: column for name, column in event.scene.items() if name != "label"}
    store.write(tmp_path / "bare" / "0.parquet", event.with_level("scene", scene, event.count["scene"]))
    table[:150].drop(columns="mass").to_parquet(bad / TABLE)
    refused(call("evaluate", bad, tmp_path / "bare"), "no jet has a label of qcd, top")
