"""Predictions on disk: tracks in the format of the TrackML challenge with their fits, other objects as events."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from cloudchamber.data import store
from cloudchamber.data.store import atomic, one_line
from cloudchamber.errors import UserError
from cloudchamber.event import Event
from cloudchamber.outcome import growing_table

SUBMISSION, TRACKS, OBJECTS = "submission.csv", "tracks.parquet", "objects.parquet"
_PARAMETERS = ("charge", "pt", "eta", "phi", "d0", "z0", "hits")
_EXTRA = ("sigma_pt", "sigma_eta", "sigma_phi", "sigma_d0", "sigma_z0", "chi2", "ndf", "quality")
#: So many events share a row group of ``tracks.parquet``.
_GROUP = 50
_SCHEMA = pa.schema(
    [("event_id", pa.int64()), ("track_id", pa.int64())]
    + [(name, pa.int64() if name == "hits" else pa.float32()) for name in (*_PARAMETERS, *_EXTRA)]
)


def hit_lines(event_id: int, predicted: Event) -> str:
    """The lines of an event in ``submission.csv``."""
    hits = {"event_id": event_id, "hit_id": _column(predicted, "id"), "track_id": _column(predicted, "object") + 1}
    lines: str = pd.DataFrame(hits).to_csv(header=False, index=False, quoting=csv.QUOTE_NONE, lineterminator="\n")
    return lines


def _column(event: Event, name: str) -> Any:
    return event.point[name].numpy() if name in event.point else np.zeros(0, np.int64)


def track_table(event_id: int, predicted: Event) -> pa.Table:
    """The rows of an event in ``tracks.parquet``."""
    tracks = predicted.rows("object")
    columns = {"event_id": np.full(tracks, event_id), "track_id": np.arange(1, tracks + 1)}
    unknown = torch.full((tracks,), torch.nan)
    columns |= {name: predicted.object.get(name, unknown).numpy() for name in (*_PARAMETERS, *_EXTRA)}
    return pa.table({name: columns[name] for name in _SCHEMA.names}, schema=_SCHEMA)


def write_tracks(directory: str | Path, events: Iterable[tuple[str, pa.Table]]) -> None:
    """Write the ``hit_lines`` and the ``track_table`` of event after event; both files appear when all are written."""
    directory = Path(directory)
    with (
        atomic(directory / SUBMISSION) as submission,
        growing_table(directory / TRACKS, _SCHEMA, _GROUP) as table,
        submission.open("w", newline="") as lines,
    ):
        lines.write("event_id,hit_id,track_id\n")
        for hits, tracks in events:
            lines.write(hits)
            table(tracks)


def write_objects(directory: str | Path, events: Iterable[Event]) -> None:
    """Write objects that are no tracks to ``objects.parquet``, as events that come one after the other, atomically."""
    store.write(Path(directory) / OBJECTS, events)


def holds_objects(directory: str | Path) -> bool:
    """Whether a directory has predictions of objects that are no tracks."""
    return (Path(directory) / OBJECTS).is_file()


def check_kind(directory: str | Path, tracks: bool) -> None:
    """Raise ``UserError`` if a directory has predictions of the other kind: objects where ``tracks`` are to come."""
    path = Path(directory) / (OBJECTS if tracks else SUBMISSION)
    if path.is_file():
        there, new = ("other objects", "tracks") if tracks else ("tracks", "other objects")
        raise UserError(f"{path}: holds {there}, the model makes {new}: choose another directory")


def read_predictions(directory: str | Path) -> dict[int, Event]:
    """The predictions that ``reconstruct`` wrote, or another finder's ``submission.csv``, by event number.

    Track parameters are there when ``tracks.parquet`` is. Raises ``UserError`` naming file and column.
    """
    directory = Path(directory)
    path = directory / SUBMISSION
    if holds_objects(directory):
        if path.is_file():
            raise UserError(f"{directory}: holds {SUBMISSION} and {OBJECTS}: expected one of them")
        return _read_objects(directory / OBJECTS)
    if not path.is_file():
        raise UserError(f"{directory}: no {SUBMISSION}: expected a directory that 'reconstruct' wrote")
    try:
        hits = pd.read_csv(path, dtype="int64")
        if not isinstance(hits.index, pd.RangeIndex):
            raise UserError(f"{path}: expected as many values in a row as there are columns")
        if list(hits.columns) != ["event_id", "hit_id", "track_id"]:
            raise UserError(f"{path}: expected the columns event_id, hit_id, track_id, found {', '.join(hits.columns)}")
    except (ValueError, OverflowError, OSError) as error:
        raise UserError(f"{path}: {one_line(error)}") from None
    _require(path, hits, "track_id", hits["track_id"] >= 0, "0 for no track, or a number above")
    _require(path, hits, "hit_id", ~hits.duplicated(["event_id", "hit_id"]), "each hit of an event once")
    by_event = _read_tracks(directory / TRACKS) if (directory / TRACKS).is_file() else None
    if by_event is not None:
        known = hits["event_id"].map({number: len(part) for number, part in by_event.items()}).fillna(0)
        _require(path, hits, "track_id", hits["track_id"] <= known, f"a track of {TRACKS}")
    parts: Any = hits.groupby("event_id")
    none = pd.DataFrame({name: np.zeros(0, np.float32) for name in _PARAMETERS})
    return {
        int(number): _event(int(number), part, None if by_event is None else by_event.get(number, none))
        for number, part in parts
    }


def _require(path: Path, table: pd.DataFrame, column: str, good: Any, expected: str) -> None:
    """Raise ``UserError`` for the first row (from 1, the header not counted) that is not good."""
    if not good.all():
        row = int(np.argmin(good))
        found = table[column].iloc[row]
        raise UserError(f"{path}: row {row + 1}, column {column}: expected {expected}, found {found}")


def _read_tracks(path: Path) -> dict[Any, pd.DataFrame]:
    """The rows of ``tracks.parquet`` by event."""
    try:
        tracks = pd.read_parquet(path)
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: {one_line(error)}") from None
    for name in _SCHEMA.names:
        if name not in tracks and name not in _EXTRA:
            raise UserError(f"{path}: expected a column {name}, found {', '.join(map(str, tracks.columns))}")
    number = tracks.groupby("event_id").cumcount() + 1
    _require(path, tracks, "track_id", tracks["track_id"] == number, "1, 2, ... in every event")
    return dict(tuple(tracks.groupby("event_id")))


def _event(number: int, hits: pd.DataFrame, tracks: pd.DataFrame | None) -> Event:
    track = hits["track_id"].to_numpy()
    if tracks is None:
        labels, row = np.unique(track, return_inverse=True)
        row = row - (1 if len(labels) and labels[0] == 0 else 0)
        objects: dict[str, torch.Tensor] = {"hits": torch.from_numpy(np.bincount(row[row >= 0]))}
    else:
        row = track - 1
        names = [name for name in (*_PARAMETERS, *_EXTRA) if name in tracks]
        objects = {name: torch.from_numpy(tracks[name].to_numpy().copy()) for name in names}
    point = {"id": torch.from_numpy(hits["hit_id"].to_numpy().copy()), "object": torch.from_numpy(row.copy())}
    return Event(point=point, object=objects, scene={"id": torch.tensor([number])})


def _read_objects(path: Path) -> dict[int, Event]:
    found = {}
    for event in store.EventFile(path):
        if "id" not in event.scene or int(event.scene["id"][0]) in found:
            raise UserError(f"{path}: expected events with a scene.id each, all different")
        found[int(event.scene["id"][0])] = event
    return found
