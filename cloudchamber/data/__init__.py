"""Events from files: ``open_events`` reads every format of ``DATASETS``, ``convert`` writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import overload

from cloudchamber.data import calochallenge, store, trackml
from cloudchamber.errors import UserError
from cloudchamber.event import Event

Entry = tuple[str, Callable[[], Event]]


@dataclass(frozen=True)
class Dataset:
    """A format of events on disk: how to find the events of a path, by name, and how to write one.

    ``find`` opens as little as it can and gives nothing for a path that is not of its format.
    """

    find: Callable[[Path], list[Entry]]
    write: Callable[[Path, str, Event], Path]


def _find_parquet(path: Path) -> list[Entry]:
    if path.is_dir():
        files = sorted(file for file in path.glob("*.parquet") if not file.name.startswith("."))
    else:
        files = [path] if path.suffix == ".parquet" else []
    return [entry for file in files for entry in _rows(file)]


def _rows(file: Path) -> list[Entry]:
    try:
        rows = len(store.EventFile(file))
    except UserError:
        return [(file.stem, partial(store.read, file))]  # raises the error when this event is asked for
    if rows == 1:
        return [(file.stem, partial(store.read, file))]
    return [(f"{file.stem}-{row:06d}", partial(store.read, file, row)) for row in range(rows)]


def _find_trackml(path: Path) -> list[Entry]:
    if path.is_dir():
        return [(name, partial(trackml.read, path, name)) for name in trackml.names(path)]
    match = trackml.FILE.fullmatch(path.name)
    return [(match[1], partial(trackml.read, path.parent, match[1]))] if match else []


def _write_parquet(directory: Path, name: str, event: Event) -> Path:
    path = directory / f"{name}.parquet"
    store.write(path, event)
    return path


def _write_trackml(directory: Path, name: str, event: Event) -> Path:
    return trackml.write(directory, event, name=name if trackml.FILE.fullmatch(f"{name}-hits.csv") else None)


def _find_calochallenge(path: Path) -> list[Entry]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [
        (f"{file.stem}-{row:06d}", partial(calochallenge.read, file, row))
        for file in files
        for row in range(calochallenge.rows(file))
    ]


def _write_calochallenge(directory: Path, name: str, event: Event) -> Path:
    raise UserError(f"{directory / name}: files of the CaloChallenge are read, not written")


DATASETS: dict[str, Dataset] = {
    "parquet": Dataset(_find_parquet, _write_parquet),
    "trackml": Dataset(_find_trackml, _write_trackml),
    "calochallenge": Dataset(_find_calochallenge, _write_calochallenge),
}


@dataclass(frozen=True)
class EventSource(Sequence[Event]):
    """The events of a path, read one by one as they are asked for; a slice is again a source.

    ``source[i]`` raises ``UserError`` when that event is malformed; the others stay readable.
    """

    path: Path
    entries: tuple[Entry, ...]

    @cached_property
    def names(self) -> list[str]:
        """The name of each event: the file's stem, and the row where a file holds several events."""
        return [name for name, _ in self.entries]

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Event]:
        return (load() for _, load in self.entries)

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> EventSource: ...
    def __getitem__(self, index: int | slice) -> Event | EventSource:
        if isinstance(index, slice):
            return EventSource(self.path, self.entries[index])
        return self.entries[index][1]()


def open_events(path: str | Path) -> EventSource:
    """The events of a directory (TrackML tables, or Parquet files) or of a single file, sorted by name.

    Raises ``UserError`` naming the path when it does not exist, holds no events, or holds events of several formats,
    since nothing says which of them are meant.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise UserError(f"{path}: no such file or directory")
        found = {name: entries for name, dataset in DATASETS.items() if (entries := dataset.find(path))}
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror}") from error
    if not found:
        raise UserError(f"{path}: no events: expected event*-hits.csv[.gz], *.parquet or showers in *.hdf5")
    if len(found) > 1:
        raise UserError(f"{path}: events of several formats ({', '.join(found)}): expected one format per directory")
    return EventSource(path, tuple(next(iter(found.values()))))


def convert(source: EventSource, directory: str | Path, format: str = "parquet") -> None:
    """Write every event of a source to a directory, each as a file (or set of files) of its own, atomically.

    Raises ``UserError`` when the format is unknown, the directory is that of the source, an event is malformed, two
    have the same number (TrackML names files by it), or a file cannot be written.
    """
    if format not in DATASETS:
        raise UserError(f"unknown format {format!r}: expected one of {', '.join(DATASETS)}")
    directory = Path(directory)
    if directory.resolve() == source.path.resolve():
        raise UserError(f"{directory}: expected another directory than that of the events to convert")
    written: dict[Path, str] = {}
    for name, load in source.entries:
        path = DATASETS[format].write(directory, name, load())
        if path in written:
            raise UserError(f"{path}: events {written[path]} and {name} have the same number and need the same file")
        written[path] = name
