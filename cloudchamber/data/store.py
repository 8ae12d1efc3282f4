"""Events on disk: Parquet, one row per event, a level a list of structs, so that other tools read it without us."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from cloudchamber.errors import UserError
from cloudchamber.event import LEVELS, REFERENCES, Event, unbatch

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


def write(path: str | Path, events: Event | Iterable[Event]) -> None:
    """Write events to one Parquet file, one row each, atomically; a batch gives its events.

    Columns keep their dtype; shape ``(rows, ...)``. Every event with rows in a level must have the same columns there.
    Raises ``ValueError`` when they differ, ``UserError`` when the file cannot be written.
    """
    single = (part for event in ([events] if isinstance(events, Event) else events) for part in _split(event))
    with atomic(path) as temporary:
        writer = None
        try:
            for group in _groups(single):
                table = _table(group, None if writer is None else writer.schema)
                if writer is None:
                    writer = pq.ParquetWriter(temporary, table.schema, **OPTIONS)
                writer.write_table(table)
        finally:
            if writer is not None:
                writer.close()


def _split(event: Event) -> list[Event]:
    return [event] if len(event) == 1 else unbatch(event)


def _groups(events: Iterable[Event]) -> Iterator[list[Event]]:
    """Lists of events of about ``GROUP_ROWS`` rows; at least one list, perhaps empty, so that a file always has one."""
    group: list[Event] = []
    rows, first = 0, True
    for event in events:
        group.append(event)
        rows += sum(event.rows(level) for level in LEVELS)
        if rows >= GROUP_ROWS:
            yield group
            group, rows, first = [], 0, False
    if group or first:
        yield group


def _table(events: list[Event], schema: Any = None) -> Any:
    """The Arrow table of some events; ``schema`` is that of the groups before, which must agree."""
    fields, arrays = [], []
    for level in LEVELS:
        known = schema is not None and level in schema.names
        names = dict.fromkeys(name for event in events for name in getattr(event, level))
        if known and not names:
            names = dict.fromkeys(field.name for field in _fields(schema.field(level).type))
        rows = [event.rows(level) for event in events]
        if not (known or names or any(rows) or level == "point"):
            continue
        offsets = pa.array(np.concatenate([[0], np.cumsum(rows)]).astype(np.int32))
        if known and not sum(rows):
            array = pa.ListArray.from_arrays(offsets, pa.array([], schema.field(level).type.value_type))
            array = array.cast(schema.field(level).type)
        else:
            array = _list(level, offsets, [_column(events, level, name) for name in names], list(names), sum(rows))
        fields.append(pa.field(level, array.type, nullable=False))
        arrays.append(array)
    found = pa.schema(fields, metadata={FORMAT: json.dumps({"format": FORMAT_VERSION, "version": _version()})})
    if schema is not None and not found.equals(schema):
        raise ValueError(f"write: events differ in columns: {_describe(found)}; before: {_describe(schema)}")
    return pa.table(arrays, schema=found)


def _describe(schema: Any) -> str:
    return ", ".join(f"{level.name}.{f.name} {f.type}" for level in schema for f in _fields(level.type))


def _fields(type_: Any) -> list[Any]:
    return list(type_.value_type) if pa.types.is_struct(type_.value_type) else []


def _list(level: str, offsets: Any, columns: list[Any], names: list[str], rows: int) -> Any:
    """A list column from columns laid end to end; rows without columns are kept as nulls."""
    if not names:
        return pa.ListArray.from_arrays(offsets, pa.nulls(rows))
    fields = [pa.field(name, column.type, nullable=False) for name, column in zip(names, columns, strict=True)]
    item = pa.field("element", pa.struct(fields), nullable=False)
    return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(columns, fields=fields), type=pa.list_(item))


def _column(events: list[Event], level: str, name: str) -> Any:
    """One column of several events end to end, shape ``(rows, ...)``, as an Arrow array."""
    pieces = []
    for event in events:
        columns = getattr(event, level)
        if name in columns:
            pieces.append(columns[name].detach().cpu())
        elif event.rows(level):
            raise ValueError(f"write: an event has no column {level}.{name}, but another has")
    if len({(piece.dtype, piece.shape[1:]) for piece in pieces}) > 1:
        raise ValueError(
            f"write: events differ in the type of {level}.{name}: {sorted({str(p.dtype) for p in pieces})}"
        )
    joined = torch.cat(pieces).numpy()
    array = pa.array(joined.reshape(-1))
    for size in reversed(joined.shape[1:]):
        item = pa.field("element", array.type, nullable=False)
        array = pa.FixedSizeListArray.from_arrays(array, type=pa.list_(item, size))
    return array


def _version() -> str:
    try:
        return version("cloudchamber")
    except PackageNotFoundError:
        return "unknown"


class EventFile(Sequence[Event]):
    """The events of one Parquet file, read one row group at a time; safe to share between processes and threads.

    Raises ``UserError`` naming the file when it is missing, damaged, or was not written by ``write``.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with _reading(self.path):
            with pq.ParquetFile(self.path) as file:
                self._metadata, schema = file.metadata, file.schema_arrow
            self._check((schema.metadata or {}).get(FORMAT.encode()))
            self._levels = [name for name in schema.names if name in LEVELS]
            rows = [self._metadata.row_group(i).num_rows for i in range(self._metadata.num_row_groups)]
        self._starts = np.cumsum([0, *rows])
        self._cached: tuple[int, Any] | None = None

    def _check(self, written: bytes | None) -> None:
        if written is None:
            raise UserError(f"{self.path}: a Parquet file, but not of events: expected one written by cloudchamber")
        about = json.loads(written)
        if about["format"] > FORMAT_VERSION:
            raise UserError(f"{self.path}: written by cloudchamber {about['version']}, newer than this one; upgrade")

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> list[Event]: ...
    def __getitem__(self, index: int | slice) -> Event | list[Event]:
        """One event, or the events of a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = index + len(self) if index < 0 else index
        if not 0 <= row < len(self):
            raise IndexError(f"{self.path}: event {index} of {len(self)}")
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        with _reading(self.path):
            table = self._group(group)
            levels = {level: table[level][row - int(self._starts[group])].values for level in self._levels}
            return _event(self.path, row, levels)

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


def _event(path: Path, index: int, levels: dict[str, Any]) -> Event:
    """An event from the Arrow arrays of its levels: structs, or nulls when the level has no columns."""
    columns = {
        level: {field.name: _tensor(rows.field(field.name)) for field in rows.type}
        if pa.types.is_struct(rows.type)
        else {}
        for level, rows in levels.items()
    }
    count = {level: torch.tensor([len(levels[level]) if level in levels else 0]) for level in LEVELS}
    for (level, name), target in REFERENCES.items():
        column = columns.get(level, {}).get(name)
        if column is not None and len(column) and not -1 <= int(column.min()) <= int(column.max()) < count[target]:
            raise UserError(f"{path}: row {index + 1}, column {level}.{name}: expected -1 or a row of {target}")
    return Event(**columns, count=count)


def _tensor(array: Any) -> Tensor:
    shape = [len(array)]
    if array.null_count:
        raise ValueError("a value is missing")
    while pa.types.is_fixed_size_list(array.type):
        shape.append(array.type.list_size)
        array = array.flatten()
    return torch.from_numpy(np.array(array.to_numpy(zero_copy_only=False))).reshape(shape)


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
