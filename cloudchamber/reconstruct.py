"""From a directory of events to tracks on disk."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from cloudchamber import checkpoint
from cloudchamber.data import EventSource
from cloudchamber.data.store import atomic, one_line
from cloudchamber.errors import UserError
from cloudchamber.event import Event
from cloudchamber.metrics import Fraction
from cloudchamber.tasks import Task
from cloudchamber.tasks.edges import pair_rates
from cloudchamber.tasks.tracks import track_pairs

SUBMISSION, TRACKS = "submission.csv", "tracks.parquet"
_PARAMETERS = ("charge", "pt", "eta", "phi", "d0", "z0", "hits")
_TRUTH = ("object", "tx", "ty", "tz", "tpx", "tpy", "tpz", "weight")
_SCHEMA = pa.schema(
    [("event_id", pa.int64()), ("track_id", pa.int64())]
    + [(name, pa.int64() if name == "hits" else pa.float32()) for name in _PARAMETERS]
)


def shipped_model() -> Path:
    """The checkpoint of the track finder that comes with the package."""
    return Path(str(files("cloudchamber") / "models" / "tracks.safetensors"))


class Reconstructor:
    """Finds the tracks of one event after the other with a trained task; truth in an event is not looked at.

    ``model``: a checkpoint, or None for the one that ships. Raises ``UserError`` for a file that is none.
    """

    def __init__(self, model: str | Path | None = None) -> None:
        self.task: Task
        self.task, self.run = checkpoint.load(model or shipped_model())

    def __call__(self, event: Event) -> Event:
        """Tracks of an event: ``point.id``, ``point.object``, ``object.charge|pt|eta|phi|d0|z0|hits``."""
        point = {name: column for name, column in event.point.items() if name not in _TRUTH}
        count = {name: event.count[name] for name in ("point", "scene")}
        with torch.inference_mode():
            return self.task.decode(self.task.prepare(Event(point=point, scene=event.scene, count=count)))

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


@dataclass
class Outcome:
    """What became of a batch of events: how many were reconstructed, and one line per event that could not be."""

    events: int = 0
    tracks: int = 0
    failed: list[str] = field(default_factory=list)


def reconstruct(
    source: EventSource,
    directory: str | Path,
    model: str | Path | None = None,
    progress: Callable[[str], None] = lambda name: None,
) -> Outcome:
    """Write the tracks of all events to ``directory``, both files atomically, and tell what failed.

    ``submission.csv``: ``event_id, hit_id, track_id`` of every hit, in the format of the TrackML challenge, 0 for no
    track. ``tracks.parquet``: a row per track, ``event_id, track_id``, charge, pt (GeV), eta, phi (rad), d0, z0 (mm),
    hits. A malformed event is named in the outcome; the others are written all the same. ``progress`` is called with
    the name of each event when it is done.
    """
    finder, outcome = Reconstructor(model), Outcome()
    directory = Path(directory)
    with ExitStack() as stack:
        submission = stack.enter_context(atomic(directory / SUBMISSION))
        tracks = stack.enter_context(atomic(directory / TRACKS))
        rows = stack.enter_context(submission.open("w", newline=""))
        rows.write("event_id,hit_id,track_id\n")
        table = stack.enter_context(pq.ParquetWriter(tracks, _SCHEMA, compression="zstd"))
        for number, (name, event) in enumerate(_good(source, outcome)):
            predicted = finder(event)
            event_id = int(event.scene["id"][0]) if "id" in event.scene else number
            _write_hits(rows, event_id, predicted)
            table.write_table(_track_table(event_id, predicted))
            outcome.events += 1
            outcome.tracks += predicted.rows("object")
            progress(name)
    return outcome


def _good(source: EventSource, outcome: Outcome) -> Iterator[tuple[str, Event]]:
    """The events that can be read; the others are noted."""
    for index, name in enumerate(source.names):
        try:
            event = source[index]
            for column in ("id", "x", "y", "z", "volume", "layer"):
                if column not in event.point and event.rows("point"):
                    raise UserError(f"{name}: point.{column} is missing")
        except UserError as error:
            outcome.failed.append(one_line(error))
            continue
        yield name, event


def _write_hits(file: Any, event_id: int, predicted: Event) -> None:
    hits = {"event_id": event_id, "hit_id": _column(predicted, "id"), "track_id": _column(predicted, "object") + 1}
    pd.DataFrame(hits).to_csv(file, header=False, index=False, quoting=csv.QUOTE_NONE)


def _column(event: Event, name: str) -> Any:
    return event.point[name].numpy() if name in event.point else np.zeros(0, np.int64)


def _track_table(event_id: int, predicted: Event) -> pa.Table:
    tracks = predicted.rows("object")
    columns = {"event_id": np.full(tracks, event_id), "track_id": np.arange(1, tracks + 1)}
    columns |= {name: predicted.object[name].numpy() for name in _PARAMETERS}
    return pa.table({name: columns[name] for name in _SCHEMA.names}, schema=_SCHEMA)


def read_predictions(directory: str | Path) -> dict[int, Event]:
    """The predictions that ``reconstruct`` wrote, or another finder's ``submission.csv``, by event number.

    Track parameters are there when ``tracks.parquet`` is. Raises ``UserError`` naming file and column.
    """
    directory = Path(directory)
    path = directory / SUBMISSION
    if not path.is_file():
        raise UserError(f"{directory}: no {SUBMISSION}: expected a directory that 'reconstruct' wrote")
    try:
        hits = pd.read_csv(path, dtype="int64")
        if list(hits.columns) != ["event_id", "hit_id", "track_id"]:
            raise UserError(f"{path}: expected the columns event_id, hit_id, track_id, found {', '.join(hits.columns)}")
        tracks = pd.read_parquet(directory / TRACKS) if (directory / TRACKS).is_file() else None
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: {one_line(error)}") from None
    by_event = dict(tuple(tracks.groupby("event_id"))) if tracks is not None else {}
    parts: Any = hits.groupby("event_id")
    return {int(number): _event(int(number), part, by_event.get(number)) for number, part in parts}


def _event(number: int, hits: pd.DataFrame, tracks: pd.DataFrame | None) -> Event:
    track = hits["track_id"].to_numpy()
    if tracks is None:
        labels, row = np.unique(track, return_inverse=True)
        row = row - (1 if len(labels) and labels[0] == 0 else 0)
        objects: dict[str, torch.Tensor] = {"hits": torch.from_numpy(np.bincount(row[row >= 0]))}
    else:
        row = track - 1
        objects = {name: torch.from_numpy(tracks[name].to_numpy().copy()) for name in _PARAMETERS}
    point = {"id": torch.from_numpy(hits["hit_id"].to_numpy().copy()), "object": torch.from_numpy(row.copy())}
    return Event(point=point, object=objects, scene={"id": torch.tensor([number])})
