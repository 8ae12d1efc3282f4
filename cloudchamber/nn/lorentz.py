"""Lorentz-equivariant message passing: scalars and four-vectors that move along one another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from cloudchamber.nn.message import PairMLP
from cloudchamber.nn.mlp import MLP, MLPConfig
from cloudchamber.ops import gather, segment_sum

STEP = 1e-3  # how far vectors move at first


@dataclass(frozen=True, kw_only=True)
class LorentzConfig:
    """Settings of a stack of ``Lorentz`` blocks: ``width`` of the scalars, ``depth``, ``hidden`` layers of perceptrons.

    ``neighbours``: messages come from so many nearest points in (eta, phi), 0 for all points of the set. Who is near
    depends on the frame: only 0 is invariant.
    """

    kind: Literal["lorentz"] = "lorentz"
    width: int = 32
    depth: int = 4
    hidden: int = 1
    neighbours: int = 0


def inner(p: Tensor, q: Tensor) -> Tensor:
    """Minkowski's product ``E_p E_q - px_p px_q - py_p py_q - pz_p pz_q``, (px, py, pz, E) along the last axis."""
    product = p * q
    return product[..., 3] - product[..., :3].sum(-1)


def squash(z: Tensor) -> Tensor:
    """``sign(z) ln(1 + |z|)``: LorentzNet's psi, for invariants over many orders of magnitude."""
    return torch.sign(z) * torch.log1p(z.abs())


class Lorentz(nn.Module):
    """One round of LorentzNet (Gong et al., arXiv:2201.08187, eq. 3.2-3.4).

    ``m_ij = f(h_i, h_j, psi(|p_i - p_j|^2), psi(<p_i, p_j>))``, ``p_i' = p_i + c mean_j g(m_ij) p_j`` and
    ``h_i' = h_i + u(h_i, sum_j w_ij m_ij)`` with ``w = sigmoid``: scalars h ``(points, width)`` are invariant, vectors
    p ``(points, 4)`` (px, py, pz, E) equivariant. Vectors and their products are kept in the precision of p: float64
    for particles, as ``E^2 - p^2`` is the difference of large numbers. The last round of a stack moves no vectors
    (``move=False``), for none are read after it.
    """

    def __init__(self, config: LorentzConfig, *, move: bool = True) -> None:
        super().__init__()
        width = config.width
        self.message = PairMLP(width, width, config.hidden, inputs=2)
        self.gate = nn.Linear(width, 1)
        self.push = MLP(width, 1, MLPConfig(width=width, depth=1)) if move else None
        self.update = MLP(2 * width, width, MLPConfig(width=width, depth=config.hidden), norm=True)

    def forward(self, h: Tensor, p: Tensor, sender: Tensor, receiver: Tensor) -> tuple[Tensor, Tensor]:
        """Scalars and vectors after one round; sender and receiver ``(edges,)``."""
        q_from, q_to = gather(p, sender), gather(p, receiver)
        difference = q_to - q_from
        invariants = torch.stack([squash(inner(difference, difference)), squash(inner(q_to, q_from))], dim=1)
        message = torch.relu(self.message(h, invariants.to(h), sender, receiver))
        gathered = segment_sum(message * torch.sigmoid(self.gate(message)), receiver, h.shape[0])
        if self.push is not None:
            number = segment_sum(p.new_ones((receiver.shape[0], 1)), receiver, p.shape[0]).clamp(min=1)
            p = p + STEP * segment_sum(self.push(message).to(p) * q_from, receiver, p.shape[0]) / number
        return h + self.update(torch.cat([h, gathered], dim=1)), p
