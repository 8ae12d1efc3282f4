"""The bench of taggers: its baselines, its tables, and that it does nothing twice."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import tagger_ratios, taggers
from bench.baselines import CUTS, TRACKS, TREES, TREES_FULL, Features, Window, best_window, tree_scores
from bench.tagger_charts import draw
from bench.tagger_tables import Mean, Result, Summary, markdown, summaries
from bench.taggers import DONE, SCORES, Budget, Job, networks
from cloudchamber.data import store
from cloudchamber.data.smear import CHARGED, ELECTRON, MUON, PHOTON
from cloudchamber.errors import UserError
from cloudchamber.event import Event
from cloudchamber.metrics import Measured, auc, rejection
from cloudchamber.train import BEST, train

Maker = Callable[..., Event]
LABELS = ("qcd", "top")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, jets: Maker) -> Path:
    """Directories of jets: train, valid and test."""
    directory = tmp_path_factory.mktemp("jets")
    for seed, part in enumerate(("train", "valid", "test")):
        store.write(directory / part / "jets.parquet", jets(200, seed, 5), {"labels": list(LABELS)})
    return directory


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taggers, "BUDGETS", {50: Budget(2, 300, 20), 100: Budget(1, 300, 20)})


def bench(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["taggers", *map(str, arguments)])
    taggers.main()


def made(mass: list[float], tau32: list[float], signal: list[int]) -> Features:
    ones = np.ones(len(mass))
    columns = {"mass": np.array(mass), "multiplicity": ones, "tau1": ones, "tau2": ones, "tau3": np.array(tau32)}
    return Features(columns, np.array(signal, bool))


def test_the_best_cut_by_hand() -> None:
    # signal has a mass of about 173, and the two jets of background that do have a larger ratio than half of it
    jets = made([170, 172, 174, 176, 172, 173, 80, 250], [0.3, 0.4, 0.5, 0.9, 0.6, 0.7, 0.1, 0.1], [1] * 4 + [0] * 4)
    assert Window(171, 175, "tau32").score(jets).tolist() == [
        -np.inf,
        -0.4,
        -0.5,
        -np.inf,
        -0.6,
        -0.7,
        -np.inf,
        -np.inf,
    ]
    found = best_window(jets, 0.75)
    score = found.score(jets)
    assert (score >= -0.5).tolist() == [True] * 3 + [False] * 5
    assert found.ratio == "tau32"


def test_baselines_tell_two_prongs_from_one(jets: Maker) -> None:
    train_jets, test = (Features.of(jets(400, seed, 5)) for seed in (1, 2))
    trees = Result.of(tree_scores(train_jets, test, 1), test.signal, network=TREES, jets=400, seed=1)
    assert trees.scores["auc"].value > 0.95
    cut = best_window(train_jets, 0.5)
    assert cut.ratio == "tau21"  # prongs are two
    assert np.mean(np.isfinite(cut.score(test)[test.signal])) > 0.4


def with_tracks(event: Event, columns: dict[str, list[float]]) -> Event:
    return event.with_columns("point", **{name: torch.tensor(column) for name, column in columns.items()})


def test_tracks_of_jets_by_hand(jets: Maker) -> None:
    event = jets(3, 1, 5).take(torch.tensor([0, 2]))
    first, last = (int(number) for number in event.count["point"])
    axis = [event.point[name].double() for name in ("px", "py")]
    phi = [torch.atan2(axis[1][part].sum(), axis[0][part].sum()) for part in (slice(0, first), slice(first, None))]
    away = torch.atan2(axis[1], axis[0]) - torch.cat([phi[0].expand(first), phi[1].expand(last)])
    side = torch.sign(torch.sin(away))
    kind = [CHARGED, ELECTRON, PHOTON, *[CHARGED] * (first - 3), MUON, *[PHOTON] * (last - 1)]
    value = torch.zeros(first + last, dtype=torch.float64)
    value[[0, 1, 3, first]] = (
        torch.tensor([0.3, 0.1, 0.2, -0.5]).double() * -side[[0, 1, 3, first]]
    )  # forward but the last
    track = torch.tensor([number != PHOTON for number in kind])
    event = with_tracks(event, {"type": kind, "d0": value.tolist(), "sigma_d0": (0.1 * track).tolist()})
    found = Features.of(event).columns
    assert found["charged"].tolist() == [first - 1, 1]
    assert found["leptons"].tolist() == [1, 1]
    expected = [[math.log(4), math.log(3), math.log(2), 0], [0, 0, 0, 0]]
    assert np.stack([found[name] for name in TRACKS[2:]], axis=1) == pytest.approx(np.array(expected), abs=1e-6)


def test_ratios_of_rejections_by_hand() -> None:
    random, number = np.random.default_rng(3), 20_000
    signal = np.arange(2 * number) < number
    strong, weak = random.normal(np.where(signal, 2.0, 0.0)), random.normal(np.where(signal, 1.0, 0.0))
    one, other = (tagger_ratios.Scores.of([score], signal) for score in (strong, weak))
    assert one.drawn[0, 0] == pytest.approx(auc(strong, signal).value)
    assert [1 / left for left in one.drawn[0, 1:]] == pytest.approx(
        [rejection(strong, signal, kept).value for kept in tagger_ratios.KEPT]
    )
    value, low, high = tagger_ratios.compared(one, other)
    # at half of the signal the background is cut at its mean, 2 and 1 standard deviations
    assert low[2] < (1 - 0.841345) / (1 - 0.977250) < high[2]
    assert (high - low)[0] / 2 == pytest.approx(auc(weak, signal).value - auc(weak, signal).low, rel=0.5)
    assert value[0] == pytest.approx(0.9214 - 0.7602, abs=0.01)  # of normal distributions: Phi(d / sqrt 2)
    text = tagger_ratios.table({"pfn": one, TREES: other}, signal)
    assert "| particle flow | boosted trees" in " ".join(text.split())
    same = tagger_ratios.compared(one, one)
    assert same == pytest.approx(np.array([[0, 1, 1, 1, 1]] * 3))


def result(network: str, jets: int, seed: int, r50: float, parameters: int | None = 1000) -> Result:
    scores = {"accuracy": Measured(0.9, 0.89, 0.91), "auc": Measured(0.97, 0.96, 0.98)}
    scores |= {"r50": Measured(r50, r50 - 8, r50 + 12), "r30": Measured(math.inf, 500, math.inf)}
    return Result(network, jets, seed, scores, cpu=60.0 * seed, parameters=parameters, passes=9)


def test_mean_and_spread_over_seeds() -> None:
    (one,) = summaries([result("pfn", 1000, seed, 100 + 5 * seed) for seed in (1, 2, 3)])
    assert one == Summary("pfn", 1000, 3, one.scores, 120.0, 1000, 9)
    assert one.scores["r50"] == Mean(110, 5, 10)
    assert str(one.scores["r50"]) == "110 ± 5 ± 10"
    assert one.scores["r50"].total == pytest.approx(math.hypot(5, 10))
    assert str(one.scores["r30"]) == "–"
    assert str(summaries([result("pfn", 1000, 1, 105)])[0].scores["auc"]) == "0.970 ± 0.010"


def test_tables_and_charts(tmp_path: Path) -> None:
    found = summaries(
        [
            result(name, jets, 1, 50 + 30 * i, 1000 * 2**i)
            for jets in (1000, 10)
            for i, name in enumerate(("part", "efn"))
        ]
        + [result(name, 1000, 1, 20, None) for name in (TREES, CUTS)]
    )
    assert TREES_FULL not in {one.network for one in found}
    assert [(one.jets, one.network) for one in found[2:]] == [(1000, n) for n in (CUTS, TREES, "efn", "part")]
    text = markdown(found, 10, 12)
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    names = ["energy flow", "particle transformer"]
    assert rows == ["network", "cuts on mass and τ ratio", "boosted trees", *names, "network", *names]
    assert "10 signal, 12 background" in text
    draw(found, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taggers-jets.png", "taggers-parameters.png"]


def test_networks_are_those_of_the_classes() -> None:
    assert {"pfn", "efn", "part", "lorentz"} <= set(networks(LABELS))
    assert networks(["qcd", "hbb"]) == ["flavour"]


@pytest.mark.usefixtures("small")
def test_trains_what_is_missing_and_scores_what_is_new(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (data, "-o", tmp_path, "--networks", "deepsets", "efn", "--seeds", 1, "--threads", 1)
    job = Job(1, 50, "deepsets")
    train(job.run(data), tmp_path / job.name, stop_after=4)  # as if interrupted
    bench(monkeypatch, *arguments, "--test", 60)
    done = json.loads((tmp_path / job.name / DONE).read_text())
    assert done["parameters"] > 1000
    assert done["cpu"] > 0
    assert done["passes"] == taggers.BUDGETS[job.jets].epochs
    assert capsys.readouterr().out.count("| energy flow") == 2
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob(f"*/{BEST}")}
    assert len(before) == 4
    first = np.load(tmp_path / job.name / SCORES)
    bench(monkeypatch, *arguments)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob(f"*/{BEST}")} == before
    scores = np.load(tmp_path / job.name / SCORES)
    assert (len(first), len(scores)) == (60, 200)
    assert (scores[:60] == first).all()
    values = json.loads((tmp_path / "taggers.json").read_text())
    assert values["test"]["signal"] + values["test"]["background"] == 200
    networks_seen = {(one["network"], one["jets"]) for one in values["results"]}
    assert networks_seen == {
        (name, size) for name in ("deepsets", "efn", CUTS, TREES, TREES_FULL) for size in (50, 100)
    }
    whole = tmp_path / "whole"
    train(job.run(data), whole)
    test = taggers.open_jets(data / "test").range(0, 200)
    assert np.array_equal(taggers.score_one(whole, test, whole / SCORES), scores)


@pytest.mark.usefixtures("small")
def test_ratios_of_what_is_trained(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, kept, page = tmp_path / "runs", tmp_path / "ratios", tmp_path / "page.md"
    bench(monkeypatch, data, "-o", runs, "--networks", "deepsets", "--seeds", 1, 2, "--threads", 1, "--train")
    page.write_text("<!-- ratios by x -->\n<!-- /ratios -->\n<!-- measured by y -->\nold\n<!-- /measured -->\n")
    monkeypatch.setattr(
        sys, "argv", ["ratios", *map(str, (data, runs, data / "test", "-o", kept, "--size", 50, "--page", page))]
    )
    tagger_ratios.main()
    text = (kept / "ratios.md").read_text()
    assert text in capsys.readouterr().out
    assert text in page.read_text()
    assert "old" in page.read_text()
    assert sorted(path.name for path in kept.glob("*.npy")) == ["deepsets-50-1.npy", "deepsets-50-2.npy"]
    assert "| deep sets" in text


@pytest.mark.usefixtures("small")
def test_a_mistake_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"error: .*no such file"):
        bench(monkeypatch, tmp_path, "-o", tmp_path / "runs")
    with pytest.raises(UserError, match="no such file"):
        taggers.train_one(Job(1, 50, "pfn"), tmp_path, tmp_path / "x")
