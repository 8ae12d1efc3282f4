"""Work shared out to processes: order, killed workers, exceptions, interrupts; and the same on a Dask cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from cloudchamber import pool
from cloudchamber.errors import UserError
from cloudchamber.pool import AHEAD, Lost, in_processes, on_dask

Run = Callable[[Callable[[], Any], Any], list[Any]]
Clusters = Callable[[int, str], Any]


def identity() -> Callable[[Any], Any]:
    return lambda item: item


def call() -> Callable[[Callable[[], Any]], Any]:
    """Items are functions."""
    return lambda item: item()


def slow(seconds: float, value: int) -> int:
    time.sleep(seconds)
    return value


def die(marks: Path, times: int, value: int) -> int:
    """Kill the own process the first so many times."""
    if len(list(marks.glob(f"{value}-*"))) < times:
        (marks / f"{value}-{os.getpid()}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def accused(marks: Path, times: int) -> str:
    """Fail the first so many times as Dask does when several workers have died of a task, or of one beside it."""
    from distributed.scheduler import KilledWorker

    if len(list(marks.iterdir())) < times:
        (marks / uuid4().hex).touch()
        raise KilledWorker("task", SimpleNamespace(address="tcp://gone"), 1)  # type: ignore[arg-type]
    return "innocent"


def out_of_memory(marks: Path) -> str:
    if list(marks.iterdir()):
        return "enough"
    (marks / "once").touch()
    raise MemoryError


def defect(kind: type[Exception], *arguments: Any) -> None:
    raise kind(*arguments)


def dies() -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def mark(marks: Path, value: int) -> int:
    (marks / str(value)).touch()
    return value


def threads() -> tuple[str, str]:
    return os.environ["OMP_NUM_THREADS"], os.environ["NUMBA_NUM_THREADS"]


class Unportable(Exception):
    def __init__(self, one: int, other: int) -> None:
        super().__init__("two things")


@pytest.fixture(params=["processes", "dask"])
def run(request: pytest.FixtureRequest) -> Run:
    """All results, from two processes or two Dask workers."""
    if request.param == "processes":
        return lambda start, items: list(in_processes(start, items, 2))
    address = request.getfixturevalue("cluster")
    return lambda start, items: list(on_dask(start, items, address))


def test_results_come_in_order(run: Run) -> None:
    items = [partial(slow, 0.2 if i in (0, 7) else 0.0, i) for i in range(30)]
    assert run(call, items) == list(range(30))


@pytest.mark.slow
def test_a_killed_dask_worker_loses_nothing(clusters: Clusters, tmp_path: Path) -> None:
    items, cluster = [partial(die, tmp_path, int(i == 1), i) for i in range(5)], clusters(2, "processes")
    assert list(on_dask(call, items, cluster.address)) == list(range(5))
    cluster.end()
    assert len(list(tmp_path.iterdir())) == 1


def test_a_killed_worker_loses_nothing_and_what_kills_every_one_is_given_up(tmp_path: Path) -> None:
    found = list(in_processes(call, [partial(die, tmp_path, {1: 2, 2: 1000}.get(i, 0), i) for i in range(5)], 2))
    assert found == [0, 1, Lost("3 worker processes in a row were killed (SIGKILL)"), 3, 4]
    assert (len(list(tmp_path.glob("1-*"))), len(list(tmp_path.glob("2-*")))) == (2, 3)


@pytest.mark.parametrize("times", [0, 1, 2])
def test_what_dask_calls_a_killer_has_a_second_chance(times: int, cluster: str, tmp_path: Path) -> None:
    found = list(on_dask(call, [partial(accused, tmp_path, times), tuple], cluster))
    assert found == [Lost("2 Dask workers in a row died") if times == 2 else "innocent", ()]


def test_out_of_memory_is_as_good_as_killed(tmp_path: Path) -> None:
    assert list(in_processes(call, [partial(out_of_memory, tmp_path), tuple], 2)) == ["enough", ()]


def test_a_signal_from_outside() -> None:
    results = in_processes(call, [partial(slow, 0.3, i) for i in range(6)], 2)
    assert next(results) == 0
    for process in multiprocessing.active_children():
        os.kill(process.pid or 0, signal.SIGKILL)
    assert list(results) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("kind", "arguments", "raised", "message"),
    [
        (UserError, ("file: row 1",), UserError, "file: row 1"),
        (EOFError, ("of a file",), EOFError, "of a file"),
        (Unportable, (1, 2), RuntimeError, "two things"),
    ],
)
def test_exceptions_are_raised_here(
    kind: type[Exception], arguments: tuple[Any, ...], raised: type[Exception], message: str
) -> None:
    with pytest.raises(raised, match=message) as caught:
        list(in_processes(call, [tuple, partial(defect, kind, *arguments), tuple], 2))
    assert "in defect" in "".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert not multiprocessing.active_children()


def test_what_cannot_start(run: Run) -> None:
    with pytest.raises(UserError, match="no such model"):
        run(partial(defect, UserError, "no such model"), [tuple] * 3)


def test_what_dies_before_it_starts() -> None:
    with pytest.raises(UserError, match=r"cannot start: 3 in a row were killed \(SIGKILL\)"):
        list(in_processes(dies, [tuple] * 9, 2))


def test_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "cores", lambda: 9)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    assert list(in_processes(call, [threads] * 2, 2)) == [("3", "4")] * 2
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert "NUMBA_NUM_THREADS" not in os.environ


@pytest.mark.parametrize("workers", [1, 2])
def test_no_more_is_begun_than_memory_can_hold(workers: int, tmp_path: Path) -> None:
    results = in_processes(call, [partial(mark, tmp_path, i) for i in range(60)], workers)
    assert next(results) == 0
    time.sleep(0.5)
    assert len(list(tmp_path.iterdir())) <= AHEAD * workers
    assert sum(1 for _ in results) == 59


def test_an_unfinished_iteration_leaves_no_process() -> None:
    results = in_processes(call, [partial(slow, 0.1 * i, i) for i in range(90)], 2)
    assert [next(results), next(results)] == [0, 1]
    assert len(multiprocessing.active_children()) == 2
    results.close()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense://here", "127.0.0.1:port"])
def test_no_cluster_there(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(pool, "PATIENCE", 0.5)
    with pytest.raises(UserError, match=f"{address}: no Dask scheduler answers"):
        list(on_dask(call, [tuple], address))


def test_dask_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r"pip install 'cloudchamber\[dask\]'"):
        list(on_dask(call, [tuple], "tcp://127.0.0.1:8786"))


def test_a_cluster_whose_workers_are_gone(clusters: Clusters, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "PATIENCE", 2.0)
    monkeypatch.setattr(pool, "ABSENCE", 3.0)
    cluster = clusters(1, "threads")
    results = on_dask(call, [partial(slow, 0.1, i) for i in range(100)], cluster.address)
    assert next(results) == 0
    cluster.scale(0)
    with pytest.raises(UserError, match="all Dask workers are gone"):
        list(results)
    cluster.end()


@pytest.mark.parametrize("seconds", [0.1, 30.0])
def test_a_cluster_that_ends(seconds: float, clusters: Clusters, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two items, and in the midst of one."""
    monkeypatch.setattr(pool, "PATIENCE", 2.0)
    cluster = clusters(1, "threads")
    results = on_dask(call, [partial(slow, 0.1 if i < 1 else seconds, i) for i in range(100)], cluster.address)
    assert next(results) == 0
    cluster.end()
    with pytest.raises(UserError, match="the Dask scheduler is gone"):
        list(results)
