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
from cloudchamber.ops import gather
from cloudchamber.sets import Sets, nearest

CATEGORIES = 2048  # layers, particle types: any whole number, taken modulo this
CATEGORY_WIDTH = 8
SPACE = 4  # coordinates in which a network looks for neighbours
CHUNK = 32_768  # edges judged at a time where each stands by itself: small enough to stay in the cache

Scaling = Callable[[Tensor], Tensor]


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _passed(block: nn.Module, x: Tensor, e: Tensor, sender: Tensor, receiver: Tensor) -> tuple[Tensor, Tensor]:
    """Points and edges after a round."""
    if cast(Message, block).config.recompute and torch.is_grad_enabled():
        return cast(tuple[Tensor, Tensor], checkpoint(block, x, e, sender, receiver, use_reentrant=False))
    return cast(tuple[Tensor, Tensor], block(x, e, sender, receiver))


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
            x, e = _passed(block, x, e, sender, receiver)
        return self._judge(x, e, sender, receiver)

    def _judge(self, x: Tensor, e: Tensor, sender: Tensor, receiver: Tensor) -> Tensor:
        return cast(Tensor, self.head(x, e, sender, receiver)).squeeze(1)


class CloudNetwork(nn.Module):
    """Message passing, then one row of outputs per point: ``(points, inputs) -> (points, outputs)``.

    Along the edges of a graph, whose features ``(edges, edge_inputs)`` are given; or, with ``neighbours``, among the
    points that are nearest in ``SPACE`` coordinates which each round learns anew, their squared distance being a
    feature of an edge, through which they are learned (GravNet, Qasim et al., arXiv:1902.07987, its fixed potential of
    the distance replaced by the perceptron of the message). Where points have ``coordinates`` to begin with, rounds
    learn what to add to them, and their differences are features of the edges, too. ``categories``: there is a
    category, see ``EdgeNetwork``.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        config: MessageConfig,
        edge_inputs: int | None = None,
        *,
        categories: bool = False,
        coordinates: int = 0,
    ) -> None:
        super().__init__()
        self.config = config
        edge_inputs = 1 + coordinates if edge_inputs is None else edge_inputs
        encoder = MLPConfig(width=config.width, depth=1)
        self.category = nn.Embedding(CATEGORIES, CATEGORY_WIDTH) if categories else None
        self.point = MLP(inputs + CATEGORY_WIDTH * categories, config.width, encoder, norm=True)
        self.edge = MLP(edge_inputs, config.width, encoder, norm=True)
        self.rounds = nn.ModuleList(Message(config) for _ in range(config.depth))
        self.spaces = nn.ModuleList(nn.Linear(config.width, SPACE) for _ in self.rounds if config.neighbours)
        self.head = MLP(config.width, outputs, MLPConfig(width=config.width, depth=config.hidden))

    def forward(
        self,
        x: Tensor,
        category: Tensor | None,
        e: Tensor | None = None,
        sender: Tensor | None = None,
        receiver: Tensor | None = None,
        sets: Sets | None = None,
        where: Tensor | None = None,
    ) -> Tensor:
        """``e``, ``sender`` and ``receiver``: the graph; ``sets``: of the points, where neighbours are looked for, and
        ``where`` they are to begin with, ``(points, coordinates)``."""
        if self.category is not None and category is not None:
            x = torch.cat([x, self.category(category % CATEGORIES)], dim=1)
        x = self.point(x)
        if e is not None:
            e = self.edge(e)
        for number, block in enumerate(self.rounds):
            if self.spaces and sets is not None:
                place = self.spaces[number](x)
                if where is not None:
                    place = place + functional.pad(where, (0, SPACE - where.shape[1]))
                sender, receiver = nearest(place, self.config.neighbours, sets)
                apart = (gather(place, sender) - gather(place, receiver)).square().sum(1, keepdim=True)
                if where is not None:
                    apart = torch.cat([apart, gather(where, sender) - gather(where, receiver)], dim=1)
                e = self.edge(apart)
            if e is None or sender is None or receiver is None:
                raise ValueError("this network needs a graph, or model.neighbours and sets")
            x, e = _passed(block, x, e, sender, receiver)
        return cast(Tensor, self.head(x))


class PointNetwork(nn.Module):
    """A perceptron per point: features ``(points, inputs)`` and a category ``(points,)`` to ``(points, outputs)``.

    ``unit`` puts the outputs on the unit sphere. Without ``categories`` the category is not looked at.
    """

    def __init__(
        self, inputs: int, outputs: int, config: MLPConfig, *, unit: bool = False, categories: bool = True
    ) -> None:
        super().__init__()
        self.unit = unit
        self.category = nn.Embedding(CATEGORIES, CATEGORY_WIDTH) if categories else None
        self.mlp = MLP(inputs + CATEGORY_WIDTH * categories, outputs, config)

    def forward(self, x: Tensor, category: Tensor | None) -> Tensor:
        """One output row per point."""
        if self.category is not None and category is not None:
            x = torch.cat([x, self.category(category % CATEGORIES)], dim=1)
        out: Tensor = self.mlp(x)
        return functional.normalize(out, dim=1) if self.unit else out
