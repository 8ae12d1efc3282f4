"""Losses: tensors in, a scalar out."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def binary_focal(logit: Tensor, target: Tensor, weight: Tensor | None = None, gamma: float = 0.0) -> Tensor:
    """Weighted mean of ``-(1 - p_t)^gamma log p_t`` with ``p_t`` the probability given to the right answer.

    Lin et al., arXiv:1708.02002, eq. 4; ``gamma = 0`` is the binary cross-entropy. Shapes ``(rows,)``; 0 without rows.
    """
    loss = functional.binary_cross_entropy_with_logits(logit, target.to(logit), reduction="none")
    if gamma:
        wrong = functional.logsigmoid(torch.where(target.to(torch.bool), -logit, logit))  # log(1 - p_t)
        loss = loss * torch.exp(gamma * wrong)
    weight = torch.ones_like(loss) if weight is None else weight
    return (loss * weight).sum() / weight.sum().clamp(min=1e-12)


def cross_entropy(logit: Tensor, target: Tensor) -> Tensor:
    """Mean of ``-ln softmax(logit)[target]`` over the rows with a target of at least 0; 0 where there are none.

    Shapes ``(rows, classes)`` and ``(rows,)``.
    """
    total = functional.cross_entropy(logit, target, ignore_index=-1, reduction="sum")
    return total / (target >= 0).sum().clamp(min=1)


def contrastive_hinge(distance: Tensor, same: Tensor, margin: float = 1.0, weight: Tensor | None = None) -> Tensor:
    """Pull pairs of one object together, push others apart: ``y h(d) + (1 - y) max(0, margin - d)^2``, mean.

    Hadsell, Chopra and LeCun, CVPR 2006, eq. 4, with two changes. Attraction and repulsion are averaged separately, so
    that their balance does not depend on how many pairs are sampled. ``h`` is Huber's function, ``d^2 / 2`` to the
    margin and linear beyond: the few pairs that cannot be joined would otherwise shrink the whole space.
    ``distance`` and ``same`` have shape ``(pairs,)``.
    """
    weight = torch.ones_like(distance) if weight is None else weight
    pull = same.to(distance) * weight
    push = (1 - same.to(distance)) * weight
    near = functional.huber_loss(distance, torch.zeros_like(distance), reduction="none", delta=margin)
    attract = (pull * near).sum() / pull.sum().clamp(min=1e-12)
    repel = (push * functional.relu(margin - distance).square()).sum() / push.sum().clamp(min=1e-12)
    return attract + repel
