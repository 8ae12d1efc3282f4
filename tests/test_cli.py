"""The command line: what it writes, and one line with exit status 2 for whatever a user may get wrong."""

from __future__ import annotations

import gzip
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from cloudchamber.__main__ import main
from cloudchamber.data import open_events, store, trackml
from cloudchamber.event import Event
from cloudchamber.predictions import SUBMISSION, TRACKS

NAME = "event000000001"
Outcome = tuple[int, str, str]
Call = Callable[..., Outcome]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command line; gives exit status, output and complaints."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["cloudchamber", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return int(caught.value.code or 0), out, err

    return run


@pytest.fixture(scope="module")
def model(finder: Callable[[str], Path]) -> Path:
    return finder("edges")


@pytest.fixture
def events(tmp_path: Path, toys: list[Event]) -> Path:
    """A directory with one good event, numbered 1, as plain TrackML tables."""
    trackml.write(tmp_path / "events", toys[1], gzip=False)
    return tmp_path / "events"


def refused(outcome: Outcome, *words: str) -> None:
    """Exit status 2 and a single line that tells what is wrong."""
    status, _, err = outcome
    assert status == 2, err
    assert err.count("\n") == 1, err
    assert err.startswith("cloudchamber: ")
    for word in words:
        assert word in err


def edited(path: Path, row: int, column: str, value: str) -> None:
    """Change one value, row from 1, in a CSV table."""
    lines = [line.split(",") for line in path.read_text().splitlines()]
    lines[row][lines[0].index(column)] = value
    path.write_text("".join(",".join(line) + "\n" for line in lines))


def missing_column(path: Path) -> None:
    pd.read_csv(path).drop(columns="y").to_csv(path, index=False)


def repeated_column(path: Path) -> None:
    path.write_text(path.read_text().replace("volume_id", "x", 1))


def hit_twice(path: Path) -> None:
    edited(path, 9, "hit_id", str(pd.read_csv(path).hit_id[0]))


def cut_short(path: Path) -> None:
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes())[:-40])
    path.unlink()


BAD: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "missing column": (missing_column, ("header", "column y")),
    "repeated column": (repeated_column, ("header", "x")),
    "not a number": (lambda path: edited(path, 5, "z", "nan"), ("row 5, column z", "finite")),
    "infinite": (lambda path: edited(path, 7, "x", "inf"), ("row 7, column x", "finite")),
    "text": (lambda path: edited(path, 3, "layer_id", "two"), ("row 3, column layer_id", "'two'")),
    "hit twice": (
        lambda path: edited(path, 9, "hit_id", path.read_text().split("\n")[1].split(",")[0]),
        ("row 9", "hit_id"),
    ),
    "truncated gzip": (cut_short, ("gzip",)),
    "not a table": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00"), ("not a CSV table",)),
    "nothing at all": (lambda path: path.write_bytes(b""), ("empty file",)),
    "no hits table": (lambda path: path.unlink(), ("no such file",)),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_events_are_refused_and_good_ones_written(
    fault: str, call: Call, events: Path, model: Path, toys: list[Event], tmp_path: Path
) -> None:
    spoil, words = BAD[fault]
    trackml.write(events, toys[2], gzip=False)
    spoil(events / f"{NAME}-hits.csv")
    output = tmp_path / "out"
    outcome = call("reconstruct", events, "-o", output, "--model", model)
    refused(outcome, f"{NAME}-hits.csv", *words)
    assert "event000000002: done" in outcome[1]
    submission = pd.read_csv(output / SUBMISSION)
    assert (submission.event_id == 2).all()
    assert len(submission) == toys[2].rows("point")
    assert {path.name for path in output.iterdir()} == {SUBMISSION, TRACKS}


def test_every_bad_event_has_its_line(call: Call, events: Path, model: Path, toys: list[Event], tmp_path: Path) -> None:
    trackml.write(events, toys[2], gzip=False)
    for number in (1, 2):
        missing_column(events / f"event{number:09d}-hits.csv")
    status, out, err = call("reconstruct", events, "-o", tmp_path / "out", "--model", model)
    assert status == 2
    assert [line.split(":")[0] for line in err.splitlines()] == ["cloudchamber"] * 2
    assert "0 tracks in 0 of 2 events" in out


@pytest.mark.parametrize("rows", [0, 1])
def test_no_hit_and_one_hit_are_no_mistake(rows: int, call: Call, events: Path, model: Path, tmp_path: Path) -> None:
    for table in ("hits", "truth"):
        path = events / f"{NAME}-{table}.csv"
        pd.read_csv(path).sort_values("hit_id").head(rows).to_csv(path, index=False)
    status, out, err = call("reconstruct", events, "-o", tmp_path / "out", "--model", model)
    assert (status, err) == (0, "")
    assert "0 tracks in 1 of 1 events" in out
    assert len(pd.read_csv(tmp_path / "out" / SUBMISSION)) == rows
    assert call("evaluate", tmp_path / "out", events)[0] == 0


def test_parquet_events(call: Call, model: Path, toys: list[Event], tmp_path: Path) -> None:
    good, bad, lacking = (tmp_path / "events" / f"{name}.parquet" for name in ("good", "bad", "lacking"))
    store.write(good, toys[0])
    bad.write_bytes(good.read_bytes()[:-100])
    x = toys[1].point["x"].clone()
    x[3] = torch.inf
    store.write(lacking, Event(point={**toys[1].point, "x": x}, object=toys[1].object, scene=toys[1].scene))
    status, out, err = call("reconstruct", tmp_path / "events", "-o", tmp_path / "out", "--model", model)
    assert status == 2
    assert [line.split(": ")[0] for line in err.splitlines()] == ["cloudchamber"] * 2
    assert "bad.parquet" in err
    assert "lacking: row 4, point.x: expected a finite number, found inf" in err
    assert "good: done" in out


def test_wrong_places(call: Call, events: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for verb in (["reconstruct"], ["convert"]):
        for place, words in (
            (tmp_path / "none", "no such file"),
            (tmp_path / "empty", "no events"),
            (model, "no events"),
        ):
            refused(call(*verb, place, "-o", tmp_path / "out"), str(place), words)
    for output in (events / f"{NAME}-hits.csv", events / f"{NAME}-hits.csv" / "deeper" / "still", "/proc/none/deeper"):
        refused(call("reconstruct", events, "-o", output, "--model", model), str(output), "cannot write")
        refused(call("convert", events, "-o", output), str(output), "cannot write")
    assert not (tmp_path / "out").exists()


def test_wrong_models(call: Call, events: Path, finder: Callable[[str], Path], tmp_path: Path) -> None:
    corrupt, other = tmp_path / "corrupt.safetensors", tmp_path / "other.safetensors"
    corrupt.write_bytes(finder("edges").read_bytes()[:3000])
    other.write_text("no tensors")
    for path, word in (
        (corrupt, "corrupt"),
        (other, "corrupt"),
        (tmp_path / "none", "no such"),
        (tmp_path, "no such"),
        (finder("embed"), "task.kind"),
    ):
        refused(call("reconstruct", events, "-o", tmp_path / "out", "--model", path), path.name, word)
    assert not (tmp_path / "out").exists()


def test_wrong_settings(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('[model]\nkind = "message"\nwidht = 6\n[task]\nkind = "edges"\n')
    refused(call("train", path, "-o", tmp_path / "out"), "run.toml", "'widht'", "'width'")
    path.write_text('[model]\nkind = "message"\n[task]\nkind = "edges"\n')
    refused(call("train", path, "-o", tmp_path / "out", "train.rato=3"), "'rato'", "'rate'")
    refused(call("train", path, "-o", tmp_path / "out", "rate"), "SECTION.KEY=VALUE")
    refused(call("train", path, "-o", tmp_path / "out", f"data.train={tmp_path}/none"), "none")
    path.write_text("[model\n")
    refused(call("train", path, "-o", tmp_path / "out"), "run.toml", "TOML")
    refused(call("train", tmp_path / "none.toml", "-o", tmp_path / "out"), "none.toml")


@pytest.mark.parametrize("arguments", [["nonsense"], ["reconstruct"], ["simulate", "collisions", "--events", "-1"]])
def test_wrong_usage(arguments: list[str], call: Call) -> None:
    status, _, err = call(*arguments)
    assert status == 2
    assert "Usage" in err


def test_scores_of_what_is_not_there(call: Call, events: Path, model: Path, toys: list[Event], tmp_path: Path) -> None:
    refused(call("evaluate", tmp_path / "none", events), "none", "submission.csv")
    assert call("reconstruct", events, "-o", tmp_path / "out", "--model", model)[0] == 0
    trackml.write(events, toys[2], gzip=False)
    refused(call("evaluate", tmp_path / "out", events), "no prediction for event 2")
    for path in events.glob("*-truth.csv"):
        path.unlink()
    refused(call("evaluate", tmp_path / "out", events), NAME, "no truth")


def test_from_events_to_a_report(call: Call, events: Path, model: Path, tmp_path: Path) -> None:
    parquet, output = tmp_path / "[red]parquet", tmp_path / ("long" * 20)
    status, out, err = call("convert", events, "-o", parquet)
    assert (status, err) == (0, "")
    assert out == f"1 events -> {parquet}\n"  # neither wrapped nor taken for colours
    assert len(open_events(parquet)) == 1
    assert call("reconstruct", parquet, "-o", output, "--model", model)[0] == 0
    status, out, err = call("evaluate", output, parquet)
    assert (status, err) == (0, "")
    assert "TrackML score" in out
    assert out.endswith(f"-> {output / 'scores.json'}\n")
    status, out, err = call("report", output, parquet, "-o", tmp_path / "report", "--model", model)
    assert (status, err) == (0, "")
    paths = [Path(line.removeprefix("-> ")) for line in out.splitlines()]
    assert all(path.stat().st_size for path in paths)
    assert {"event.png", "event.html", "scores.md"} <= {path.name for path in paths}
    refused(call("report", output, parquet, "-o", events / f"{NAME}-hits.csv" / "deeper"), "cannot write")


def test_help(call: Call) -> None:
    status, out, _ = call("--help")
    assert status == 0
    for verb in ("simulate", "convert", "train", "reconstruct", "evaluate", "report"):
        assert verb in out


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("acts", "pythia8mc")), reason="needs pyacts and pythia8mc"
)
def test_simulated_collisions_are_written(call: Call, tmp_path: Path) -> None:
    arguments = ["--events", 1, "--pileup", 0, "--seed", 7, "--format", "trackml", "-o", tmp_path]
    status, out, _ = call("simulate", "collisions", *arguments)
    assert status == 0
    assert "event000000000: " in out
    tables = {f"event000000000-{table}.csv.gz" for table in ("hits", "cells", "particles", "truth")}
    assert {path.name for path in tmp_path.iterdir()} == tables
    assert open_events(tmp_path)[0].rows("point") > 100
    refused(call("simulate", "collisions", "--noise", 2, "-o", tmp_path), "noise")
