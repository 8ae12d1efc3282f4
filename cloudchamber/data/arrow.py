"""Events as Arrow tables and back: one row per event, a level a list of structs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from cloudchamber.errors import UserError
from cloudchamber.event import LEVELS, REFERENCES, Event


def to_table(events: Sequence[Event], metadata: Mapping[str, Any], schema: Any = None) -> Any:
    """The Arrow table of some events or batches; ``schema`` is that of the tables before, which must agree.

    ``metadata`` is kept with the schema as JSON. Raises ``ValueError`` when columns differ between the events.
    """
    fields, arrays = [], []
    for level in LEVELS:
        known = schema is not None and level in schema.names
        names = dict.fromkeys(name for event in events for name in getattr(event, level))
        if known and not names:
            names = dict.fromkeys(field.name for field in _fields(schema.field(level).type))
        rows = np.concatenate([[0], *(event.count[level].cpu().numpy() for event in events)])
        if not (known or names or rows.any() or level == "point"):
            continue
        offsets = pa.array(np.cumsum(rows).astype(np.int32))
        if known and not rows.any():
            array = pa.ListArray.from_arrays(offsets, pa.array([], schema.field(level).type.value_type))
            array = array.cast(schema.field(level).type)
        else:
            columns = [_column(events, level, name) for name in names]
            array = _list(offsets, columns, list(names), int(rows.sum()))
        fields.append(pa.field(level, array.type, nullable=False))
        arrays.append(array)
    found = pa.schema(fields, metadata={key: json.dumps(value) for key, value in metadata.items()})
    if schema is not None and not found.equals(schema):
        raise ValueError(f"write: events differ in columns: {_describe(found)}; before: {_describe(schema)}")
    return pa.table(arrays, schema=found)


def columns_of(schema: Any) -> dict[str, list[str]]:
    """The names of the columns of each level of a table."""
    return {level.name: [field.name for field in _fields(level.type)] for level in schema if level.name in LEVELS}


def _describe(schema: Any) -> str:
    return ", ".join(f"{level.name}.{f.name} {f.type}" for level in schema for f in _fields(level.type))


def _fields(type_: Any) -> list[Any]:
    return list(type_.value_type) if pa.types.is_struct(type_.value_type) else []


def _list(offsets: Any, columns: list[Any], names: list[str], rows: int) -> Any:
    """A list column from columns laid end to end; rows without columns are kept as nulls."""
    if not names:
        return pa.ListArray.from_arrays(offsets, pa.nulls(rows))
    fields = [pa.field(name, column.type, nullable=False) for name, column in zip(names, columns, strict=True)]
    item = pa.field("element", pa.struct(fields), nullable=False)
    return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(columns, fields=fields), type=pa.list_(item))


def _column(events: Sequence[Event], level: str, name: str) -> Any:
    """One column of several events end to end, shape ``(rows, ...)``, as an Arrow array."""
    pieces = []
    for event in events:
        columns = getattr(event, level)
        if name in columns:
            target = REFERENCES.get((level, name))
            column = columns[name].detach()
            pieces.append((column if target is None else _shifted(event, level, column, target, -1)).cpu())
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


def _shifted(event: Event, level: str, column: Tensor, target: str, sign: int) -> Tensor:
    """References counted from the start of the batch instead of that of their own event (sign 1), or back (-1)."""
    if len(event) == 1:
        return column
    before = event.count[target].cumsum(0) - event.count[target]
    return torch.where(column >= 0, column + sign * before[event.index(level)], column)


def to_event(path: Path, first: int, table: Any) -> Event:
    """The batch of the rows of an Arrow table, number ``first`` of ``path`` and those after it.

    Raises ``UserError`` when a reference leads nowhere, ``ValueError`` when a value is missing.
    """
    columns: dict[str, dict[str, Tensor]] = {}
    count = {level: torch.zeros(len(table), dtype=torch.int64) for level in LEVELS}
    for level in (name for name in table.column_names if name in LEVELS):
        lists = table[level].chunk(0) if table[level].num_chunks == 1 else table[level].combine_chunks()
        count[level] = torch.from_numpy(np.diff(lists.offsets.to_numpy()).astype(np.int64))
        rows = lists.flatten()
        structs = pa.types.is_struct(rows.type)
        columns[level] = {field.name: _tensor(rows.field(field.name)) for field in rows.type} if structs else {}
    event = Event(**columns, count=count)
    for (level, name), target in REFERENCES.items():
        if name not in columns.get(level, {}):
            continue
        column, owner = columns[level][name], event.index(level)
        bad = (column < -1) | (column >= count[target][owner])
        if bad.any():
            row = first + int(owner[bad][0]) + 1
            raise UserError(f"{path}: row {row}, column {level}.{name}: expected -1 or a row of {target}")
        event = event.with_columns(level, **{name: _shifted(event, level, column, target, 1)})
    return event


def _tensor(array: Any) -> Tensor:
    shape = [len(array)]
    if array.null_count:
        raise ValueError("a value is missing")
    while pa.types.is_fixed_size_list(array.type):
        shape.append(array.type.list_size)
        array = array.flatten()
    return torch.from_numpy(np.array(array.to_numpy(zero_copy_only=False))).reshape(shape)
