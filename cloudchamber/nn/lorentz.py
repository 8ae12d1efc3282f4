"""Lorentz-equivariant message passing: scalars and four-vectors that move along one another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from cloudchamber.nn.message import PairMLP
from cloudchamber.nn.mlp import MLP, MLPConfig
from cloudchamber.nn.pairs import PAIR_FEATURES
from cloudchamber.ops import squash

STEP = 1e-3  # how far vectors move at first
SHARE = 0.05  # of the sum of messages: jets have dozens of particles


@dataclass(frozen=True, kw_only=True)
class LorentzConfig:
    """Settings of ``depth`` blocks ``Lorentz``: ``width`` of the scalars, ``hidden`` layers of perceptrons.

    ``beam``: pairs also have their ``pair_features``, which turns about the beam and boosts along it leave as they are.
    """

    kind: Literal["lorentz"] = "lorentz"
    width: int = 32
    depth: int = 4
    hidden: int = 1
    beam: bool = False


def inner(p: Tensor, q: Tensor) -> Tensor:
    """Minkowski's product ``E_p E_q - px_p px_q - py_p py_q - pz_p pz_q``, (px, py, pz, E) along the last axis."""
    product = p * q
    return product[..., 3] - product[..., :3].sum(-1)


def invariants(p: Tensor) -> Tensor:
    """``|p_i - p_j|^2`` and ``<p_i, p_j>`` of all pairs: ``(sets, points, 4) -> (sets, points, points, 2)``."""
    product = torch.cat([-p[..., :3], p[..., 3:]], dim=2) @ p.transpose(1, 2)
    square = inner(p, p)
    distance = square.unsqueeze(2) + square.unsqueeze(1) - 2 * product
    return torch.stack([distance, product], dim=3)


class Lorentz(nn.Module):
    """One round of LorentzNet (Gong et al., arXiv:2201.08187, eq. 3.2-3.4), over tables of sets of nearly one size.

    ``m_ij = f(h_i, h_j, psi(|p_i - p_j|^2), psi(<p_i, p_j>))``, ``p_i' = p_i + c mean_j g(m_ij) p_j`` and
    ``h_i' = h_i + u(h_i, c' sum_j w_ij m_ij)`` with ``w = sigmoid``: scalars h ``(sets, points, width)`` are invariant,
    vectors p ``(sets, points, 4)`` (px, py, pz, E) equivariant. Vectors and their products are kept in the precision of
    p: float64 for particles, as ``E^2 - p^2`` is the difference of large numbers. The last round of a stack moves no
    vectors (``move=False``), for none are read after it. With ``beam``, f also has the features ``known``
    ``(sets, points, points, 4)`` of pairs.
    """

    def __init__(self, config: LorentzConfig, *, move: bool = True) -> None:
        super().__init__()
        width = config.width
        self.message = PairMLP(width, width, config.hidden, inputs=2 + (PAIR_FEATURES if config.beam else 0))
        self.gate = nn.Linear(width, 1)
        self.push = MLP(width, 1, MLPConfig(width=width, depth=1)) if move else None
        self.update = MLP(2 * width, width, MLPConfig(width=width, depth=config.hidden), norm=True)

    def forward(self, h: Tensor, p: Tensor, others: Tensor, known: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Scalars and vectors after one round; others ``(sets, points, points)``: which pairs are two points."""
        pairs = squash(invariants(p).to(h))
        if known is not None:
            pairs = torch.cat([pairs, known], dim=3)
        message = torch.relu(self.message.pairs(h, pairs))
        weight = torch.sigmoid(self.gate(message)).squeeze(3) * others
        gathered = SHARE * (weight.unsqueeze(2) @ message).squeeze(2)
        if self.push is not None:
            push = self.push(message).squeeze(3).to(p) * others
            p = p + STEP * (push @ p) / others.sum(2, keepdim=True).clamp(min=1)
        return h + self.update(torch.cat([h, gathered], dim=2)), p
