"""Payload: numbers of objects that are learned with them, and how they are scaled."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cloudchamber.errors import UserError
from cloudchamber.event import Event


class Payload(nn.Module):
    """Columns ``names`` of the objects as points learn them, and back: less their mean, over their deviation.

    Those that are in ``ratio`` are learned as the logarithm of their ratio to the sum of the points' column of the same
    name over the object: the energy of a shower as a correction to the sum of its cells. Those in ``offset`` are
    learned as the difference to the point's own column: where a shower is, as seen from a cell.
    """

    middle: Tensor
    width: Tensor

    def __init__(self, names: Sequence[str], ratio: Sequence[str] = (), offset: Sequence[str] = ()) -> None:
        super().__init__()
        self.names, self.ratio, self.offset = names, ratio, offset
        self.register_buffer("middle", torch.zeros(len(names)))
        self.register_buffer("width", torch.ones(len(names)))

    def fit(self, events: Sequence[Event]) -> None:
        """Learn mean and deviation, over the points of objects."""
        events = [event for event in events if self.names and (column(event, "point", "object") >= 0).any()]
        if events:
            target = torch.cat([self._raw(event)[event.point["object"] >= 0] for event in events]).double()
            self.middle.copy_(target.mean(0))
            deviation = target.std(0, correction=0)
            self.width.copy_(torch.where(deviation > 1e-5, deviation, 1.0))  # a constant needs no scale

    def _raw(self, event: Event) -> Tensor:
        found = []
        for name in self.names:
            values = column(event, "object", name).double()
            if name in self.ratio:
                total = _sums(event, name, event.point["object"], len(values))
                known = (total > 0) & (values > 0)
                values = torch.where(known, values / torch.where(known, total, 1.0), 1.0).log()
            values = of_points(values, event.point["object"])
            if name in self.offset:
                values = values - column(event, "point", name).double()
            found.append(values.to(self.middle))
        return torch.stack(found, dim=1)

    def forward(self, event: Event) -> Tensor:
        """What the points are to learn of their true objects: ``(points, columns)``."""
        return (self._raw(event) - self.middle) / self.width

    def absolute(self, event: Event, values: Tensor) -> Tensor:
        """What outputs (points, columns) mean, but for a sum: where they are right, the same for a whole object."""
        values = values * self.width.cpu() + self.middle.cpu()
        zero = torch.zeros(len(values))
        offset = [column(event, "point", name).float() if name in self.offset else zero for name in self.names]
        return values + torch.stack(offset, dim=1) if offset else values

    def found(self, event: Event, values: Tensor, number: Tensor) -> dict[str, Tensor]:
        """Columns from ``absolute`` values (objects, columns); ``number`` (points,) is the object of each, or -1."""
        result = {}
        for name, found in zip(self.names, values.T, strict=True):
            result[name] = found
            if name in self.ratio:
                result[name] = (found.double().exp() * _sums(event, name, number, len(values))).float()
        return result


def column(event: Event, level: str, name: str) -> Tensor:
    """A column of a level, empty where that has no rows. Raises ``UserError`` when it is missing."""
    columns = getattr(event, level)
    if name not in columns and event.rows(level):
        raise UserError(f"{level}.{name}: missing in the events")
    found: Tensor = columns.get(name, torch.zeros(0))
    return found


def of_points(values: Tensor, object: Tensor) -> Tensor:
    """A value of each point's object, 0 for none: ``(objects, ...)``, ``(points,)`` -> ``(points, ...)``."""
    return torch.cat([values, values.new_zeros((1, *values.shape[1:]))])[object]


def _sums(event: Event, name: str, number: Tensor, objects: int) -> Tensor:
    """The sum of a column of the points over each object, float64 ``(objects,)``."""
    own = number >= 0
    values = column(event, "point", name)[own].double()
    return values.new_zeros(objects).index_add(0, number[own], values)
