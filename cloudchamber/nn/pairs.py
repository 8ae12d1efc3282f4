"""What two particles are to each other: the features of pairs that the particle transformer looks at."""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: Of ``pair_features``, in order.
PAIR_FEATURES = 4
LEAST = 1e-8  # of what a logarithm is taken of


def pair_features(one: Tensor, other: Tensor) -> Tensor:
    """``ln delta, ln kT, ln z, ln m^2`` of pairs, from (pT in GeV, eta, phi) along the last axis, broadcast.

    ``delta = sqrt(d_eta^2 + d_phi^2)``, ``kT = min(pT) delta``, ``z = min(pT) / (pT_1 + pT_2)`` and
    ``m^2 = 4 pT_1 pT_2 (sinh^2(d_eta / 2) + sin^2(d_phi / 2))``, the mass of massless particles: particle transformer
    (Qu et al., arXiv:2202.03772, section 4), where the mass is ``E^2 - p^2``, which has no digits left in float32.
    Logarithms of at least ``LEAST``, brought to order one: ``(ln - a) / b`` with fixed a and b.
    """
    pt1, eta1, phi1 = one.unbind(-1)
    pt2, eta2, phi2 = other.unbind(-1)
    d_eta = eta1 - eta2
    d_phi = torch.remainder(phi1 - phi2 + math.pi, 2 * math.pi) - math.pi
    least = torch.minimum(pt1, pt2)
    delta = (d_eta.square() + d_phi.square()).clamp(min=LEAST**2).sqrt()
    mass2 = 4 * pt1 * pt2 * (torch.sinh(d_eta / 2).square() + torch.sin(d_phi / 2).square())
    parts = [delta, least * delta, least / (pt1 + pt2).clamp(min=LEAST), mass2]
    logs = torch.stack([part.clamp(min=LEAST).log() for part in parts], dim=-1)
    return (logs - logs.new_tensor([-1.5, -1.0, -2.0, -2.0])) / logs.new_tensor([1.5, 2.0, 1.5, 4.0])
