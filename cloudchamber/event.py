"""The one data model: an Event is a particle cloud, and a batch of Events is an Event."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Self

import torch
from torch import Tensor

Columns = Mapping[str, Tensor]

LEVELS = ("point", "object", "edge", "scene", "cell")

#: Reference columns: (level, column) -> the level whose rows the column numbers. -1 means none (noise, unassigned).
#: Batching shifts them by the rows of the events before; a new reference column is one row here.
REFERENCES = {
    ("point", "object"): "object",
    ("edge", "sender"): "point",
    ("edge", "receiver"): "point",
    ("cell", "point"): "point",
    ("cell", "object"): "object",
}


@dataclass(frozen=True, eq=False)
class Event:
    """One event, or many laid end to end.

    ``point`` holds hits, constituents, cells or bodies; ``object`` particles, showers or tracks (truth or predicted);
    ``edge`` pairs of points (columns ``sender`` and ``receiver``); ``scene`` one row per event; ``cell`` the readout
    channels behind the points. ``count[level]`` gives the rows of each event, shape ``(events,)``; levels that it does
    not name are taken to hold one event's rows. The columns of a level have equal lengths along their first axis.

    Raises ``ValueError`` when columns differ in length or disagree with ``count``.
    """

    point: Columns = field(default_factory=dict)
    object: Columns = field(default_factory=dict)
    edge: Columns = field(default_factory=dict)
    scene: Columns = field(default_factory=dict)
    cell: Columns = field(default_factory=dict)
    count: Columns = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = {len(rows) for rows in self.count.values()}
        if len(given) > 1:
            raise ValueError(f"count: levels disagree on the number of events: {sorted(given)}")
        events = given.pop() if given else 1
        tensors = [*self.count.values(), *(column for level in LEVELS for column in getattr(self, level).values())]
        device = tensors[0].device if tensors else torch.device("cpu")
        count = {}
        for level in LEVELS:
            rows = {name: len(column) for name, column in getattr(self, level).items()}
            if len(set(rows.values())) > 1:
                raise ValueError(f"{level}: columns differ in length: {rows}")
            total = next(iter(rows.values()), 0)
            count[level] = self.count[level] if level in self.count else _one_event(total, events, level).to(device)
            if rows and int(count[level].sum()) != total:
                raise ValueError(f"{level}: {total} rows, but count says {int(count[level].sum())}")
        object.__setattr__(self, "count", count)

    def __len__(self) -> int:
        """The number of events."""
        return len(self.count["point"])

    def rows(self, level: str) -> int:
        """The number of rows of a level, all events together."""
        return int(self.count[level].sum())

    def index(self, level: str) -> Tensor:
        """The number of the event that each row of a level belongs to, shape ``(rows,)``."""
        count = self.count[level]
        return torch.repeat_interleave(torch.arange(len(count), device=count.device), count)

    def take(self, events: Tensor) -> Self:
        """The events of these numbers, in this order, as a batch; shape ``(events,)``, int64."""
        count = {level: rows[events] for level, rows in self.count.items()}
        shift = {}
        for level, rows in self.count.items():
            start, new = rows.cumsum(0) - rows, count[level].cumsum(0) - count[level]
            shift[level] = start[events] - new
        levels: dict[str, Columns] = {}
        for level in LEVELS:
            owner = torch.repeat_interleave(torch.arange(len(events), device=events.device), count[level])
            rows = torch.arange(len(owner), device=events.device) + shift[level][owner]
            columns = {name: column[rows] for name, column in getattr(self, level).items()}
            for name, column in columns.items():
                if target := REFERENCES.get((level, name)):
                    columns[name] = torch.where(column >= 0, column - shift[target][owner], column)
            levels[level] = columns
        return replace(self, **levels, count=count)

    def with_columns(self, level: str, **columns: Tensor) -> Self:
        """A copy with columns of a level added or replaced."""
        return replace(self, **{level: {**getattr(self, level), **columns}})

    def with_level(self, level: str, columns: Columns, count: Tensor | None = None) -> Self:
        """A copy with all columns of a level replaced; ``count`` gives its rows per event (needed for a batch)."""
        kept = {name: rows for name, rows in self.count.items() if name != level}
        if count is not None:
            kept[level] = count
        return replace(self, **{level: dict(columns), "count": kept})

    def to(self, device: torch.device | str) -> Self:
        """A copy whose columns lie on a device."""
        return self.map(lambda column: column.to(device))

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """A copy with a function applied to every column and count."""
        return replace(
            self, **{f.name: {k: function(v) for k, v in getattr(self, f.name).items()} for f in fields(self)}
        )


def _one_event(total: int, events: int, level: str) -> Tensor:
    if events != 1 and total:
        raise ValueError(f"{level}: has rows, but count does not say how they are shared among {events} events")
    return torch.tensor([total]) if events == 1 else torch.zeros(events, dtype=torch.int64)


def batch(events: Iterable[Event]) -> Event:
    """Lay events end to end. ``unbatch`` is the exact inverse; a batch of batches equals one batch.

    Levels must have the same columns, with the same dtype and shape of a row, in every event that has rows there;
    raises ``ValueError`` otherwise. An event without columns in a level gets those of the others, with no rows.
    """
    parts = list(events)
    if not parts:
        raise ValueError("batch: no events")
    levels: dict[str, Columns] = {}
    for level in LEVELS:
        names = list(dict.fromkeys(name for event in parts for name in getattr(event, level)))
        columns: dict[str, Tensor] = {}
        for name in names:
            columns[name] = _join(parts, level, name)
        levels[level] = columns
    count = {level: torch.cat([event.count[level] for event in parts]) for level in LEVELS}
    return Event(**levels, count=count)


def _join(parts: list[Event], level: str, name: str) -> Tensor:
    target = REFERENCES.get((level, name))
    offset, pieces = 0, []
    for number, event in enumerate(parts):
        columns = getattr(event, level)
        if name in columns:
            column = columns[name]
            pieces.append(torch.where(column >= 0, column + offset, column) if target else column)
        elif event.rows(level):
            raise ValueError(f"batch: event {number} has no column {level}.{name}")
        if target:
            offset += event.rows(target)
    kinds = {(str(piece.dtype), tuple(piece.shape[1:])) for piece in pieces}
    if len(kinds) > 1:  # torch.cat would promote, and an integer id would lose digits
        raise ValueError(f"batch: events differ in dtype or shape of {level}.{name}: {sorted(kinds)}")
    return torch.cat(pieces)


def unbatch(event: Event) -> list[Event]:
    """Split a batch into its events, the exact inverse of ``batch``."""
    sizes = {level: event.count[level].tolist() for level in LEVELS}
    split = {
        level: {name: column.split(sizes[level]) for name, column in getattr(event, level).items()} for level in LEVELS
    }
    offset = dict.fromkeys(LEVELS, 0)
    result = []
    for i in range(len(event)):
        levels: dict[str, Columns] = {}
        for level in LEVELS:
            columns = {}
            for name, pieces in split[level].items():
                target = REFERENCES.get((level, name))
                piece = pieces[i]
                columns[name] = torch.where(piece >= 0, piece - offset[target], piece) if target else piece
            levels[level] = columns
        count = {level: event.count[level][i : i + 1] for level in LEVELS}
        result.append(Event(**levels, count=count))
        for level in LEVELS:
            offset[level] += sizes[level][i]
    return result
