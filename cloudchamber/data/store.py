"""Events on disk: Parquet, one row per event, a level a list of structs, so that other tools read it without us."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from cloudchamber.data.arrow import columns_of, to_event, to_table
from cloudchamber.data.ranges import Ranges
from cloudchamber.errors import UserError
from cloudchamber.event import LEVELS, Event, batch

FORMAT = "cloudchamber-event"
FORMAT_VERSION = 1

#: Events are gathered into one Parquet row group until it has this many rows of levels: a tracking event is a group of
#: its own, jets share one.
GROUP_ROWS = 2**16

#: Dictionaries make files of measured numbers larger and three times slower to write.
OPTIONS = {"compression": "zstd", "use_dictionary": False, "write_page_checksum": True}


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to; it becomes ``path`` on success and is removed on failure.

    The temporary file keeps the suffix (hidden name), and missing parent directories are made. Raises ``UserError``
    naming ``path`` when it cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}-{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.filename not in (None, str(temporary), *map(str, path.parents)):
            raise
        raise UserError(f"{path}: cannot write: {error.strerror or one_line(error)}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def one_line(error: Exception) -> str:
    """The message of another library's exception on one line of at most 200 characters."""
    text = "".join(c if c.isprintable() else " " for c in str(error))
    return " ".join(text.split())[:200] or type(error).__name__


def write(path: str | Path, events: Event | Iterable[Event], about: Mapping[str, Any] | None = None) -> None:
    """Write events to one Parquet file, one row each, atomically; a batch gives its events.

    Columns keep their dtype; shape ``(rows, ...)``. Every event with rows in a level must have the same columns there.
    ``about`` is kept in the file as JSON, see ``EventFile.about``. Raises ``ValueError`` when columns differ,
    ``UserError`` when the file cannot be written.
    """
    metadata = {FORMAT: {**(about or {}), "format": FORMAT_VERSION, "version": _version()}}
    with atomic(path) as temporary:
        writer = None
        try:
            for group in _groups([events] if isinstance(events, Event) else events):
                table = to_table(group, metadata, None if writer is None else writer.schema)
                if writer is None:
                    writer = pq.ParquetWriter(temporary, table.schema, **OPTIONS)
                writer.write_table(table)
        finally:
            if writer is not None:
                writer.close()


def _pieces(event: Event) -> Iterator[Event]:
    """A batch in parts of about ``GROUP_ROWS`` rows; an event as it is."""
    rows = sum((event.count[level].cpu().numpy() for level in LEVELS), np.zeros(len(event), np.int64))
    group = (np.cumsum(rows) - rows) // GROUP_ROWS
    edges = [0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), len(event)]
    whole = len(edges) == 2
    return (event if whole else event.take(torch.arange(first, last)) for first, last in pairwise(edges))


def _groups(events: Iterable[Event]) -> Iterator[list[Event]]:
    """Lists of events of about ``GROUP_ROWS`` rows; at least one list, perhaps empty, so that a file always has one."""
    group: list[Event] = []
    rows, first = 0, True
    for event in (piece for whole in events for piece in _pieces(whole)):
        group.append(event)
        rows += sum(event.rows(level) for level in LEVELS)
        if rows >= GROUP_ROWS:
            yield group
            group, rows, first = [], 0, False
    if group or first:
        yield group


def _version() -> str:
    try:
        return version("cloudchamber")
    except PackageNotFoundError:
        return "unknown"


class EventFile(Ranges):
    """The events of one Parquet file, read one row group at a time; safe to share between processes and threads.

    Raises ``UserError`` naming the file when it is missing, damaged, or was not written by ``write``.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with _reading(self.path):
            with pq.ParquetFile(self.path) as file:
                self._metadata, schema = file.metadata, file.schema_arrow
            #: What ``write`` was told about the events, and by which version.
            self.about: dict[str, Any] = self._check((schema.metadata or {}).get(FORMAT.encode()))
            self.columns = columns_of(schema)
            rows = [self._metadata.row_group(i).num_rows for i in range(self._metadata.num_row_groups)]
        self._starts = np.cumsum([0, *rows])
        self._cached: tuple[int, Any] | None = None

    def _check(self, written: bytes | None) -> dict[str, Any]:
        if written is None:
            raise UserError(f"{self.path}: a Parquet file, but not of events: expected one written by cloudchamber")
        about: dict[str, Any] = json.loads(written)
        if about["format"] > FORMAT_VERSION:
            raise UserError(f"{self.path}: written by cloudchamber {about['version']}, newer than this one; upgrade")
        return about

    def __len__(self) -> int:
        return int(self._starts[-1])

    def range(self, first: int, last: int) -> Event:
        """Events ``first`` to ``last - 1`` as one batch, read much faster than one by one; ``0 <= first <= last``."""
        self.check(first, last)
        final = len(self._starts) - 1
        groups = range(min(int(np.searchsorted(self._starts, first, side="right")), final) - 1, final)
        parts: list[Event] = []
        with _reading(self.path):
            for group in groups:
                start, end = int(self._starts[group]), int(self._starts[group + 1])
                begin = max(first, start)
                if parts and begin >= last:
                    break
                table = self._group(group).slice(begin - start, min(last, end) - begin)
                parts.append(to_event(self.path, begin, table))
        return parts[0] if len(parts) == 1 else batch(parts)

    def _group(self, group: int) -> Any:
        cached = self._cached
        if cached is None or cached[0] != group:
            with pq.ParquetFile(self.path, metadata=self._metadata, page_checksum_verification=True) as file:
                cached = group, file.read_row_group(group).combine_chunks()
            self._cached = cached
        return cached[1]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (OSError, KeyError, ValueError, TypeError, pa.ArrowException) as error:
        raise UserError(f"{path}: not a readable Parquet file of events: {one_line(error)}") from error


def read(path: str | Path, row: int = 0) -> Event:
    """One event of a Parquet file; the file's footer and last row group are kept in memory for the next call.

    Raises ``UserError`` naming the file when it cannot be read.
    """
    path = Path(path)
    try:
        state = path.stat()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    return _open(path, state.st_mtime_ns, state.st_size)[row]


@lru_cache(maxsize=4)
def _open(path: Path, changed: int, size: int) -> EventFile:
    return EventFile(path)
