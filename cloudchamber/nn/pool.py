"""Pooling: the points of each set to one row."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from cloudchamber.nn.attention import Seeds
from cloudchamber.sets import Sets

Pooling = Literal["sum", "mean", "max", "attention"]


class Pool(nn.Module):
    """``(points, width)`` -> ``(sets, width)``: sum, mean or maximum of the rows of a set, or attention by a seed.

    Rows are multiplied by the ``weight`` of their point ``(points,)`` where one is given. Deep sets, Zaheer et al.,
    arXiv:1703.06114; with the fraction of the transverse momentum for a weight, and inputs that are angles, the sum is
    that of an energy flow network (Komiske, Metodiev and Thaler, arXiv:1810.05165, eq. 1.3).
    """

    def __init__(self, how: Pooling, width: int, heads: int = 1, depth: int = 1) -> None:
        super().__init__()
        self.how = how
        self.seeds = Seeds(width, heads, depth) if how == "attention" else None

    def forward(self, x: Tensor, sets: Sets, weight: Tensor | None = None) -> Tensor:
        """One row per set; 0 for a set without points, where there is no seed."""
        if weight is not None:
            x = x * weight.unsqueeze(1)
        if self.seeds is not None:
            tables = zip(sets.spread(x), sets.tables, strict=True)
            return sets.by_set([self.seeds(dense, table.mask) for dense, table in tables])
        return {"sum": sets.sum, "mean": sets.mean, "max": sets.max}[self.how](x)
