"""Jets of the top tagging reference set: HDF5 that pandas wrote."""

from __future__ import annotations

import io
import pickle
import re
from pathlib import Path
from typing import Any, Self

import numpy as np

from cloudchamber.data.jetcolumns import to_event
from cloudchamber.data.jetfile import JetFile, opened_hdf5, reading, require
from cloudchamber.data.transport import Array, Table
from cloudchamber.errors import UserError
from cloudchamber.event import Event


class TopTagging(JetFile):
    """The top tagging reference set: a pandas table of columns ``E_0, PX_0, PY_0, PZ_0, E_1, ...``, ``is_signal_new``.

    G. Kasieczka, T. Plehn, J. Thompson, M. Russel, https://zenodo.org/records/2603256: 200 massless constituents in
    GeV, zeros where there are fewer. It is read as PyTables lays it out: fields ``values_block_0``, ... of a compound
    data set, whose columns the attributes ``values_block_0_kind``, ... name.
    """

    suffixes = (".h5", ".hdf5")
    mark = "a pandas table with columns E_0, PX_0, ..., is_signal_new"
    labels: tuple[str, ...] = ("qcd", "top")

    @classmethod
    def open(cls, path: Path) -> Self | None:
        """See ``JetFile``."""
        with opened_hdf5(path) as file, reading(path):
            keys = [name for name in file if "table" in getattr(file[name], "keys", tuple)()]
            key = "table" if "table" in keys else next(iter(keys), None)
            return cls(path, file, f"{key}/table") if key else None

    def __init__(self, path: Path, file: Any, key: str) -> None:
        self.path, self.key = path, key
        table = file[key]
        if table.dtype.names is None:
            raise UserError(f"{path}: {key}: expected a table of named fields (pandas format='table')")
        self.jets = len(table)
        self.place: dict[str, tuple[str, int]] = {}
        for field in table.dtype.names:
            if f"{field}_kind" in table.attrs and re.fullmatch(r"values_block_\d+", field):
                self.place |= {name: (field, i) for i, name in enumerate(_names(path, table.attrs[f"{field}_kind"]))}
            elif table.dtype[field].shape in ((), (1,)):
                self.place[field] = field, 0
        self.most = next(i for i in range(len(self.place) + 1) if f"E_{i}" not in self.place)
        for name in ("E_0", *(f"{c}_{i}" for i in range(self.most) for c in ("PX", "PY", "PZ")), "is_signal_new"):
            if name not in self.place:
                found = ", ".join(list(self.place)[:4])
                raise UserError(f"{path}: {key}: expected a column {name}, found {found or 'none'}, ...")

    def __len__(self) -> int:
        return self.jets

    def range(self, first: int, last: int) -> Event:
        """See ``JetFile``."""
        self.check(first, last)
        with opened_hdf5(self.path) as file, reading(self.path):
            rows = file[self.key][first:last]
        columns = {
            ours: self._columns(rows, [f"{theirs}_{i}" for i in range(self.most)])
            for ours, theirs in (("px", "PX"), ("py", "PY"), ("pz", "PZ"), ("energy", "E"))
        }
        label = self._columns(rows, ["is_signal_new"])[:, 0]
        require(self.path, np.isin(label, (0, 1)), first + np.arange(len(rows)), "is_signal_new", label, "0 or 1")
        there = np.any([column != 0 for column in columns.values()], axis=0)
        point: Table = {name: column[there] for name, column in columns.items()}
        names = {"px": "PX", "py": "PY", "pz": "PZ", "energy": "E"}
        return to_event(self.path, first, there.sum(axis=1), point, {"label": label}, names)

    def _columns(self, rows: Array, names: list[str]) -> Array:
        """Some columns side by side, shape ``(rows, names)``."""
        fields = {self.place[name][0] for name in names}
        if not len(rows):
            return np.empty((0, len(names)))
        blocks = {field: rows[field].reshape(len(rows), -1) for field in fields}
        if len(fields) == 1:
            block: Array = blocks[fields.pop()][:, [self.place[name][1] for name in names]]
            return block
        return np.stack([blocks[field][:, i] for field, i in (self.place[name] for name in names)], axis=1)


class _Plain(pickle.Unpickler):
    """Reads lists of strings, which need no class, and nothing else: files come from anywhere."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} in the names of columns")


def _names(path: Path, kind: Any) -> list[str]:
    """The names of the columns in a block, which pandas pickles."""
    try:
        found = _Plain(io.BytesIO(bytes(kind))).load()
    except Exception as error:  # pickles fail in many ways
        raise UserError(f"{path}: expected a pickled list of the names of columns: {type(error).__name__}") from error
    if not isinstance(found, list):
        raise UserError(f"{path}: expected a pickled list of the names of columns, found {type(found).__name__}")
    return [name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in found]
