"""The graph-network block: edges look at their points, points gather their edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from cloudchamber.errors import UserError
from cloudchamber.nn.mlp import MLP, MLPConfig
from cloudchamber.ops import gather, segment_max, segment_mean, segment_softmax, segment_sum


@dataclass(frozen=True, kw_only=True)
class MessageConfig:
    """Settings of a stack of ``Message`` blocks.

    ``width``: channels of points and edges. ``depth``: rounds of message passing; 0 judges each edge by itself.
    ``hidden``: hidden layers of each perceptron. ``gate``: weigh each message by a learned number in (0, 1).
    ``recompute``: keep no activations inside a block and compute them again for the gradient (less memory, more time).
    ``gather``: how a point takes the messages of its edges; ``attention`` is a softmax over them with ``heads`` heads.
    ``both``: a point gathers from its outgoing edges as well. ``edges``: edges have features, kept between rounds.
    ``neighbours``: edges of each round join so many nearest points in the space of the round before, instead of those
    of the graph (0).
    """

    kind: Literal["message"] = "message"
    width: int = 32
    depth: int = 4
    hidden: int = 1
    gate: bool = True
    recompute: bool = False
    gather: Literal["sum", "mean", "max", "attention"] = "sum"
    heads: int = 1
    both: bool = True
    edges: bool = True
    neighbours: int = 0


class PairMLP(nn.Module):
    """A perceptron on (edge, sender, receiver), its first layer split in three so that points are multiplied once.

    ``(edges, width), (points, width) x 2`` -> ``(edges, outputs)``; without ``edge`` on the two points only. ``inputs``
    is the width of the edge features where it is another.
    """

    def __init__(
        self,
        width: int,
        outputs: int,
        hidden: int,
        *,
        norm: bool = False,
        edge: bool = True,
        inputs: int | None = None,
    ) -> None:
        super().__init__()
        self.edge = nn.Linear(width if inputs is None else inputs, width) if edge else None
        self.sender = nn.Linear(width, width, bias=False)
        self.receiver = nn.Linear(width, width, bias=not edge)
        self.rest = MLP(width, outputs, MLPConfig(width=width, depth=hidden - 1), norm=norm)

    def forward(self, x: Tensor, e: Tensor | None, sender: Tensor, receiver: Tensor) -> Tensor:
        """Judge every edge with its two points."""
        from_, to = gather(self.sender(x), sender), gather(self.receiver(x), receiver)
        pair = from_ + to if self.edge is None or e is None else self.edge(e) + from_ + to
        out: Tensor = self.rest(torch.relu(pair))
        return out

    def pairs(self, x: Tensor, e: Tensor) -> Tensor:
        """Judge all pairs of ``(sets, points, width)``; e ``(sets, points, points, inputs)``: receivers first."""
        if self.edge is None:
            raise ValueError("pairs: made without edge")
        pair = self.edge(e) + self.sender(x).unsqueeze(1) + self.receiver(x).unsqueeze(2)
        out: Tensor = self.rest(torch.relu(pair))
        return out


class Message(nn.Module):
    """One round of the interaction network (Battaglia et al., arXiv:1612.00222), residual.

    ``e' = e + f(e, x_sender, x_receiver)`` and ``x' = x + g(x, sum_in w e', sum_out w e')``, where
    ``w = sigmoid(gate e')`` or 1. Shapes: x ``(points, width)``, e ``(edges, width)``, sender and receiver ``(edges,)``
    int64. Without ``edges``, e is not looked at and ``e' = f(x_sender, x_receiver)``: with ``gather = "mean"`` or
    ``"max"`` and ``both = false`` this is EdgeConv (Wang et al., arXiv:1801.07829, eq. 7, h linear in
    (x_i, x_j - x_i) at its first layer), residual as in ParticleNet (Qu and Gouskos, arXiv:1902.08570). With
    ``gather = "attention"`` the weights are ``w = softmax over the edges of a point of (gate e')``, one per head (graph
    attention, Brody et al., arXiv:2105.14491, with a perceptron for its one layer).
    """

    def __init__(self, config: MessageConfig) -> None:
        super().__init__()
        width, attention = config.width, config.gather == "attention"
        if attention and width % config.heads:
            raise UserError(f"model.heads: expected a divisor of the width {width}, found {config.heads}")
        self.config = config
        self.update_edge = PairMLP(width, width, config.hidden, norm=True, edge=config.edges)
        inputs = 3 * width if config.both else 2 * width
        self.update_point = MLP(inputs, width, MLPConfig(width=width, depth=config.hidden), norm=True)
        self.gate = nn.Linear(width, config.heads if attention else 1) if config.gate or attention else None

    def forward(self, x: Tensor, e: Tensor | None, sender: Tensor, receiver: Tensor) -> tuple[Tensor, Tensor | None]:
        """Points and edges after one round."""
        message = self.update_edge(x, e, sender, receiver)
        if self.config.edges and e is not None:
            e = message = e + message
        logit = None if self.gate is None else self.gate(message)
        ends = (receiver, sender) if self.config.both else (receiver,)
        found = [self._gathered(message, logit, end, x.shape[0]) for end in ends]
        return x + self.update_point(torch.cat([x, *found], dim=1)), e

    def _gathered(self, message: Tensor, logit: Tensor | None, end: Tensor, points: int) -> Tensor:
        """The messages of the edges of each point as one row, ``(points, width)``."""
        how = self.config.gather
        if logit is not None:
            weight = segment_softmax(logit, end, points) if how == "attention" else torch.sigmoid(logit)
            message = message * weight.repeat_interleave(message.shape[1] // weight.shape[1], dim=1)
        if how == "mean":
            return segment_mean(message, end, points)
        return segment_max(message, end, points) if how == "max" else segment_sum(message, end, points)
