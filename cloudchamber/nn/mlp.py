"""The multilayer perceptron, per row: points, edges or objects one by one."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, cast

from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class MLPConfig:
    """Settings of ``MLP``: hidden layers ``depth`` of ``width`` units."""

    kind: Literal["mlp"] = "mlp"
    width: int = 64
    depth: int = 2


class MLP(nn.Sequential):
    """``depth`` hidden layers with ReLU, then a linear layer: ``(rows, inputs) -> (rows, outputs)``.

    ``norm`` adds layer normalisation to the output (Ba et al., arXiv:1607.06450).
    """

    def __init__(self, inputs: int, outputs: int, config: MLPConfig, *, norm: bool = False) -> None:
        sizes = [inputs, *[config.width] * config.depth]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(sizes):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        layers.append(nn.Linear(sizes[-1], outputs))
        if norm:
            layers.append(nn.LayerNorm(outputs))
        super().__init__(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to rows, shape ``(rows, inputs)``."""
        return cast(Tensor, super().forward(x))  # type: ignore[no-untyped-call]
