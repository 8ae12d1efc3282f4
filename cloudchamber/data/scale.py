"""Inputs of any range brought to order one."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Scale(nn.Module):
    """``(asinh(x / s) - mean) / deviation`` per column: linear for small values, logarithmic for large ones.

    ``s`` is the lower quartile of ``|x|`` where it is not zero. Shapes: ``(rows, columns)`` in and out.
    """

    small: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.register_buffer("small", torch.ones(columns))
        self.register_buffer("mean", torch.zeros(columns))
        self.register_buffer("deviation", torch.ones(columns))

    def fit(self, x: Tensor) -> None:
        """Learn the three numbers of each column; they stay as they are without rows."""
        if x.numel() == 0:
            return
        for column in range(x.shape[1]):
            values = x[:, column].abs()
            values = values[values > 0]
            self.small[column] = values.double().sort().values[len(values) // 4] if len(values) else 1.0
        squashed = torch.asinh(x / self.small)
        self.mean.copy_(squashed.mean(0))
        self.deviation.copy_(squashed.std(0, correction=min(1, len(x) - 1)).clamp(min=1e-6))

    def forward(self, x: Tensor) -> Tensor:
        """Scaled columns."""
        return (torch.asinh(x / self.small) - self.mean) / self.deviation
