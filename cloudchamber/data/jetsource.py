"""Jets on disk: one jet per event, many per file, read in ranges and never all at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch

from cloudchamber.data import store
from cloudchamber.data.jetclass import JetClass
from cloudchamber.data.jetfile import JetFile, require, require_finite
from cloudchamber.data.jetnet import JetNet
from cloudchamber.data.nanoaod import NanoAOD
from cloudchamber.data.ranges import Ranges
from cloudchamber.data.toptagging import TopTagging
from cloudchamber.errors import UserError
from cloudchamber.event import Event, batch

#: So many jets, or a few more, are written to one file, and so many are read at a time where nobody says.
FILE_JETS, RANGE_JETS = 20_000, 2_000
NAME = "jets-{:06d}.parquet"
COLUMNS = {"point": ("px", "py", "pz", "energy"), "scene": ("id", "pt", "eta", "phi", "mass")}


class ParquetJets(JetFile):
    """The jets of a Parquet file that ``write_jets`` wrote."""

    suffixes = (".parquet",)
    mark = "columns point.px, ..., scene.pt, ..."

    @classmethod
    def open(cls, path: Path) -> Self | None:
        """See ``JetFile``."""
        return cls(path)

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, store.EventFile(path)
        self.labels: tuple[str, ...] = tuple(self.file.about.get("labels", ()))
        for level, names in COLUMNS.items():
            missing = [name for name in names if name not in self.file.columns.get(level, ())]
            if missing and len(self.file):
                raise UserError(f"{path}: not a file of jets: expected a column {level}.{missing[0]}")

    def __len__(self) -> int:
        return len(self.file)

    def range(self, first: int, last: int) -> Event:
        """See ``JetFile``."""
        event = self.file.range(first, last)
        for level in COLUMNS:
            rows = first + event.index(level).numpy()
            table = {name: column.numpy() for name, column in getattr(event, level).items()}
            require_finite(self.path, rows, table, {name: f"{level}.{name}" for name in table})
            if self.labels and level == "scene" and len(event):
                good, most = (table["label"] >= 0) & (table["label"] < len(self.labels)), len(self.labels) - 1
                require(self.path, good, rows, "scene.label", table["label"], f"a number from 0 to {most}")
        return event


#: Formats of files of jets. To add one: a class like these, and its name here.
FORMATS: tuple[type[JetFile], ...] = (ParquetJets, TopTagging, JetNet, JetClass, NanoAOD)
SUFFIXES = tuple(dict.fromkeys(suffix for format in FORMATS for suffix in format.suffixes))


class Jets(Ranges):
    """The jets of a file or a directory, one after the other; only what is asked for is read.

    An ``Event`` holds one jet or a batch of them. ``point`` are its constituents in falling pT: ``px``, ``py``, ``pz``,
    ``energy`` (float32, GeV) and, where known, ``type`` (``smear.TYPES``), ``charge``, ``d0``, ``z0``, ``sigma_d0``,
    ``sigma_z0`` (mm, 0 without a track), ``origin`` and ``vertex`` (``jets.simulate``). ``scene``: ``id``, ``pt``,
    ``eta``, ``phi``, ``mass`` (float32, GeV) and, where known, ``label``, a number of ``labels``. In files that have no
    ids they are the places in the whole, from 0.
    """

    def __init__(self, path: Path, files: Sequence[JetFile]) -> None:
        self.path, self.files = path, tuple(file for file in files if len(file)) or tuple(files[:1])
        self.starts = np.cumsum([0, *map(len, self.files)])
        self.labels = tuple(dict.fromkeys(name for file in self.files for name in file.labels))
        kinds = {bool(file.labels) for file in self.files}
        if len(kinds) > 1:
            raise UserError(f"{path}: expected names of labels in all files or in none")

    def __len__(self) -> int:
        return int(self.starts[-1])

    def range(self, first: int, last: int) -> Event:
        """Jets ``first`` to ``last - 1`` as one batch; ``0 <= first <= last <= len(self)``.

        Raises ``UserError`` when a file is malformed, naming file, row, column and what was expected, or when the
        files have different columns.
        """
        self.check(first, last)
        parts: list[Event] = []
        for number, file in enumerate(self.files):
            start, end = int(self.starts[number]), int(self.starts[number + 1])
            if max(first, start) < min(last, end) or (number == len(self.files) - 1 and not parts):
                begin = min(max(first, start), end)
                part = file.range(begin - start, max(min(last, end), begin) - start)
                parts.append(self._in_whole(part, file, begin))
        try:
            return parts[0] if len(parts) == 1 else batch(parts)
        except ValueError as error:
            raise UserError(f"{self.path}: files of jets with different columns: {store.one_line(error)}") from error

    def _in_whole(self, part: Event, file: JetFile, begin: int) -> Event:
        """Some jets of a file with the labels, and if need be the ids, of the whole."""
        if len(part) and file.labels and file.labels != self.labels:
            table = torch.tensor([self.labels.index(name) for name in file.labels])
            part = part.with_columns("scene", label=table[part.scene["label"]])
        if "id" not in part.scene:
            scene = {"id": torch.arange(begin, begin + len(part)), **part.scene}
            part = part.with_level("scene", scene, part.count["scene"])
        return part

    def batches(self, size: int = RANGE_JETS) -> Iterator[Event]:
        """All jets in order, ``size`` at a time."""
        return (self.range(first, min(first + size, len(self))) for first in range(0, len(self), size))


def is_foreign(path: str | Path) -> bool:
    """Whether a path is, or a directory has, a file of jets in a format other than Parquet, by its name."""
    return any(file.suffix != ".parquet" for file in _files(Path(path)))


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and not file.name.startswith("."))
    return [path] if path.suffix in SUFFIXES else []


def _open(path: Path) -> JetFile:
    formats = [format for format in FORMATS if path.suffix in format.suffixes]
    for format in formats:
        if (file := format.open(path)) is not None:
            return file
    marks = " or ".join(f"{format.mark} ({format.__name__})" for format in formats)
    raise UserError(f"{path}: no jets known here: expected {marks}")


def open_jets(path: str | Path, failed: list[str] | None = None) -> Jets:
    """The jets of a file, or of all files of a directory in the order of their names.

    Parquet as ``simulate jets`` and ``convert`` write it; HDF5 of the top tagging reference set or of JetNet; ROOT of
    JetClass or of NanoAOD with PF candidates (PFNano). Raises ``UserError`` when there are none, or of several kinds,
    and for a file that cannot be opened; with ``failed`` such a file is left out and named there.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or directory")
    files: list[JetFile] = []
    for file in _files(path):
        try:
            files.append(_open(file))
        except UserError as error:
            if failed is None:
                raise
            failed.append(str(error))
    if not files:
        none = f"{path}: no jets: expected {', '.join('*' + suffix for suffix in SUFFIXES)}"
        raise UserError("\n".join(failed or [none]))
    kinds = sorted({type(file).__name__ for file in files})
    if len(kinds) > 1:
        raise UserError(f"{path}: jets of several formats ({', '.join(kinds)}): expected one format per directory")
    return Jets(path, files)


def write_jets(directory: str | Path, jets: Iterable[Event], labels: Sequence[str]) -> Iterator[tuple[Path, int]]:
    """Write batches of jets to Parquet files as they come; gives each file when it is done, with its number of jets.

    ``labels`` are the names behind ``scene.label``. Each file appears when it is whole. Raises ``UserError`` when the
    directory has such files already, as the jets of two runs would mix, or a file cannot be written.
    """
    directory, stream = Path(directory), iter(jets)
    if old := sorted(directory.glob(NAME.format(0).replace("000000", "*"))):
        raise UserError(f"{old[0]}: exists: expected a directory without jets, so that those of two runs do not mix")
    number, head = 0, next(stream, None)
    while head is not None or number == 0:
        part = _File(head, stream)
        path = directory / NAME.format(number)
        store.write(path, part, {"labels": list(labels)} if labels else None)
        yield path, part.jets
        number, head = number + 1, next(stream, None)


class _File:
    """The batches of one file, counted as they are written."""

    def __init__(self, head: Event | None, stream: Iterator[Event]) -> None:
        self.head, self.stream, self.jets = head, stream, 0

    def __iter__(self) -> Iterator[Event]:
        event = self.head
        while event is not None:
            self.jets += len(event)
            yield event
            event = next(self.stream, None) if self.jets < FILE_JETS else None
