"""The benches: finders in processes of their own, times stage by stage, tables, and the fit of the scaling."""

from __future__ import annotations

import json
import math
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench import scaling, stages, tables, tracks
from bench.compare import FAST, GRAPH, NAMES, OURS, STRICT, Cost, Found, compare
from bench.measure import Spent, Worker
from cloudchamber.data import EventSource, open_events, store
from cloudchamber.errors import UserError
from cloudchamber.reconstruct import Reconstructor


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> EventSource:
    from conftest import toy_event

    path = tmp_path_factory.mktemp("bench") / "events.parquet"
    store.write(path, [toy_event(seed, tracks=20 + 10 * seed) for seed in range(3)])
    return open_events(path)


@pytest.fixture(scope="module")
def found(source: EventSource, tmp_path_factory: pytest.TempPathFactory) -> list[Found]:
    return compare([OURS], source, tmp_path_factory.mktemp("found"), repeat=2)


def _cost(*turns: list[float]) -> Cost:
    return Cost.of([[Spent(2 * cpu, cpu, int(1e9 * cpu)) for cpu in turn] for turn in turns])


def test_cost_is_the_median_of_repetitions() -> None:
    ours, other = _cost([1, 1], [2, 2], [4, 8]), _cost([3, 1], [10, 10], [8, 16])
    assert ours.per_event("cpu") == (2.0, 2.5)
    assert ours.per_event("seconds") == (4.0, 5.0)
    assert other.ratio(ours, "cpu") == 2.0  # of 2, 5 and 2
    assert ours.memory == 8e9


def test_finders_take_turns_on_every_event(found: list[Found], source: EventSource) -> None:
    (ours,) = found
    assert ours.cost.seconds.shape == ours.cost.cpu.shape == (2, 3)
    assert (ours.cost.cpu > 0).all()
    assert ours.cost.memory > 1e8
    finder = Reconstructor()
    for tracks_, event in zip(ours.tracks, source, strict=True):
        assert tracks_.point["object"].tolist() == finder(event).point["object"].tolist()


def test_worker_fails_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"follow: .*none: no such file"):
        Worker(OURS, tmp_path / "none", tmp_path / "x")


def _ask_the_dead(path: Path, directory: Path) -> None:
    with Worker(OURS, path, directory / "x") as worker:
        worker.process.kill()
        worker(0)


def test_worker_that_was_killed(source: EventSource, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="follow: it ended with status -9"):
        _ask_the_dead(source.path, tmp_path)


def test_tables(found: list[Found]) -> None:
    rows = {row["quantity"]: row["cloudchamber"] for row in tables.rows(found)}
    assert list(rows) == list(tables.QUANTITIES)
    assert float(rows["TrackML score"].split()[0]) == pytest.approx(found[0].scores.mean("trackml")[0], abs=6e-4)
    assert rows["CPU time, ours = 1"] == "1"
    assert rows["Time per event"].endswith("%")
    assert rows["Peak memory"].endswith("B")
    assert "CKF" not in tables.legend([one.name for one in found])
    assert "CKF" in tables.legend(NAMES.values())


@pytest.mark.parametrize("target", stages.FUNCTIONS)
def test_the_timed_functions_exist(target: str) -> None:
    owner, name = stages.find(target)
    assert callable(getattr(owner, name))


def test_a_function_that_is_gone_is_named() -> None:
    with pytest.raises(UserError, match=r"no function cloudchamber\.ops:nothing"):
        stages.find("cloudchamber.ops:nothing")


GRAPH_STAGES = {"candidate edges", "triplets", "filter", "network", "track building", "fit", "judgement", "rest"}


@pytest.mark.parametrize(
    ("model", "expected"), [("graph", GRAPH_STAGES), ("follow", {"following", "fit", "judgement", "rest"})]
)
def test_stage_times(source: EventSource, model: str, expected: set[str]) -> None:
    owner, name = stages.find("cloudchamber.tasks.edges:fitted_tracks")
    before = getattr(owner, name)
    times = stages.stage_times(Reconstructor(model), list(source))
    assert getattr(owner, name) is before
    assert set(times) == expected
    assert all(time["seconds"] > 0 for time in times.values())
    assert tables.time_rows(times)[-1]["seconds"] == pytest.approx(sum(time["seconds"] for time in times.values()))


def test_inner_stages_do_not_count_for_outer_ones() -> None:
    watch = stages.Stopwatch()
    ticks = iter(range(10))
    watch._now = lambda: np.array([next(ticks), 0.0])  # type: ignore[method-assign]
    watch.since = watch._now()
    inner = watch.timed(lambda: watch._now(), "inner")  # one tick between its beginning and its end
    watch.timed(inner, "outer")()
    watch.switch(stages.REST)
    assert {name: float(spent[0]) for name, spent in watch.spent.items()} == {"rest": 2, "outer": 2, "inner": 2}


def test_section_and_files(source: EventSource, tmp_path: Path) -> None:
    options = Namespace(directory=tmp_path, ckf=[], model=None, repeat=1, also={})
    text, numbers = tracks.section("Toys", source, options)
    paths = tracks.write(tmp_path, {"a.md": text, "a.json": json.dumps(numbers)})
    assert [path.name for path in paths] == ["a.md", "a.json"]
    read = json.loads(paths[1].read_text())
    assert set(read["finders"]) == {NAMES[name] for name in (OURS, STRICT, FAST, GRAPH)}
    assert set(read["stages"]) >= {"pass 1", "passes 1-2", "tracks"}
    assert read["hits"] == [event.rows("point") for event in source]
    for row in ("| TrackML, primaries", "| Efficiency pT > 0.5, %", "| following", "| passes 1-2"):
        assert row in paths[0].read_text()


@pytest.mark.parametrize("exponent", [1.0, 1.3])
def test_power_is_found_again(exponent: float) -> None:
    x = np.array([1e4, 3e4, 1e5, 2e5])
    k, error, a = scaling.power(x, 7 * x**exponent)
    assert (k, a) == pytest.approx((exponent, 7))
    assert error == pytest.approx(0, abs=1e-6)
    assert math.isnan(scaling.power(x[:2], x[:2])[1])


def test_error_of_a_power() -> None:
    """It is that of scipy's regression."""
    from scipy.stats import linregress

    random = np.random.default_rng(1)
    x = np.geomspace(1e4, 2e5, 12)
    y = x**1.1 * np.exp(random.normal(0, 0.1, 12))
    wanted = linregress(np.log(x), np.log(y))
    assert scaling.power(x, y) == pytest.approx((wanted.slope, wanted.stderr, math.exp(wanted.intercept)))


def test_scaling_row_and_plot(tmp_path: Path) -> None:
    sizes = [
        scaling.Size(pileup, np.array([n, 2 * n]), _cost([n / 1e5, n / 5e4], [n / 1e5, n / 2e4]))
        for pileup, n in ((20, 1e4), (200, 1e5), (400, 2e5))
    ]
    assert sizes[1].row() == pytest.approx(
        {"pileup": 200, "hits": 150_000, "seconds": 4.5, "cpu": 2.25, "per_hit": 1.375e-5, "memory": 5_000_000_000}
    )
    fitted = scaling.fits(sizes)
    scaling.draw(sizes, fitted, "Toys", tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").stat().st_size > 10_000
    assert fitted["memory"][0] == pytest.approx(1)


@pytest.mark.parametrize(
    ("main", "arguments", "words"),
    [
        (tracks.main, ["--events-from", "none"], "error: none: no such file or directory"),
        (scaling.main, ["--pileup", "-1"], "error: collisions: pileup is a mean number"),
    ],
)
def test_one_line_for_a_mistake(
    main: Callable[[], None],
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["bench", "-o", str(tmp_path), *arguments])
    with pytest.raises(SystemExit) as status:
        main()
    assert status.value.code == 2
    errors = capsys.readouterr().err
    assert errors.startswith(words)
    assert errors.count("\n") == 1
