"""Attention over sets: transformers, with inducing points, a bias for pairs, and pooling by learned seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from cloudchamber.errors import UserError
from cloudchamber.nn.mlp import MLP, MLPConfig

FORBIDDEN = -1e9  # added to the logit of a key that is not there; finite, so that a query without keys is no NaN


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """Settings of a stack of ``Attention`` blocks.

    ``width``: channels. ``depth``: blocks. ``heads`` of each attention. ``expand``: the hidden layer of a block's
    perceptron is so many times as wide. ``inducing``: points attend to so many learned points that attend to them, 0
    for attention among the points. ``pairs``: width of the perceptron that makes the bias from the features of pairs, 0
    for no bias. ``dropout``: fraction of the outputs of each part that is left out while training.
    """

    kind: Literal["attention"] = "attention"
    width: int = 64
    depth: int = 4
    heads: int = 4
    expand: int = 4
    inducing: int = 0
    pairs: int = 0
    dropout: float = 0.0


class MultiHead(nn.Module):
    """Scaled dot-product attention with heads (Vaswani et al., arXiv:1706.03762, section 3.2.2).

    ``out(softmax(q k^T / sqrt(d) + bias) v)``; the numbers are those of ``torch.nn.MultiheadAttention``.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise UserError(f"model.heads: expected a divisor of the width {width}, found {heads}")
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, y: Tensor, mask: Tensor, bias: Tensor | None = None) -> Tensor:
        """x ``(sets, n, width)`` attends to y ``(sets, m, width)``, of which ``mask`` (sets, m) tells the rows that are
        there; ``bias`` (sets, heads, n, m) is added to the logits."""
        query, key, value = (
            rows.unflatten(2, (self.heads, -1)).transpose(1, 2) for rows in (self.query(x), self.key(y), self.value(y))
        )
        absent = torch.where(mask, 0.0, FORBIDDEN).to(query.dtype)[:, None, None, :]
        logit = absent if bias is None else bias.to(query.dtype) + absent
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=logit)
        out: Tensor = self.out(found.transpose(1, 2).flatten(2))
        return out


class Layer(nn.Module):
    """Points attend to others, then a perceptron sees each: residual, normalised before and after each part.

    ``x' = x + norm(attend(norm x, norm y))``, ``x'' = x' + shrink(norm(gelu(grow(norm x'))))``: Shleifer et al.,
    arXiv:2110.09456, without the scales of heads, as in the particle transformer (arXiv:2202.03772).
    """

    def __init__(self, width: int, heads: int, expand: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend = MultiHead(width, heads)
        self.leave_out = nn.Dropout(dropout)
        self.perceptron = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, expand * width),
            nn.GELU(),
            nn.LayerNorm(expand * width),
            nn.Linear(expand * width, width),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor, y: Tensor, mask: Tensor, bias: Tensor | None = None) -> Tensor:
        """x ``(sets, n, width)`` after it has seen y ``(sets, m, width)`` where ``mask`` (sets, m) is set."""
        found = self.attend(self.before(x), self.before(y), mask, bias)
        x = x + self.leave_out(self.after(found))
        out: Tensor = x + self.perceptron(x)
        return out


class Attention(nn.Module):
    """Self-attention of a set; by way of ``inducing`` points where there are some, in time linear in the points.

    Set transformer, Lee et al., arXiv:1810.00825: SAB (eq. 8), or ISAB (eq. 9, 10).
    """

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        if config.inducing and config.pairs:
            raise UserError("model.inducing: pairs of points that do not attend to each other have no bias: pairs = 0")
        layer = (config.width, config.heads, config.expand, config.dropout)
        self.layer = Layer(*layer)
        self.collect = Layer(*layer) if config.inducing else None
        if config.inducing:
            self.inducing = nn.Parameter(torch.randn(config.inducing, config.width))

    def forward(self, x: Tensor, mask: Tensor, bias: Tensor | None = None) -> Tensor:
        """Points ``(sets, n, width)`` of sets after they have seen those of their set that are there, ``(sets, n)``."""
        if self.collect is None:
            out: Tensor = self.layer(x, x, mask, bias)
            return out
        middle = self.collect(self.inducing.expand(x.shape[0], -1, -1), x, mask)
        seen: Tensor = self.layer(x, middle, mask.new_ones(middle.shape[:2]))
        return seen


class Seeds(nn.Module):
    """Pooling: learned seeds attend to themselves and to the points, ``depth`` times; one row per set.

    Pooling by multi-head attention (arXiv:1810.00825, eq. 11) with the seeds among the keys: class attention (Touvron
    et al., arXiv:2103.17239). Without points a seed still has itself.
    """

    def __init__(self, width: int, heads: int, depth: int = 1, seeds: int = 1) -> None:
        super().__init__()
        self.seeds = nn.Parameter(0.02 * torch.randn(seeds, width))
        self.layers = nn.ModuleList(Layer(width, heads, 2) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``(sets, n, width)`` and which are there, ``(sets, n)`` -> ``(sets, seeds * width)``."""
        row = self.seeds.expand(x.shape[0], -1, -1)
        there = torch.cat([mask.new_ones(row.shape[:2]), mask], dim=1)
        for layer in self.layers:
            row = layer(row, torch.cat([row, x], dim=1), there)
        out: Tensor = self.norm(row)
        return out.flatten(1)


class PairBias(nn.Module):
    """A perceptron from the features of pairs of points to one number per head, the same in both directions.

    ``features`` of rows of two points, broadcast: ``(..., width)`` twice -> ``(..., features)``, symmetric.
    """

    def __init__(self, features: Callable[[Tensor, Tensor], Tensor], number: int, width: int, heads: int) -> None:
        super().__init__()
        self.features = features
        self.network = MLP(number, heads, MLPConfig(width=width, depth=2))

    def forward(self, x: Tensor, *, half: bool = True) -> Tensor:
        """Points ``(sets, n, width)`` -> bias ``(sets, heads, n, n)``; ``half`` works out each pair once, not twice."""
        if not half:
            every: Tensor = self.network(self.features(x.unsqueeze(2), x.unsqueeze(1)))
            return every.movedim(-1, 1)
        length = x.shape[1]
        row, column = torch.tril_indices(length, length, device=x.device)
        pairs = self.network(self.features(x[:, row], x[:, column]))
        place = torch.empty((length, length), dtype=torch.int64, device=x.device)
        place[row, column] = place[column, row] = torch.arange(len(row), device=x.device)
        full: Tensor = pairs.transpose(1, 2)[:, :, place]
        return full
