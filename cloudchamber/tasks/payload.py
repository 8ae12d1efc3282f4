"""Payload: numbers of objects that are learned with them, and how they are scaled."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cloudchamber.errors import UserError
from cloudchamber.event import Event


class Payload(nn.Module):
    """Columns ``names`` of the objects as they are learned, and back: less their mean, over their deviation.

    Those that are in ``ratio`` are learned as the logarithm of their ratio to the sum of the point's column of the same
    name over the object: the energy of a shower as a correction to the sum of its cells.
    """

    middle: Tensor
    width: Tensor

    def __init__(self, names: Sequence[str], ratio: Sequence[str] = ()) -> None:
        super().__init__()
        self.names, self.ratio = names, ratio
        self.register_buffer("middle", torch.zeros(len(names)))
        self.register_buffer("width", torch.ones(len(names)))

    def fit(self, events: Sequence[Event]) -> None:
        """Learn mean and deviation."""
        if self.names and any(event.rows("object") for event in events):
            target = torch.cat([self._raw(event) for event in events]).double()
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
            found.append(values.to(self.middle))
        return torch.stack(found, dim=1)

    def forward(self, event: Event) -> Tensor:
        """What is to be learned of the true objects: ``(objects, columns)``."""
        return (self._raw(event) - self.middle) / self.width

    def found(self, event: Event, values: Tensor, number: Tensor) -> dict[str, Tensor]:
        """The columns that outputs (objects, columns) mean; ``number`` (points,) is the object of each point, or -1."""
        result = {}
        for name, found in zip(self.names, (values * self.width.cpu() + self.middle.cpu()).T, strict=True):
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


def _sums(event: Event, name: str, number: Tensor, objects: int) -> Tensor:
    """The sum of a column of the points over each object, float64 ``(objects,)``."""
    own = number >= 0
    values = column(event, "point", name)[own].double()
    return values.new_zeros(objects).index_add(0, number[own], values)
