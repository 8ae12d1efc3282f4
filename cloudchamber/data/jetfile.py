"""A file of jets: what every format must offer, and how files are opened and faults told."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import numpy as np

from cloudchamber.data.ranges import Ranges
from cloudchamber.data.store import one_line
from cloudchamber.data.transport import Array, Table
from cloudchamber.errors import UserError
from cloudchamber.event import Event

INSTALL = "{suffix} files need {package}: pip install 'cloudchamber[jets]' ({error})"


class JetFile(Ranges):
    """A file of jets, its name ending in one of ``suffixes``, and told from other such files by its ``mark``.

    ``labels`` are the names behind ``scene.label``, none where jets have no label.
    """

    suffixes: tuple[str, ...]
    mark: str
    labels: tuple[str, ...]

    @classmethod
    @abstractmethod
    def open(cls, path: Path) -> Self | None:
        """The file, or none if it is of another format. Raises ``UserError`` when it is damaged or lacks a column."""

    @abstractmethod
    def range(self, first: int, last: int) -> Event:
        """Jets ``first`` to ``last - 1`` as one batch, in the columns of ``jetsource.Jets``."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever a library says of a file that it cannot read becomes a ``UserError`` of one line that names it."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except Exception as error:  # of many kinds: OSError, KeyError, zlib.error, struct.error, ...
        raise UserError(f"{path}: cannot read: {one_line(error)}") from error


def opened_hdf5(path: Path) -> Any:
    """An open ``h5py.File``, Blosc (with which PyTables compresses) known where hdf5plugin is installed."""
    try:
        import h5py
    except ImportError as error:
        raise UserError(INSTALL.format(suffix="HDF5", package="h5py", error=error)) from None
    with suppress(ImportError):
        import hdf5plugin  # noqa: F401
    with reading(path):
        return h5py.File(path, "r")


def opened_root(path: Path) -> Any:
    """An open uproot file."""
    try:
        import uproot
    except ImportError as error:
        raise UserError(INSTALL.format(suffix="ROOT", package="uproot", error=error)) from None
    with reading(path):
        return uproot.open(path)


def trees(file: Any) -> dict[str, set[str]]:
    """The columns of each tree of an uproot file."""
    names = file.keys(cycle=False, filter_classname="TTree")
    return {name: set(file[name].keys()) for name in names}


def flat(column: Any) -> Array:
    """The values of an awkward array end to end."""
    import awkward

    values: Array = awkward.to_numpy(awkward.flatten(column, axis=None))
    return values


def require_finite(path: Path, rows: Array, table: Table, names: Mapping[str, str] | None = None) -> None:
    """``require`` of every column of a table that its values are finite; ``names`` are those of the file."""
    for name, column in table.items():
        require(path, np.isfinite(column), rows, (names or {}).get(name, name), column, "a finite number")


def require_columns(path: Path, where: str, columns: set[str], wanted: list[str]) -> None:
    """Raise ``UserError`` for the first wanted column that ``where`` in the file lacks."""
    if missing := [name for name in wanted if name not in columns]:
        raise UserError(f"{path}: {where}: expected a column {missing[0]}")


def require(path: Path, good: Array, rows: Array, column: str, found: Array, expected: str) -> None:
    """Raise ``UserError`` for the first value that is not good; ``rows`` are the jets of the values, from 0.

    ``good``, ``rows`` and ``found`` have shape ``(values,)``; the message counts jets from 1.
    """
    if not good.all():
        place = int(np.argmin(good))
        raise UserError(f"{path}: row {rows[place] + 1}, column {column}: expected {expected}, found {found[place]}")
