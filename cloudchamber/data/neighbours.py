"""Graphs of the constituents of jets: who is joined to whom, rewired on request, and where a point is in its graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from cloudchamber.data.constituents import ENCODINGS
from cloudchamber.event import Event
from cloudchamber.sets import Sets, complete, nearest, sampled

TERMS = 16  # of the series of a diffusion: what is left out is a fraction (1 - restart)^TERMS
ROUNDING = 1e-4


@dataclass(frozen=True, kw_only=True)
class NeighboursConfig:
    """Settings of ``Neighbours``: which points of an event are joined, and to ``k`` others at most.

    ``join``: ``none``; the ``nearest`` in (deta, dphi); ``all``; ``random`` ones, drawn anew each time. Then
    ``rewire``: ``hops`` joins points that at most ``hops`` edges lead to; ``diffusion`` the ``k`` points where a random
    walk along the edges, which goes home with probability ``restart`` before each step, most likely is (more than ``k``
    where they are equally likely). ``places``: points get the columns of ``ENCODINGS``, too.
    """

    kind: Literal["neighbours"] = "neighbours"
    join: Literal["none", "nearest", "all", "random"] = "none"
    k: int = 16
    rewire: Literal["none", "hops", "diffusion"] = "none"
    hops: int = 2
    restart: float = 0.15
    places: bool = False


class Neighbours(nn.Module):
    """Edges between the constituents of a jet, from a neighbour to the point that has it, and ``ENCODINGS``.

    Random-walk encodings: Dwivedi et al., arXiv:2110.07875, section 3.1. Diffusion: personalised PageRank, Gasteiger et
    al., arXiv:1911.05485, eq. 1 and section 4, the best ``k`` of each point.
    """

    def __init__(self, config: NeighboursConfig) -> None:
        super().__init__()
        self.config = config

    def fit(self, events: Sequence[Event]) -> None:
        """Nothing to learn."""

    def forward(self, event: Event) -> Event:
        """The event, which has the columns of ``constituent_columns``, with edges sorted by receiver."""
        if self.config.join == "none":
            return event
        sets = Sets.of(event.count["point"])
        sender, receiver = self._joined(event, sets)
        if self.config.rewire != "none":
            sender, receiver = _edges(sets, [self._rewired(matrix) for matrix in adjacency(sets, sender, receiver)])
        order = torch.argsort(receiver * max(len(sets.index), 1) + sender)
        sender, receiver = sender[order], receiver[order]
        count = torch.bincount(sets.index[receiver], minlength=len(event))
        event = event.with_level("edge", {"sender": sender, "receiver": receiver}, count)
        if not self.config.places:
            return event
        places = sets.rows([_place(matrix) for matrix in adjacency(sets, sender, receiver)])
        return event.with_columns("point", **dict(zip(ENCODINGS, places.unbind(1), strict=True)))

    def _rewired(self, matrix: Tensor) -> Tensor:
        if self.config.rewire == "hops":
            return _within(matrix, self.config.hops)
        return _diffused(matrix, self.config.k, self.config.restart)

    def _joined(self, event: Event, sets: Sets) -> tuple[Tensor, Tensor]:
        if self.config.join == "all":
            return complete(sets)
        if self.config.join == "random":
            return sampled(self.config.k, sets)
        return nearest(torch.stack([event.point["deta"], event.point["dphi"]], dim=1), self.config.k, sets)


def adjacency(sets: Sets, sender: Tensor, receiver: Tensor) -> list[Tensor]:
    """Edges as matrices ``(sets, length, length)`` of each table: 1 where a row's point receives from a column's."""
    found, offset = [], 0
    to, from_ = sets.place[receiver], sets.place[sender]
    for table in sets.tables:
        number, length = table.slot.shape
        here = (to >= offset) & (to < offset + number * length)
        matrix = torch.zeros(number * length, length, device=to.device)
        matrix[to[here] - offset, (from_[here] - offset) % max(length, 1)] = 1
        found.append(matrix.view(number, length, length))
        offset += number * length
    return found


def _edges(sets: Sets, matrices: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    columns = [torch.arange(matrix.shape[2], device=matrix.device).expand(matrix.shape) for matrix in matrices]
    return sets.edges([(column, matrix > 0) for column, matrix in zip(columns, matrices, strict=True)])


def _walk(matrix: Tensor) -> Tensor:
    """Probabilities of a step from each row's point to each column's; points without neighbours go nowhere."""
    return matrix / matrix.sum(2, keepdim=True).clamp(min=1)


def _others(matrix: Tensor) -> Tensor:
    return ~torch.eye(matrix.shape[1], dtype=torch.bool, device=matrix.device)


def _within(matrix: Tensor, hops: int) -> Tensor:
    """1 where at most so many edges in a row lead, to another point."""
    reached = matrix
    for _ in range(hops - 1):
        reached = ((reached + reached @ matrix) > 0).to(matrix)
    return reached * _others(matrix)


def _diffused(matrix: Tensor, k: int, restart: float) -> Tensor:
    """1 at the k largest of ``sum_t restart (1 - restart)^t P^t`` of each row that are not 0, itself left out.

    What equals the k-th to rounding is taken, too: which of them would depend on the order of the points.
    """
    step, total = _walk(matrix), torch.zeros_like(matrix)
    power = torch.eye(matrix.shape[1], device=matrix.device).expand_as(matrix)
    for number in range(TERMS):
        total = total + restart * (1 - restart) ** number * power
        power = power @ step
    total = total * _others(matrix)
    if not matrix.shape[2]:
        return total
    least = total.topk(min(k, matrix.shape[2]), dim=2).values[:, :, -1:]
    return ((total > 0) & (total > (1 - ROUNDING) * least)).to(matrix)


def _place(matrix: Tensor) -> Tensor:
    """``ENCODINGS`` of the points of a table: ``(sets, length, 4)``."""
    step = _walk(matrix)
    two = step @ step
    back = [(one * other.transpose(1, 2)).sum(2) for one, other in ((step, step), (two, step), (two, two))]
    return torch.stack([matrix.sum(2).log1p(), *back], dim=2)
