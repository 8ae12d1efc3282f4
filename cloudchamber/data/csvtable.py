"""Numeric CSV tables, read fast, and checked so that an error names file, row, column and what was expected."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from cloudchamber.data.store import atomic, one_line
from cloudchamber.errors import UserError

Kinds = Mapping[str, type[np.generic]]


@dataclass(frozen=True)
class Table:
    """The columns of a file by name, each of shape ``(rows,)``. Rows are numbered from 1 in messages."""

    path: Path
    columns: dict[str, NDArray[Any]]

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name]

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def require(self, name: str, good: NDArray[np.bool_], expected: str) -> None:
        """Raise ``UserError`` for the first row of a column that is not good, shape ``(rows,)``."""
        if not good.all():
            row = int(np.argmin(good))
            raise UserError(f"{self.path}: row {row + 1}, column {name}: expected {expected}, found {self[name][row]}")


@dataclass(frozen=True)
class Index:
    """Finds the row of an id in a column of unique ids; a repeated id raises ``UserError``."""

    table: Table
    name: str
    order: NDArray[np.int64]
    values: NDArray[np.int64]

    @classmethod
    def of(cls, table: Table, name: str) -> Index:
        ids = table[name]
        order = np.argsort(ids, kind="stable")
        values = ids[order]
        unique = np.ones(len(ids), dtype=bool)
        unique[order[1:]] = values[1:] != values[:-1]
        table.require(name, unique, "a value that no row before has")
        return cls(table, name, order, values)

    def rows(self, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
        """The row of each wanted id, -1 where there is none; shape as ``wanted``."""
        if not len(self.values):
            return np.full(len(wanted), -1)
        place = np.minimum(np.searchsorted(self.values, wanted), len(self.values) - 1)
        return np.where(self.values[place] == wanted, self.order[place], -1)


def read(path: Path, required: Kinds, optional: Kinds | None = None) -> Table:
    """Read the named columns of a CSV table with one header line, plain or gzip.

    Values are converted straight to the given kind, so float32 values written with 9 digits come back unharmed. Columns
    that are not asked for are not read. Raises ``UserError`` when the file is missing, damaged or not a table, a column
    is missing or repeated, or a value is not a finite number of its kind.
    """
    data = _load(path)
    header, _, body = data.partition(b"\n")
    names = _names(path, header)
    kinds = {**required, **{name: kind for name, kind in (optional or {}).items() if name in names}}
    if missing := [name for name in required if name not in names]:
        raise UserError(f"{path}: header: expected a column {missing[0]}, found {one_line(Exception(','.join(names)))}")
    if repeated := [name for name in kinds if names.count(name) > 1]:
        raise UserError(f"{path}: header: expected each column once, found {repeated[0]} twice")
    if not body.strip():
        return Table(path, {name: np.empty(0, dtype=kind) for name, kind in kinds.items()})
    options = {
        "column_types": {name: pa.from_numpy_dtype(kind) for name, kind in kinds.items()},
        "include_columns": list(kinds),
        "null_values": [],
    }
    try:
        unique = [name if name in kinds else f"{name} {i}" for i, name in enumerate(names)]
        arrow = pa.csv.read_csv(
            pa.BufferReader(body),
            pa.csv.ReadOptions(column_names=unique, block_size=1 << 22),
            convert_options=pa.csv.ConvertOptions(**options),
        )
    except (pa.ArrowException, ValueError) as error:
        raise UserError(f"{path}: {_fault(body, names, kinds) or one_line(error)}") from error
    table = Table(path, {name: arrow[name].to_numpy() for name in kinds})
    for name, kind in kinds.items():
        if issubclass(kind, np.floating):
            table.require(name, np.isfinite(table[name]), f"a finite {kind.__name__}")
    return table


def write(path: Path, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write a CSV table atomically, gzipped if its name ends in ``.gz``; reading gives exactly the same numbers back.

    All columns have shape ``(rows,)``. Raises ``UserError`` when the file cannot be written.
    """
    text = io.BytesIO()
    text.write((",".join(columns) + "\n").encode())
    table = pa.table({name: np.ascontiguousarray(column) for name, column in columns.items()})
    pa.csv.write_csv(table, text, pa.csv.WriteOptions(include_header=False))
    data = text.getvalue()
    with atomic(path) as temporary:
        temporary.write_bytes(gzip.compress(data, compresslevel=4, mtime=0) if path.suffix == ".gz" else data)


def _load(path: Path) -> bytes:
    """The bytes of a file, unzipped whatever its name says."""
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: damaged gzip file, perhaps cut short: {one_line(error)}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror}") from error
    if not data.strip():
        raise UserError(f"{path}: empty file: expected a header line with column names")
    return data


def _names(path: Path, header: bytes) -> list[str]:
    try:
        text = header.decode("utf-8-sig").strip()
        names = [name.strip() for name in next(csv.reader([text]), [])]
    except (UnicodeDecodeError, csv.Error):
        names = []
    if not names or not all(name.isprintable() for name in names):
        raise UserError(f"{path}: not a CSV table: expected a header line with column names")
    return names


def _fault(body: bytes, names: list[str], kinds: Kinds) -> str:
    """The first fault of a table that the fast reader refused, in words; empty if there is none to be found."""
    rows = csv.reader(io.StringIO(body.decode("utf-8", errors="replace"), newline=""))
    number = 0
    try:
        for row in rows:
            if not row:
                continue
            number += 1
            if len(row) != len(names):
                return f"row {number}: expected {len(names)} columns, found {len(row)}"
            for name, value in zip(names, row, strict=True):
                if name in kinds and not _valid(value, kinds[name]):
                    found = one_line(Exception(repr(value[:40])))
                    return f"row {number}, column {name}: expected {_expected(kinds[name])}, found {found}"
    except csv.Error as error:
        return f"row {number + 1}: not a row of a CSV table: {one_line(error)}"
    return ""


def _valid(value: str, kind: type[np.generic]) -> bool:
    try:
        if issubclass(kind, np.integer):
            return "_" not in value and np.iinfo(kind).min <= int(value) <= np.iinfo(kind).max
        return "_" not in value and bool(np.isfinite(float(value)))
    except ValueError:
        return False


def _expected(kind: type[np.generic]) -> str:
    return f"an integer ({kind.__name__})" if issubclass(kind, np.integer) else f"a finite number ({kind.__name__})"
