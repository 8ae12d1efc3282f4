"""Ragged sets: how the points of a batch are shared among its events, and tables of sets of nearly one size.

What looks at single points runs over flat rows ``(points, width)``. What looks at all points of a set at once
(attention, neighbours) runs over tables ``(sets, length, width)``, one for each length that is a multiple of ``STEP``:
dense arithmetic, and at most ``STEP - 1`` empty places a set instead of a batch filled up to its largest set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from cloudchamber.ops import exporting, gather, segment_max, segment_sum

STEP = 8
DENSE = 512  # points of a set whose distances are all computed


@dataclass(frozen=True, eq=False)
class Table:
    """``slot`` (sets, length): the row of each point, or the number of all points where ``mask`` says there is none."""

    slot: Tensor
    mask: Tensor


@dataclass(frozen=True, eq=False)
class Sets:
    """The sets of a batch of points.

    ``index`` (points,): the set of each point. ``number`` of sets. ``tables``: every set is a row of one of them.
    ``place`` (points,): where each point lies in all tables laid flat, end to end. ``order`` (sets,): the row of each
    set in the tables put below one another. ``given``: the one table was made by the caller (export). ``single``: there
    is one set, whose table are its rows as they are.
    """

    index: Tensor
    number: int
    tables: tuple[Table, ...]
    place: Tensor
    order: Tensor
    given: bool = False
    single: bool = False

    @classmethod
    def of(cls, count: Tensor) -> Sets:
        """Points that lie set after set, ``count`` (sets,) of them in each."""
        points, device = int(count.sum()), count.device
        if len(count) == 1:
            row = torch.arange(points, device=device)
            table, none = Table(row.unsqueeze(0), row.new_ones((1, points), dtype=torch.bool)), row.new_zeros(points)
            return cls(none, 1, (table,), row, row.new_zeros(1), single=True)
        start = count.cumsum(0) - count
        length = (count + STEP - 1) // STEP * STEP
        tables, which, offset = [], [torch.zeros(0, dtype=torch.int64, device=device)], 0
        place = torch.zeros(points, dtype=torch.int64, device=device)
        for size in torch.unique(length).tolist():
            which.append(torch.nonzero(length == size).squeeze(1))
            column = torch.arange(size, device=device)
            mask = column < count[which[-1]].unsqueeze(1)
            slot = torch.where(mask, start[which[-1]].unsqueeze(1) + column, points)
            place[slot[mask]] = offset + torch.nonzero(mask.flatten()).squeeze(1)
            tables.append(Table(slot, mask))
            offset += slot.numel()
        index = torch.repeat_interleave(torch.arange(len(count), device=device), count)
        return cls(index, len(count), tuple(tables), place, torch.argsort(torch.cat(which)))

    @classmethod
    def of_table(cls, slot: Tensor, points: int) -> Sets:
        """One table, shape ``(sets, length)`` with length above 0: rows of points, -1 for none. For export."""
        number, length = slot.shape
        mask = slot >= 0
        slot = torch.where(mask, slot, points)
        flat = torch.arange(number * length, device=slot.device)
        place = slot.new_zeros(points + 1).scatter(0, slot.flatten(), flat)[:points]
        order = torch.arange(number, device=slot.device)
        return cls(place // length, number, (Table(slot, mask),), place, order, given=True)

    @cached_property
    def count(self) -> Tensor:
        """Points of each set, shape ``(sets,)``."""
        return self.by_set([table.mask.sum(1) for table in self.tables])

    def spread(self, x: Tensor) -> list[Tensor]:
        """Rows ``(points, width)`` as tables ``(sets, length, width)``, 0 where there is no point."""
        if self.single:
            return [x.unsqueeze(0)]
        padded = torch.cat([x, x.new_zeros((1, x.shape[1]))])
        return [gather(padded, t.slot.flatten()).view(*t.slot.shape, x.shape[1]) for t in self.tables]

    def rows(self, tables: Sequence[Tensor]) -> Tensor:
        """The inverse of ``spread``: tables ``(sets, length, width)`` to rows ``(points, width)``."""
        if not tables:
            raise ValueError("rows: no tables: there are no sets")
        if self.single:
            return tables[0].squeeze(0)
        return gather(torch.cat([table.flatten(0, 1) for table in tables]), self.place)

    def by_set(self, tables: Sequence[Tensor]) -> Tensor:
        """One row per set of each table, ``(sets of the table, ...)``, to ``(sets, ...)``."""
        if not tables:
            return self.index.new_zeros(0)
        return tables[0] if self.single else torch.cat(list(tables)).index_select(0, self.order)

    def sum(self, x: Tensor) -> Tensor:
        """The sum of the rows of each set: ``(points, width)`` -> ``(sets, width)``."""
        return self.spread(x)[0].sum(1) if self.given or self.single else segment_sum(x, self.index, self.number)

    def mean(self, x: Tensor) -> Tensor:
        """The mean of the rows of each set, 0 where it has none."""
        return self.sum(x) / self.count.clamp(min=1).unsqueeze(1)

    def max(self, x: Tensor) -> Tensor:
        """The maximum of the rows of each set, 0 where it has none."""
        if not self.given:
            return segment_max(x, self.index, self.number)
        (table,), (dense,) = self.tables, self.spread(x)
        low = dense.masked_fill(~table.mask.unsqueeze(2), -1e30).amax(1)
        return torch.where(table.mask.any(1, keepdim=True), low, 0.0)

    def edges(self, tables: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Edges from tables of neighbours: columns ``(sets, length, k)`` of the table, and which are there.

        Gives sender and receiver ``(edges,)``, the neighbour and the point. An edge that is not there is left out, or
        in an export joins row 0 to itself, so that the number of edges does not depend on the values.
        """
        sender, receiver = [self.index.new_zeros(0)], [self.index.new_zeros(0)]
        for table, (column, there) in zip(self.tables, tables, strict=True):
            if self.single and bool(there.all()):
                return column.flatten(), torch.arange(column.shape[1], device=column.device).repeat_interleave(
                    column.shape[2]
                )
            row = torch.arange(column.shape[0], device=column.device)[:, None, None]
            near, point = table.slot[row, column], table.slot.unsqueeze(2).expand(column.shape)
            if exporting():
                zero = self.index.new_zeros(1)
                sender += [zero, torch.where(there, near, 0).flatten()]
                receiver += [zero, torch.where(there, point, 0).flatten()]
            else:
                sender.append(near[there])
                receiver.append(point[there])
        return torch.cat(sender), torch.cat(receiver)


def slots(count: Tensor) -> Tensor:
    """The table ``(sets, length)`` of the rows of points that lie set after set, -1 for none; at least one column."""
    column = torch.arange(max([1, *count.tolist()]), device=count.device)
    start = count.cumsum(0) - count
    return torch.where(column < count.unsqueeze(1), start.unsqueeze(1) + column, -1)


def nearest(x: Tensor, k: int, sets: Sets) -> tuple[Tensor, Tensor]:
    """The at most ``k`` nearest other points of the same set by Euclidean distance in ``x`` (points, dims): edges.

    In sets of up to ``DENSE`` points, and when exported, all distances are computed; in larger ones a k-d tree
    searches, in time n log n and memory linear in n. When exported, the table must have more than ``k`` columns.
    """
    found = []
    for table, dense in zip(sets.tables, sets.spread(x.detach()), strict=True):
        length = table.slot.shape[1]
        if length > DENSE and not exporting():
            found.append(_searched(dense, table.mask, k))
            continue
        exact = dense.double()  # so that the difference of squares keeps the digits of float32
        square = exact.square().sum(2)
        distance = square.unsqueeze(2) + square.unsqueeze(1) - 2 * exact @ exact.transpose(1, 2)
        other = others(table)
        least = k if exporting() else min(k, length)
        reach, column = torch.where(other, distance, torch.inf).topk(least, dim=2, largest=False)
        found.append((column, torch.isfinite(reach)))
    return sets.edges(found)


def _searched(dense: Tensor, mask: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The nearest others of every point of a table: columns ``(sets, length, k)``, and which are there."""
    column, there = torch.zeros((*mask.shape, k), dtype=torch.int64), torch.zeros((*mask.shape, k), dtype=torch.bool)
    for number, (x, rows) in enumerate(zip(dense.cpu().double().numpy(), mask.cpu().sum(1).tolist(), strict=True)):
        if rows < 2:
            continue
        near = KDTree(x[:rows]).query(x[:rows], min(k + 1, rows))[1].reshape(rows, -1)
        other = near != np.arange(rows)[:, None]
        other[:, -1] &= ~other.all(1)  # where points coincide, the point itself need not be among them
        found = min(k, rows - 1)
        column[number, :rows, :found] = torch.from_numpy(near[other].reshape(rows, found))
        there[number, :rows, :found] = True
    return column.to(dense.device), there.to(dense.device)


def complete(sets: Sets) -> tuple[Tensor, Tensor]:
    """Every ordered pair of different points of a set: edges."""
    found = []
    for table in sets.tables:
        length = table.slot.shape[1]
        column = torch.arange(length, device=table.slot.device).expand(table.slot.shape[0], length, length)
        found.append((column, others(table)))
    return sets.edges(found)


def sampled(k: int, sets: Sets) -> tuple[Tensor, Tensor]:
    """At most ``k`` other points of the same set for each point, drawn at random without repetition: edges."""
    found = []
    for table in sets.tables:
        other = others(table)
        draw = torch.where(other, torch.rand(other.shape, device=other.device), torch.inf)
        reach, column = draw.topk(min(k, other.shape[2]), dim=2, largest=False)
        found.append((column, torch.isfinite(reach)))
    return sets.edges(found)


def others(table: Table) -> Tensor:
    """Which pairs ``(sets, length, length)`` are two different points."""
    both = table.mask.unsqueeze(1) & table.mask.unsqueeze(2)
    return both & ~torch.eye(table.slot.shape[1], dtype=torch.bool, device=both.device)
