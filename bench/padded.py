"""Taggers as they are usually written: every jet filled up to the longest of its batch, and a mask.

The modules of the ragged network are used as they are, so weights are the same; only what surrounds them differs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cloudchamber.event import Event
from cloudchamber.nn import Cloud
from cloudchamber.sets import Sets
from cloudchamber.tasks.tag import Tag

Inputs = tuple[Tensor, Tensor, Tensor]


def ragged_inputs(task: Tag, event: Event) -> Inputs:
    """Features ``(points, columns)``, pT, eta and phi ``(points, 3)`` and sizes ``(jets,)`` of a prepared event."""
    arrays = task.arrays(event)
    return arrays["point"], arrays.get("polar", arrays["point"][:, :0]), event.count["point"]


def padded_inputs(task: Tag, event: Event) -> Inputs:
    """The same as ``(jets, length, columns)``, ``(jets, length, 3)``, and a mask ``(jets, length)``."""
    point, polar, _ = ragged_inputs(task, event)
    slot = task.arrays(event)["slot"]
    mask = slot >= 0
    point, polar = (torch.where(mask.unsqueeze(2), rows[slot.clamp(min=0)], 0.0) for rows in (point, polar))
    return point, polar, mask


class Ragged(nn.Module):
    """A network of ``Tag`` as it is."""

    def __init__(self, task: Tag) -> None:
        super().__init__()
        self.scale, self.network = task.scale, task.network

    def forward(self, x: Tensor, polar: Tensor, count: Tensor) -> Tensor:
        """Logits ``(jets, outputs)``."""
        out: Tensor = self.network(self.scale(x), Cloud(Sets.of(count), polar=polar))[0]
        return out


class Padded(nn.Module):
    """A network of ``Tag`` on padded jets: particle flow (``mlp``), edge convolution or particle transformer."""

    def __init__(self, task: Tag) -> None:
        super().__init__()
        self.scale, self.network = task.scale, task.network
        self.bodies = {"mlp": self._points, "message": self._graph, "attention": self._transformer}
        self.kind = next(k for k, name in KINDS.items() if type(self.network.body).__name__ == name)

    def forward(self, x: Tensor, polar: Tensor, mask: Tensor) -> Tensor:
        """Logits ``(jets, outputs)``."""
        body: Any = self.network.body
        x = self.bodies[self.kind](body, self.scale(x), polar, mask)
        pool = self.network.pool
        if pool.seeds is not None:
            row: Tensor = pool.seeds(x, mask)
        else:
            row = (x * mask.unsqueeze(2)).sum(1)
            row = row / mask.sum(1, keepdim=True).clamp(min=1) if pool.how == "mean" else row
        out: Tensor = self.network.head(row)
        return out

    def _points(self, body: Any, x: Tensor, polar: Tensor, mask: Tensor) -> Tensor:
        return torch.relu(body.mlp(x))

    def _graph(self, body: Any, x: Tensor, polar: Tensor, mask: Tensor) -> Tensor:
        x, space = body.point(x), polar[..., 1:]
        for block in body.rounds:
            index, there = _nearest(space, mask, body.config.neighbours)
            pair, update = block.update_edge, block.update_point
            message = pair.rest(torch.relu(_rows(pair.sender(x), index) + pair.receiver(x).unsqueeze(2)))
            number = there.sum(2, keepdim=True).clamp(min=1)
            x = x + update(torch.cat([x, (message * there.unsqueeze(3)).sum(2) / number], dim=2))
            space = x
        return x

    def _transformer(self, body: Any, x: Tensor, polar: Tensor, mask: Tensor) -> Tensor:
        x, bias = body.point(x), body.bias(polar)
        for block in body.blocks:
            x = block(x, mask, bias)
        return x


#: Kind of model -> the class of its body.
KINDS = {"mlp": "PointBody", "message": "GraphBody", "attention": "SetBody"}


def _nearest(x: Tensor, mask: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The nearest other points of each: columns and which are there, ``(jets, length, k)``."""
    exact = x.detach().double()  # as the ragged one does: with float32 the two would choose different neighbours
    square = exact.square().sum(2)
    distance = square.unsqueeze(2) + square.unsqueeze(1) - 2 * exact @ exact.transpose(1, 2)
    other = mask.unsqueeze(1) & ~torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
    reach, column = torch.where(other, distance, torch.inf).topk(min(k, x.shape[1]), dim=2, largest=False)
    return column, torch.isfinite(reach)


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """``x[jet, index]``: ``(jets, length, width)``, ``(jets, length, k)`` -> ``(jets, length, k, width)``."""
    jets, length, k = index.shape
    flat = (index + length * torch.arange(jets, device=x.device)[:, None, None]).flatten()
    return x.flatten(0, 1).index_select(0, flat).view(jets, length, k, -1)
