"""From events to tracks on disk and to scores: what is written, what is not looked at, what is refused."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from cloudchamber.checkpoint import SHIPPED, shipped_model
from cloudchamber.data import EventSource, open_events, store
from cloudchamber.errors import UserError
from cloudchamber.event import Event
from cloudchamber.predictions import SUBMISSION, TRACKS, read_predictions
from cloudchamber.reconstruct import Reconstructor, reconstruct

PARAMETERS = ["charge", "pt", "eta", "phi", "d0", "z0", "hits"]


@pytest.fixture(scope="module")
def model(finder: Callable[[str], Path]) -> Path:
    return finder("edges")


def source(*events: Event) -> EventSource:
    """Events that come from no file."""
    return EventSource(
        Path("events"), tuple((f"event{i}", lambda event=event: event) for i, event in enumerate(events))
    )


def hits(event: Event, rows: Any) -> Event:
    """Some hits of an event, without truth."""
    names = ("id", "x", "y", "z", "volume", "layer", "module")
    return Event(point={name: event.point[name][rows] for name in names}, scene=event.scene)


def changed(event: Event, **columns: torch.Tensor) -> Event:
    return replace(event, point={**event.point, **columns})


def files(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()} if directory.exists() else set()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, toys: list[Event], model: Path) -> Path:
    directory = tmp_path_factory.mktemp("written") / "out"
    done: list[str] = []
    outcome = reconstruct(source(*toys), directory, model, done.append)
    assert (outcome.events, outcome.failed) == (4, [])
    assert done == ["event0", "event1", "event2", "event3"]
    assert outcome.rows == len(pd.read_parquet(directory / TRACKS)) > 4
    return directory


def test_every_hit_is_written_once_and_every_track_described(written: Path, toys: list[Event]) -> None:
    assert files(written) == {SUBMISSION, TRACKS}
    submission, tracks = pd.read_csv(written / SUBMISSION), pd.read_parquet(written / TRACKS)
    assert submission.columns.tolist() == ["event_id", "hit_id", "track_id"]
    assert (submission.dtypes == np.int64).all()
    errors = [f"sigma_{name}" for name in ("pt", "eta", "phi", "d0", "z0")]
    assert tracks.columns.tolist() == ["event_id", "track_id", *PARAMETERS, *errors, "chi2", "ndf", "quality"]
    assert tracks.quality.isna().all()  # a model that does not judge its tracks
    for number, event in enumerate(toys):
        rows, own = submission[submission.event_id == number], tracks[tracks.event_id == number]
        assert rows.hit_id.tolist() == event.point["id"].tolist()
        assert own.track_id.tolist() == list(range(1, len(own) + 1))
        assert np.bincount(rows.track_id)[1:].tolist() == own.hits.tolist()
        assert (rows.track_id == 0).any()  # 0 is no track
    assert tracks.charge.dropna().isin([-1, 1]).all()
    assert (tracks.pt.dropna() > 0).all()


def test_what_is_written_is_read_again(written: Path, toys: list[Event], model: Path) -> None:
    found, finder = read_predictions(written), Reconstructor(model)
    assert list(found) == [0, 1, 2, 3]
    for number, event in enumerate(toys):
        predicted = finder(event)
        for name in ("id", "object"):
            assert torch.equal(found[number].point[name], predicted.point[name])
        for name in PARAMETERS:
            torch.testing.assert_close(
                found[number].object[name], predicted.object[name].to(found[number].object[name].dtype), equal_nan=True
            )


def test_truth_is_not_looked_at(model: Path, toy: Callable[..., Event]) -> None:
    finder, event = Reconstructor(model), toy(5)
    expected = finder(event)
    order = torch.randperm(event.rows("point"), generator=torch.Generator().manual_seed(0))
    truth = {name: event.point[name][order] for name in ("object", "tx", "ty", "tz", "tpx", "tpy", "tpz", "weight")}
    for other in (changed(event, **truth), hits(event, slice(None))):
        found = finder(other)
        assert torch.equal(found.point["object"], expected.point["object"])
        for name in PARAMETERS:
            torch.testing.assert_close(found.object[name], expected.object[name], rtol=0, atol=0, equal_nan=True)


def test_cells_are_looked_at_but_not_what_has_left_them(
    model: Path, toy: Callable[..., Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    event, given = toy(33), []
    rows = torch.arange(event.rows("point"))
    cell = {"point": rows, "u": rows, "v": rows, "value": rows.float(), "object": event.point["object"]}
    finder = Reconstructor(model)
    prepare = finder.task.prepare
    monkeypatch.setattr(finder.task, "prepare", lambda hits: given.append(hits) or prepare(hits))
    plain, found = finder(event), finder(event.with_level("cell", cell))
    assert [set(hits.cell) for hits in given] == [set(), {"point", "u", "v"}]
    assert torch.equal(plain.point["object"], found.point["object"])  # of edges: they make nothing of cells
    del cell["v"]  # those of showers
    finder(event.with_level("cell", cell))
    assert given[2].cell == {}


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory, toys: list[Event]) -> EventSource:
    """Good and bad events in files, which other processes can open."""
    directory = tmp_path_factory.mktemp("events")
    x = toys[0].point["x"].clone()
    x[6] = torch.nan
    for number, event in enumerate([*toys, changed(toys[0], x=x), toys[1]]):
        store.write(directory / f"event{number}.parquet", event)
    (directory / "event2b.parquet").write_text("no event")
    return open_events(directory)


@pytest.mark.parametrize("way", [{"workers": 2}, {"dask": True}], ids=str)
def test_the_same_bytes_whoever_works(
    way: dict[str, Any], on_disk: EventSource, model: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    lists: tuple[list[str], list[str]] = ([], [])
    alone = reconstruct(on_disk, tmp_path / "alone", model, lists[0].append)
    if "dask" in way:
        way = {"dask": request.getfixturevalue("cluster")}
    shared = reconstruct(on_disk, tmp_path / "shared", model, lists[1].append, **way)
    assert alone == shared
    assert (alone.events, len(alone.failed)) == (4, 3)
    assert lists[0] == lists[1] == ["event0", "event1", "event2", "event3"]
    assert files(tmp_path / "shared") == {SUBMISSION, TRACKS}
    for name in (SUBMISSION, TRACKS):
        assert (tmp_path / "alone" / name).read_bytes() == (tmp_path / "shared" / name).read_bytes()


def kills(event: Event) -> Event:
    if multiprocessing.parent_process():
        os.kill(os.getpid(), signal.SIGKILL)
    return event


def test_an_event_that_kills_its_processes_is_named(model: Path, toys: list[Event], tmp_path: Path) -> None:
    entries = [(f"event{i}", partial(kills if i == 1 else replace, event)) for i, event in enumerate(toys)]
    outcome = reconstruct(EventSource(Path("events"), tuple(entries)), tmp_path, model, workers=2)
    assert outcome.failed == ["event1: 3 worker processes in a row were killed (SIGKILL)"]
    assert list(read_predictions(tmp_path)) == [0, 2, 3]


#: The command line as a terminal starts it: a program in the background may be told to ignore Ctrl-C.
TERMINAL = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from cloudchamber.__main__ import main
main()
"""


@pytest.mark.parametrize("begun", [False, True])
def test_an_interrupt_leaves_nothing(begun: bool, model: Path, toys: list[Event], tmp_path: Path) -> None:
    """Ctrl-C reaches all processes of a terminal: while the workers start, and in the midst of their work."""
    many, out = tmp_path / "many.parquet", tmp_path / "out"
    store.write(many, [replace(toys[0], scene={"id": torch.tensor([number])}) for number in range(3000)])
    command = [sys.executable, "-c", TERMINAL, "reconstruct", many, "--model", model, "-o", out, "--workers", "2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(list(map(str, command)), start_new_session=True, **pipes) as run:
        while not files(out):  # made just before the workers start
            assert run.poll() is None
            time.sleep(0.01)
        if begun:
            assert run.stdout.readline() == "many-000000: done\n"
        error = None
        while error is None:  # Python loses one that comes while it runs a destructor
            os.killpg(run.pid, signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                error = run.communicate(timeout=5)[1]
    assert (run.returncode, error) == (130, "")
    assert files(out) == set()
    for _ in range(100):  # multiprocessing's own helper needs a moment
        with suppress(ProcessLookupError):
            os.killpg(run.pid, 0)
            time.sleep(0.1)
            continue
        return
    pytest.fail("a process is left")


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_hits(count: int, model: Path, toys: list[Event], tmp_path: Path) -> None:
    outcome = reconstruct(source(hits(toys[2], slice(count))), tmp_path, model)
    assert (outcome.events, outcome.rows, outcome.failed) == (1, 0, [])
    rows = pd.read_csv(tmp_path / SUBMISSION)
    assert rows.to_numpy().tolist() == [[2, hit, 0] for hit in toys[2].point["id"][:count].tolist()]
    assert read_predictions(tmp_path).keys() == ({2} if count else set())


def test_without_columns_at_all(model: Path, tmp_path: Path) -> None:
    nothing = Event(scene={"id": torch.tensor([3])}, count={"point": torch.tensor([0])})
    assert reconstruct(source(nothing), tmp_path, model).events == 1


def test_bad_events_are_named_and_the_others_written(model: Path, toys: list[Event], tmp_path: Path) -> None:
    def corrupt() -> Event:
        raise UserError("corrupt.csv: row 1\nand more")

    x, identity = toys[0].point["x"].clone(), toys[0].point["id"].clone()
    x[6], identity[9] = torch.nan, identity[3]
    lacking = replace(toys[0], point={name: column for name, column in toys[0].point.items() if name != "layer"})
    given = source(changed(toys[0], x=x), changed(toys[0], id=identity), lacking, toys[1], toys[2], toys[1])
    given = EventSource(given.path, (*given.entries, ("corrupt", corrupt)))
    outcome = reconstruct(given, tmp_path, model)
    assert outcome.events == 2
    assert outcome.failed == [
        "event0: row 7, point.x: expected a finite number, found nan",
        f"event1: row 10, point.id: expected a value that no row before has, found {identity[3]}",
        "event2: point.layer is missing",
        "event5: scene.id: the number 1 is already that of event3",
        "corrupt.csv: row 1 and more",
    ]
    assert list(read_predictions(tmp_path)) == [1, 2]


def test_events_without_numbers_are_numbered_by_their_place(model: Path, toys: list[Event], tmp_path: Path) -> None:
    bare = [replace(event, scene={}) for event in toys[:2]]
    bad = replace(bare[0], point={"id": bare[0].point["id"]})
    given = source(bad, *bare)
    assert len(reconstruct(given, tmp_path, model).failed) == 1
    assert list(read_predictions(tmp_path)) == [1, 2]  # also when one before them is bad


def test_nothing_is_left_after_a_failure(model: Path, toys: list[Event], tmp_path: Path) -> None:
    def broken() -> Event:
        raise RuntimeError("a defect")

    given = EventSource(Path("events"), (*source(toys[0]).entries, ("broken", broken)))
    with pytest.raises(RuntimeError, match="a defect"):
        reconstruct(given, tmp_path / "new", model)
    assert files(tmp_path / "new") == set()
    (tmp_path / SUBMISSION).write_text("older")
    with pytest.raises(RuntimeError, match="a defect"):
        reconstruct(given, tmp_path, model)
    assert (tmp_path / SUBMISSION).read_text() == "older"
    assert files(tmp_path) == {SUBMISSION, "new"}


def test_another_task_finds_no_tracks(finder: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"embed\.safetensors: task\.kind: expected 'edges'.*found 'embed'"):
        Reconstructor(finder("embed"))


def test_submissions_of_other_finders(tmp_path: Path) -> None:
    (tmp_path / SUBMISSION).write_text("event_id,hit_id,track_id\n7,3,40\n7,1,0\n7,2,40\n7,5,8\n9,1,2\n")
    found = read_predictions(tmp_path)
    assert list(found) == [7, 9]
    assert found[7].point["id"].tolist() == [3, 1, 2, 5]
    assert found[7].point["object"].tolist() == [1, -1, 1, 0]
    assert found[7].object["hits"].tolist() == [1, 2]
    assert found[9].point["object"].tolist() == [0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "No columns"),
        ("hit_id,event_id,track_id\n1,1,1\n", "expected the columns event_id, hit_id, track_id"),
        ("event_id,hit_id\n1,1\n", "expected the columns"),
        ("event_id,hit_id,track_id\n1,1,x\n", "x"),
        ("event_id,hit_id,track_id\n1,1,\n", "."),
        ("event_id,hit_id,track_id\n1,1,1.5\n", "."),
        ("event_id,hit_id,track_id\n1,1,99999999999999999999\n", "."),
        ("event_id,hit_id,track_id\n1,1,1\n1,2,1,1\n", "."),
        ("event_id,hit_id,track_id\n1,1,1,1\n1,2,1,1\n", "."),
        ("event_id,hit_id,track_id\n1,1,0\n1,2,-1\n", "row 2, column track_id: expected 0 .* found -1"),
        ("event_id,hit_id,track_id\n1,1,0\n2,1,0\n1,1,2\n", "row 3, column hit_id: .* once, found 1"),
        ("\x00\x01\x02", "."),
    ],
)
def test_malformed_submissions(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / SUBMISSION).write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_predictions(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / SUBMISSION))
    assert "\n" not in str(caught.value)


def test_no_submission(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match=r"no submission\.csv"):
            read_predictions(directory)


def test_tracks_that_do_not_fit_the_submission(written: Path, tmp_path: Path) -> None:
    tracks = pd.read_parquet(written / TRACKS)
    (tmp_path / SUBMISSION).write_bytes((written / SUBMISSION).read_bytes())
    for wrong, message in (
        (tracks.drop(columns="eta"), "expected a column eta"),
        (tracks.iloc[::-1], "column track_id: expected 1, 2"),
        (tracks[tracks.event_id != 2], "column track_id: expected a track of tracks.parquet"),
    ):
        wrong.to_parquet(tmp_path / TRACKS)
        with pytest.raises(UserError, match=message):
            read_predictions(tmp_path)
    (tmp_path / TRACKS).write_text("none")
    with pytest.raises(UserError, match=r"tracks\.parquet"):
        read_predictions(tmp_path)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_models_that_ship(name: str, toys: list[Event]) -> None:
    finder = Reconstructor(name)
    assert not finder.task.training
    assert finder(toys[0]).rows("point") == toys[0].rows("point")
    content = shipped_model(name).read_bytes()
    assert len(content) <= 2_000_000
    for text in (b"/home/", b"/work", b"/tmp", b"/root", b"/Users/", str(Path.home()).encode()):
        assert text not in content[: 1 << 20], text


def test_a_higher_threshold_keeps_fewer_tracks(toys: list[Event]) -> None:
    every = Reconstructor(threshold=0.0)(toys[0])
    threshold = float(every.object["quality"].median())
    some, none = (Reconstructor(threshold=value)(toys[0]) for value in (threshold, 1.0))
    surest = every.object["quality"] >= threshold
    assert 0 < some.rows("object") == int(surest.sum()) < every.rows("object")
    assert torch.equal(some.object["quality"], every.object["quality"][surest])
    assert none.rows("object") == 0


def test_the_first_passes_alone(toys: list[Event]) -> None:
    every, first = (Reconstructor(threshold=0.0, passes=passes)(toys[0]) for passes in (None, 1))
    tracks = first.rows("object")
    assert 0 < tracks < every.rows("object")
    assert torch.equal(first.point["object"] >= 0, torch.isin(every.point["object"], torch.arange(tracks)))
    assert torch.equal(first.object["quality"], every.object["quality"][:tracks])


@pytest.mark.parametrize(("model", "passes", "message"), [("follow", 5, "at most 4"), ("graph", 1, "'follow'")])
def test_passes_that_a_model_does_not_have(model: str, passes: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Reconstructor(model, passes=passes)


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_an_extreme_threshold_of_edges(threshold: float, toys: list[Event]) -> None:
    found = Reconstructor("graph", threshold=threshold)(toys[0])
    assert len(found.point["object"]) == toys[0].rows("point")
