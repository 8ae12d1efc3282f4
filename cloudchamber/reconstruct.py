"""From a directory of events to tracks, or other objects, on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
import torch

from cloudchamber import checkpoint
from cloudchamber.checkpoint import model_path
from cloudchamber.config import Run
from cloudchamber.data import EventSource
from cloudchamber.data.store import one_line
from cloudchamber.errors import UserError
from cloudchamber.event import Event
from cloudchamber.export import cached, use_onnx
from cloudchamber.metrics import Fraction
from cloudchamber.outcome import Outcome, results
from cloudchamber.predictions import check_kind, hit_lines, track_table, write_objects, write_tracks
from cloudchamber.tasks import Task
from cloudchamber.tasks.edges import pair_rates
from cloudchamber.tasks.follow import Follow
from cloudchamber.tasks.tracks import track_pairs, without_outliers

_FINDERS = ("edges", "quality", "condense")
_INPUTS = dict.fromkeys(("id", "volume", "layer"), torch.int64) | dict.fromkeys("xyz", torch.float32)
_CHANNELS = ("point", "u", "v")  # of the cells; those of showers tell which one has left what
_TRUTH = ("object", "tx", "ty", "tz", "tpx", "tpy", "tpz", "weight")


class Reconstructor:
    """Finds the tracks of one event after the other with a trained task; truth in an event is not looked at.

    Those of a ``condense`` task without ``helix`` are no tracks but objects of another kind, such as showers.

    ``model``: a checkpoint, the name of one that ships, or None: see ``checkpoint.model_path``. ``engine``: what runs
    the networks, ``torch`` or ``onnx``. ``threshold``: least probability of what makes or is a track, from 0 to 1, None
    for that of the model; a higher one is less efficient and has fewer fakes. ``passes``: of a finder that follows
    tracks only the first so many, None for all: see ``FollowConfig``. Raises ``UserError`` for a file that is no
    checkpoint, one of a task that makes no objects, or passes that it does not have.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        engine: str = "torch",
        threshold: float | None = None,
        passes: int | None = None,
    ) -> None:
        path = model_path(model)
        self.task: Task
        self.task, self.run = checkpoint.load(path)
        if self.run.task.kind not in _FINDERS:
            kinds = " or ".join(map(repr, _FINDERS))
            raise UserError(f"{path}: task.kind: expected {kinds}, which make objects, found {self.run.task.kind!r}")
        self.tracks = _makes_tracks(self.run)
        if engine == "onnx":
            use_onnx(self.task, self.run, path)
        if threshold is not None:
            self.task.config = replace(self.run.task, threshold=threshold)
        if passes is not None:
            graph = getattr(self.task, "graph", None)
            if not isinstance(graph, Follow):
                raise UserError(f"{path}: passes: expected a model whose graph.kind is 'follow': others make none")
            graph.limit(passes)

    def __call__(self, event: Event) -> Event:
        """Tracks of an event: ``point.id``, ``point.object``, in ``object`` the columns of ``HelixFit`` and ``hits``.

        The fit leaves out hits that do not belong to their track: see ``without_outliers``. Objects of another kind
        have the columns that the task learned, its payload, instead of a fit.
        """
        point = {name: column for name, column in event.point.items() if name not in _TRUTH}
        if not event.rows("point"):  # then no file has to know the columns
            read = dict.fromkeys(self.task.columns["point"], torch.float32)
            point |= {name: torch.zeros(0, dtype=kind) for name, kind in (read | _INPUTS).items()}
        count = {name: event.count[name] for name in ("point", "scene")}
        cell = {name: event.cell[name] for name in _CHANNELS} if event.cell.keys() >= set(_CHANNELS) else {}
        count["cell"] = event.count["cell"] if cell else torch.zeros_like(count["point"])
        hits = Event(point=point, scene=event.scene, cell=cell, count=count)
        with torch.inference_mode():
            found = self.task.decode(self.task.prepare(hits))
            return without_outliers(hits, found) if self.tracks else found

    def stage_rates(self, event: Event) -> dict[str, dict[str, Fraction]]:
        """For every stage of the pipeline the efficiency and purity of its edges, on an event with truth.

        Efficiency: of the pairs of hits that follow one another on the track of a particle with at least four hits,
        those that are still joined. Purity: of the joined pairs, those of one particle. The last stage joins hits that
        follow one another on a reconstructed track.
        """
        with torch.inference_mode():
            rates = {name: pair_rates(edges, min_hits=4) for name, edges in self.task.stages(event).items()}
        rates["tracks"] = pair_rates(track_pairs(event, self(event)), min_hits=4)
        return rates


def reconstruct(
    source: EventSource,
    directory: str | Path,
    model: str | Path | None = None,
    progress: Callable[[str], None] = lambda name: None,
    workers: int = 1,
    dask: str | None = None,
    engine: str = "torch",
    threshold: float | None = None,
    passes: int | None = None,
) -> Outcome:
    """Write the tracks of all events to ``directory``, files atomically, and tell what failed.

    ``submission.csv``: ``event_id, hit_id, track_id`` of every hit, in the format of the TrackML challenge, 0 for no
    track. ``tracks.parquet``: a row per track, ``event_id, track_id``, charge, pt (GeV), eta, phi (rad), d0, z0 (mm),
    hits, the errors ``sigma_pt`` to ``sigma_z0``, chi2 and ndf of the fit, and the ``quality`` that the model gives the
    track (NaN if none).

    Objects that are no tracks: ``objects.parquet``, a row per event as in files of events, with ``point.id``,
    ``point.object``, what the model tells of its objects, and ``scene.id``, the number of the event.

    A malformed event is named in the outcome, as is one that kills its processes; the others are written all the same.
    The rows of the outcome are tracks or objects. ``progress`` is called with the name of each event when it is
    written, in the order of the source.

    ``workers`` processes share the events (see ``pool.in_processes``), or the workers of the Dask cluster whose
    scheduler has the address ``dask``, which read the same files. What is written does not depend on them.
    ``engine``, ``threshold``, ``passes``: see ``Reconstructor``.
    """
    if engine == "onnx":  # here, once for all processes
        cached(model_path(model))
    tracks = _makes_tracks(checkpoint.read(model_path(model))[1])
    check_kind(directory, tracks)
    start, outcome = partial(_start, model, engine, threshold, passes), Outcome()
    items = [(index, name, load) for index, (name, load) in enumerate(source.entries)]
    found = results(start, items, source.names, outcome.failed, workers, dask)
    with closing(found):
        written = _told(found, outcome, progress)
        if tracks:
            write_tracks(directory, ((one.hits, one.tracks) for one in written))
        else:
            write_objects(directory, (one.event for one in written if one.event is not None))
    return outcome


def _makes_tracks(run: Run) -> bool:
    return getattr(run.task, "helix", True)


def _told(
    found: Iterable[tuple[str, _Written]], outcome: Outcome, progress: Callable[[str], None]
) -> Iterator[_Written]:
    """What is to be written; that it was is told when the next is asked for."""
    seen = dict[int, str]()
    for name, result in found:
        if result.number in seen:
            number = result.number
            outcome.failed.append(f"{name}: scene.id: the number {number} is already that of {seen[number]}")
            continue
        seen[result.number] = name
        yield result
        outcome.events += 1
        outcome.rows += result.rows
        progress(name)


@dataclass(frozen=True)
class _Written:
    """An event's number, how many objects it has, and what is written of it.

    Its lines of ``submission.csv`` and its rows of ``tracks.parquet``; or the ``event``, where objects are no tracks.
    """

    number: int
    rows: int
    hits: str = ""
    tracks: pa.Table | None = None
    event: Event | None = None


def _start(
    model: str | Path | None, engine: str, threshold: float | None, passes: int | None
) -> Callable[[tuple[int, str, Callable[[], Event]]], _Written | str]:
    """Makes, once in a process, what is called for each event there: index, name and how to load it."""
    return partial(_work, Reconstructor(model, engine, threshold, passes))


def _work(finder: Reconstructor, item: tuple[int, str, Callable[[], Event]]) -> _Written | str:
    """What is to be written of an event, or a line that says why it cannot be reconstructed."""
    index, name, load = item
    try:
        event = load()
        _check(event, name, finder)
    except UserError as error:
        return one_line(error)
    try:
        predicted, number = finder(event), event_number(event, index)
    except UserError as error:
        return f"{name}: {one_line(error)}"
    rows = predicted.rows("object")
    if not finder.tracks:
        return _Written(number, rows, event=replace(predicted, scene={"id": torch.tensor([number])}))
    return _Written(number, rows, hit_lines(number, predicted), track_table(number, predicted))


def event_number(event: Event, index: int) -> int:
    """The number of the event in a source with this index: its own, or else the index."""
    return int(event.scene["id"][0]) if "id" in event.scene else index


def _check(event: Event, name: str, finder: Reconstructor) -> None:
    """Raise ``UserError`` for a missing column, an input that is no number, or a hit that is there twice."""
    for column in _INPUTS if finder.tracks and event.rows("point") else ():
        if column not in event.point:
            raise UserError(f"{name}: point.{column} is missing")
    for column in ("x", "y", "z") if finder.tracks else finder.task.columns["point"]:
        bad = torch.nonzero(~torch.isfinite(event.point.get(column, torch.zeros(0))))
        if len(bad):
            row = int(bad[0, 0])
            found = float(event.point[column][row])
            raise UserError(f"{name}: row {row + 1}, point.{column}: expected a finite number, found {found}")
    repeated = pd.Series(event.point.get("id", torch.zeros(0)).numpy()).duplicated().to_numpy()
    if repeated.any():
        row = int(repeated.argmax())
        value = int(event.point["id"][row])
        raise UserError(f"{name}: row {row + 1}, point.id: expected a value that no row before has, found {value}")
