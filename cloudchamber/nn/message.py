"""The graph-network block: edges look at their points, points sum their edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from cloudchamber.nn.mlp import MLP, MLPConfig
from cloudchamber.ops import gather, segment_sum


@dataclass(frozen=True, kw_only=True)
class MessageConfig:
    """Settings of a stack of ``Message`` blocks.

    ``width``: channels of points and edges. ``depth``: rounds of message passing; 0 judges each edge by itself.
    ``hidden``: hidden layers of each perceptron. ``gate``: weigh each message by a learned number in (0, 1).
    ``recompute``: keep no activations inside a block and compute them again for the gradient (less memory, more time).
    """

    kind: Literal["message"] = "message"
    width: int = 32
    depth: int = 4
    hidden: int = 1
    gate: bool = True
    recompute: bool = False


class PairMLP(nn.Module):
    """A perceptron on (edge, sender, receiver), its first layer split in three so that points are multiplied once.

    ``(edges, width), (points, width) x 2`` -> ``(edges, outputs)``.
    """

    def __init__(self, width: int, outputs: int, hidden: int, *, norm: bool = False) -> None:
        super().__init__()
        self.edge = nn.Linear(width, width)
        self.sender = nn.Linear(width, width, bias=False)
        self.receiver = nn.Linear(width, width, bias=False)
        self.rest = MLP(width, outputs, MLPConfig(width=width, depth=hidden - 1), norm=norm)

    def forward(self, x: Tensor, e: Tensor, sender: Tensor, receiver: Tensor) -> Tensor:
        """Judge every edge with its two points."""
        pair = self.edge(e) + gather(self.sender(x), sender) + gather(self.receiver(x), receiver)
        out: Tensor = self.rest(torch.relu(pair))
        return out


class Message(nn.Module):
    """One round of the interaction network (Battaglia et al., arXiv:1612.00222), residual, directed both ways.

    ``e' = e + f(e, x_sender, x_receiver)`` and ``x' = x + g(x, sum_in w e', sum_out w e')``, where
    ``w = sigmoid(gate e')`` or 1. Shapes: x ``(points, width)``, e ``(edges, width)``, sender and receiver ``(edges,)``
    int64.
    """

    def __init__(self, config: MessageConfig) -> None:
        super().__init__()
        width = config.width
        self.update_edge = PairMLP(width, width, config.hidden, norm=True)
        self.update_point = MLP(3 * width, width, MLPConfig(width=width, depth=config.hidden), norm=True)
        self.gate = nn.Linear(width, 1) if config.gate else None

    def forward(self, x: Tensor, e: Tensor, sender: Tensor, receiver: Tensor) -> tuple[Tensor, Tensor]:
        """Points and edges after one round."""
        e = e + self.update_edge(x, e, sender, receiver)
        message = e if self.gate is None else e * torch.sigmoid(self.gate(e))
        into, out = segment_sum(message, receiver, x.shape[0]), segment_sum(message, sender, x.shape[0])
        return x + self.update_point(torch.cat([x, into, out], dim=1)), e
