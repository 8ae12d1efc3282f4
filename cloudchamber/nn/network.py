"""Whole networks over the blocks: inputs in, one output per edge or per point."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from cloudchamber.nn.message import Message, MessageConfig, PairMLP
from cloudchamber.nn.mlp import MLP, MLPConfig

CATEGORIES = 2048  # layers, particle types: any whole number, taken modulo this
CATEGORY_WIDTH = 8
CHUNK = 32_768  # edges judged at a time where each stands by itself: small enough to stay in the cache

Scaling = Callable[[Tensor], Tensor]


def _as_it_is(x: Tensor) -> Tensor:
    return x


class EdgeNetwork(nn.Module):
    """Message passing, then one logit per edge.

    Inputs: point features ``(points, point_inputs)``, a whole number per point ``(points,)`` (its detector layer), edge
    features ``(edges, edge_inputs)``, sender and receiver ``(edges,)``. Output: logits ``(edges,)``.
    """

    def __init__(self, point_inputs: int, edge_inputs: int, config: MessageConfig) -> None:
        super().__init__()
        self.config = config
        encoder = MLPConfig(width=config.width, depth=1)
        self.category = nn.Embedding(CATEGORIES, CATEGORY_WIDTH)
        self.point = MLP(point_inputs + CATEGORY_WIDTH, config.width, encoder, norm=True)
        self.edge = MLP(edge_inputs, config.width, encoder, norm=True)
        self.rounds = nn.ModuleList(Message(config) for _ in range(config.depth))
        self.head = PairMLP(config.width, 1, config.hidden + 1)

    def forward(
        self, x: Tensor, category: Tensor, e: Tensor, sender: Tensor, receiver: Tensor, scale: Scaling = _as_it_is
    ) -> Tensor:
        """Logits of the edges; ``scale`` is applied to the edge features first."""
        x = self.point(torch.cat([x, self.category(category % CATEGORIES)], dim=1))
        if not self.rounds and not torch.is_grad_enabled() and not torch.compiler.is_compiling():
            parts = zip(*(torch.split(rows, CHUNK) for rows in (e, sender, receiver)), strict=True)
            return torch.cat([self._judge(x, self.edge(scale(part)), s, r) for part, s, r in parts])
        e = self.edge(scale(e))
        for block in self.rounds:
            if self.config.recompute and torch.is_grad_enabled():
                x, e = checkpoint(block, x, e, sender, receiver, use_reentrant=False)
            else:
                x, e = block(x, e, sender, receiver)
        return self._judge(x, e, sender, receiver)

    def _judge(self, x: Tensor, e: Tensor, sender: Tensor, receiver: Tensor) -> Tensor:
        return cast(Tensor, self.head(x, e, sender, receiver)).squeeze(1)


class PointNetwork(nn.Module):
    """A perceptron per point: features ``(points, inputs)`` and a category ``(points,)`` to ``(points, outputs)``.

    ``unit`` puts the outputs on the unit sphere.
    """

    def __init__(self, inputs: int, outputs: int, config: MLPConfig, *, unit: bool = False) -> None:
        super().__init__()
        self.unit = unit
        self.category = nn.Embedding(CATEGORIES, CATEGORY_WIDTH)
        self.mlp = MLP(inputs + CATEGORY_WIDTH, outputs, config)

    def forward(self, x: Tensor, category: Tensor) -> Tensor:
        """One output row per point."""
        out: Tensor = self.mlp(torch.cat([x, self.category(category % CATEGORIES)], dim=1))
        return functional.normalize(out, dim=1) if self.unit else out
