"""Work shared out to processes, here or on a Dask cluster: results in order, few at a time, none lost with a process.

``start`` makes, once in each process, the function that is given the items, one at a time; all are pickled. An item of
which one process after the other dies gives ``Lost``; an exception ends the work and is raised here.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from threading import Lock, current_thread, main_thread
from typing import Any, TypeVar
from uuid import uuid4

from cloudchamber.errors import UserError

T = TypeVar("T")
R = TypeVar("R")
Start = Callable[[], Callable[[T], R]]

#: So many processes may die of an item, or in a row before they take their first one.
ATTEMPTS = 3
#: So many items per process may be begun before the first of them is done.
AHEAD = 4
#: Seconds in which a Dask scheduler must answer.
PATIENCE = 10.0
#: Seconds without any Dask worker, after there was one, or without an answer of its scheduler, which may be busy.
ABSENCE = 120.0


@dataclass(frozen=True)
class Lost:
    """Instead of a result: why there is none."""

    reason: str


def in_processes(start: Start[T, R], items: Sequence[T], workers: int) -> Generator[R | Lost]:
    """The results of ``items``, in their order, from ``workers`` processes that share the cores; 1: from this process.

    If a process dies (killed, out of memory), another one takes its item. Processes are spawned: a script that calls
    this needs the usual ``if __name__ == "__main__"``. They end with the generator: close it where an exception may
    leave it unfinished. Raises ``UserError`` when processes die before they start.
    """
    workers = min(workers, len(items))
    if workers > 1:
        return _Pool(start, items, workers).results()
    work = start()
    return (work(item) for item in items)


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Processes that start meanwhile use so many threads, or fewer where the environment says so."""
    before = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")}
    os.environ.update({name: str(min(number, int(given or number))) for name, given in before.items()})
    try:
        yield
    finally:
        for name, given in before.items():
            os.environ.pop(name) if given is None else os.environ.update({name: given})


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits for the end of this; processes that start meanwhile never see it, as they inherit the mask.

    The mask alone would not do: the signal would reach another thread, and Python raise it in this one.
    """
    late: list[int] = []
    main = current_thread() is main_thread()
    handler = signal.signal(signal.SIGINT, lambda number, frame: late.append(number)) if main else None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if main:
            signal.signal(signal.SIGINT, handler)
    if late:
        raise KeyboardInterrupt


class _Pool:
    """Processes, what they work on, and the results that are not asked for yet."""

    def __init__(self, start: Start[Any, Any], items: Sequence[Any], workers: int) -> None:
        self.start, self.items, self.size = start, items, workers
        self.workers: list[_Worker] = []
        self.waiting = deque(range(len(items)))
        self.deaths: dict[int, int] = {}
        self.done: dict[int, Any] = {}
        self.failed_starts = 0

    def results(self) -> Generator[Any]:
        try:
            for number in range(len(self.items)):
                self.serve(wait_for=number)
                yield self.done.pop(number)
        finally:
            for worker in self.workers:
                worker.process.kill()
            for worker in self.workers:
                worker.end()

    def serve(self, wait_for: int) -> None:
        """Hand out items and take results until that of number ``wait_for`` is there."""
        while True:
            busy = sum(worker.item is not None for worker in self.workers)
            while len(self.workers) < min(self.size, busy + len(self.waiting)):
                self.workers.append(_Worker(self.start, max(1, cores() // self.size)))
            for worker in self.workers:
                ready = worker.ready and worker.item is None
                if ready and self.waiting and self.waiting[0] < wait_for + AHEAD * self.size:
                    self.give(worker)
            there = wait_for in self.done
            for pipe in wait([worker.pipe for worker in self.workers], timeout=0 if there else None):
                self.take(next(worker for worker in self.workers if worker.pipe is pipe))
            if there:
                return

    def give(self, worker: _Worker) -> None:
        worker.item = self.waiting.popleft()
        with suppress(OSError):  # it has died, as take() will find
            worker.pipe.send(self.items[worker.item])

    def take(self, worker: _Worker) -> None:
        """Note what a worker sends: that it is ready, a result, an exception; or that it has died."""
        try:
            result, error = worker.pipe.recv()
        except (EOFError, OSError):
            self.workers.remove(worker)
            self.replace(worker, worker.end())
            return
        if error is not None:
            raise error
        if worker.item is not None:
            self.done[worker.item] = result
        worker.ready, worker.item, self.failed_starts = True, None, 0

    def replace(self, worker: _Worker, end: str) -> None:
        """Give the item of a worker that has died to another one, unless too many died of it."""
        if not worker.ready:
            self.failed_starts += 1
            if self.failed_starts == ATTEMPTS:
                raise UserError(f"worker processes cannot start: {ATTEMPTS} in a row {end}")
        if worker.item is not None:
            self.deaths[worker.item] = self.deaths.get(worker.item, 0) + 1
            if self.deaths[worker.item] == ATTEMPTS:
                self.done[worker.item] = Lost(f"{ATTEMPTS} worker processes in a row {end}")
            else:
                self.waiting.appendleft(worker.item)


class _Worker:
    """A process, seen from here; ``item`` is the number of what it works on."""

    def __init__(self, start: Start[Any, Any], threads: int) -> None:
        context = get_context("spawn")
        self.ready = False
        self.item: int | None = None
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, start), daemon=True)
        resource_tracker.ensure_running()  # not later: it unblocks signals
        with _uninterrupted(), _threads(threads):
            self.process.start()
            theirs.close()

    def end(self) -> str:
        """Release what the process held; how it ended."""
        self.pipe.close()
        self.process.join()
        status = self.process.exitcode or 0
        self.process.close()
        return f"were killed ({signal.Signals(-status).name})" if status < 0 else f"ended (status {status})"


def _serve(pipe: Connection, start: Start[Any, Any]) -> None:
    """What a worker process does until the other end of its pipe is closed."""
    result: tuple[Any, Any] = None, None
    try:
        work = start()
        while True:
            pipe.send(result)
            try:
                item = pipe.recv()
            except EOFError:
                return
            result = work(item), None
    except MemoryError:
        os.kill(os.getpid(), signal.SIGKILL)  # as the system does a moment later
    except Exception as error:
        with suppress(OSError):
            pipe.send((None, _portable(error)))


def _portable(error: Exception) -> Exception:
    """An exception that can be pickled and says where it was raised."""
    error.add_note(f"in a worker process:\n{traceback.format_exc()}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(traceback.format_exc())
    return error


def on_dask(start: Start[T, R], items: Sequence[T], address: str) -> Generator[R | Lost]:
    """As ``in_processes``, by the workers of a running Dask cluster, which need this package, too.

    ``address`` is that of the scheduler, such as ``tcp://host:8786``; its first worker is waited for. A worker does one
    item at a time with as many threads as it has. Raises ``UserError`` when ``distributed`` is missing, the scheduler
    cannot be reached, or it or all workers are gone.
    """
    try:
        import distributed
        from distributed.comm import CommClosedError
        from distributed.scheduler import KilledWorker
    except ImportError:
        raise UserError("a Dask cluster needs Dask: pip install 'cloudchamber[dask]'") from None

    async def knock() -> None:
        await (await distributed.comm.connect(address, timeout=PATIENCE)).close()

    try:
        with ThreadPoolExecutor(
            1
        ) as apart:  # a client that cannot connect is left half open, and may block the next one
            apart.submit(asyncio.run, knock()).result()
        client = distributed.Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{address}: no Dask scheduler answers ({type(error).__name__})") from None
    run, pending, begun, seen = uuid4().hex, deque[Any](), 0, 0

    def workers() -> int:
        try:
            return len(client.sync(client.scheduler.ncores, callback_timeout=ABSENCE))
        except OSError:
            raise distributed.CancelledError from None

    def submit(number: int) -> Any:
        return client.submit(_on_worker, run, start, items[number], key=f"cloudchamber-{uuid4().hex}")

    def result(future: Any) -> Any:
        absent = 0.0
        while not future.done():
            with suppress(TimeoutError):
                return future.result(timeout=PATIENCE)
            absent = 0.0 if workers() or not seen else absent + PATIENCE
            if absent >= ABSENCE:
                raise UserError(f"{address}: all Dask workers are gone")
        return future.result()

    with client:
        for number in range(len(items)):
            try:
                seen = max(seen, workers())
                while begun < min(len(items), number + AHEAD * max(AHEAD, seen)):
                    pending.append(submit(begun))
                    begun += 1
                try:
                    value = result(pending.popleft())
                except KilledWorker:  # perhaps it only stood in line behind the one that workers died of
                    value = result(submit(number))
            except KilledWorker as error:
                value = Lost(f"{error.allowed_failures + 1} Dask workers in a row died")
            except (CommClosedError, distributed.CancelledError):
                raise UserError(f"{address}: the Dask scheduler is gone") from None
            except RuntimeError as error:
                if "deserialization" in str(error):
                    raise UserError(f"{address}: its workers do not have what this program has installed") from None
                raise
            yield value


_lock, _works = Lock(), dict[str, Callable[[Any], Any]]()


def _on_worker(run: str, start: Start[T, R], item: T) -> R:
    """On a Dask worker: one item at a time, with what ``start`` made for this run."""
    from distributed import get_worker

    from cloudchamber.threads import use_threads

    with _lock:
        if run not in _works:
            _works.clear()
            _works[run] = start()
        use_threads(get_worker().state.nthreads)
        result: R = _works[run](item)
        return result
