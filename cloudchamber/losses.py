"""Losses: tensors in, a scalar out."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from cloudchamber.ops import around, fixed_radius, gather, segment_argmax, segment_mean, segment_sum


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


def artanh_beta(logit: Tensor) -> Tensor:
    """``artanh(beta)`` of ``beta = sigmoid(logit)``, finite for every logit: ``softplus(logit + ln 2) / 2``."""
    return functional.softplus(logit + math.log(2)) / 2


def _numbered(object: Tensor) -> tuple[Tensor, Tensor, int]:
    """Rows of the points that have an object (not below 0), these numbered from 0, and how many objects there are."""
    own = torch.nonzero(object >= 0).squeeze(1)
    present, number = torch.unique(object[own], return_inverse=True)
    return own, number, len(present)


def _squared(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).square().sum(1)


def _tamed(square: Tensor, reach: float) -> Tensor:
    """``d^2``, given as such, to the distance ``reach``, and the straight line that goes on from there."""
    return torch.where(square <= reach**2, square, 2 * reach * square.clamp(min=reach**2).sqrt() - reach**2)


def _some(rows: Tensor, most: int) -> Tensor:
    return rows[torch.randperm(len(rows), device=rows.device)[:most]] if 0 < most < len(rows) else rows


def condensation(
    space: Tensor,
    logit: Tensor,
    object: Tensor,
    event: Tensor,
    *,
    noise: Tensor | None = None,
    charge: float = 0.1,
    reach: float = 10.0,
    neighbours: int = 100,
    sample: int = 0,
) -> dict[str, Tensor]:
    """Object condensation: ``attract``, ``repel``, ``beta`` and ``noise``, the terms of the loss, each without weight.

    Kieseler, arXiv:2002.03605. With ``beta = sigmoid(logit)`` and the charges ``q = artanh(beta)^2 + charge``
    the point of largest charge, alpha, stands for its object k, and the N points x_j are drawn to it or driven off::

        attract = 1/N sum_k sum_(j in k) q_j q_alpha |x_j - x_alpha|^2
        repel   = 1/N sum_k sum_(j not in k) q_j q_alpha max(0, 1 - |x_j - x_alpha|)
        beta    = mean over objects of 1 - beta_alpha
        noise   = mean of beta over the points of noise

    Three changes for full events. Attraction is linear from the distance ``reach`` on, for objects that cannot be
    joined would outweigh all others. Only the ``neighbours`` nearest points of an alpha are driven off; where there are
    more objects than ``sample`` (not 0) only from so many, drawn at random, the sum scaled up.

    Shapes: ``space`` (points, dimensions); ``logit``, ``object`` (its number, below 0 for none), ``event`` and
    ``noise``, which points are noise (by default all without an object), (points,). Memory: points + objects times
    neighbours. 0 where there is nothing to sum.
    """
    beta, q = torch.sigmoid(logit), artanh_beta(logit).square() + charge
    own, number, objects = _numbered(object)
    alpha = own[segment_argmax(q.detach()[own], number, objects)]
    mine = alpha[number]
    pull = q[own] * q[mine] * _tamed(_squared(gather(space, own), gather(space, mine)), reach)
    chosen = _some(alpha, sample)
    at, near = (rows.to(space.device) for rows in fixed_radius(space, 1.0, neighbours, event, chosen))
    other = object[at] != object[near]
    at, near = at[other], near[other]
    distance = (_squared(gather(space, near), gather(space, at)) + 1e-12).sqrt()
    push = q[near] * q[at] * functional.relu(1 - distance)
    points, scale = max(len(space), 1), len(alpha) / max(len(chosen), 1)
    spurious = (object < 0 if noise is None else noise).to(beta)
    return {
        "attract": pull.sum() / points,
        "repel": push.sum() * scale / points,
        "beta": (1 - beta[alpha]).sum() / max(objects, 1),
        "noise": (beta * spurious).sum() / spurious.sum().clamp(min=1),
    }


def payload(error: Tensor, logit: Tensor, object: Tensor) -> Tensor:
    """Mean over objects of the errors of their points, weighted by ``xi = artanh(sigmoid(logit))^2``.

    Kieseler, arXiv:2002.03605, the form that weighs all objects alike::

        1/K sum_k (sum_(i in k) xi_i error_i) / (sum_(i in k) xi_i)

    ``error`` (points, columns) is summed over the columns; ``logit`` and ``object`` (points,) as in ``condensation``.
    """
    own, number, objects = _numbered(object)
    weight = artanh_beta(logit[own]).square().clamp(min=1e-6).unsqueeze(1)
    total = segment_sum(weight, number, objects)
    each = segment_sum(weight * error[own].sum(1, keepdim=True), number, objects) / total
    return each.sum() / max(objects, 1)


def influencer(
    user: Tensor,
    leader: Tensor,
    object: Tensor,
    event: Tensor,
    *,
    margin: float = 1.0,
    apart: float = 1.0,
    reach: float = 10.0,
    neighbours: int = 100,
    sample: int = 0,
    joint: bool = False,
) -> dict[str, Tensor]:
    """The influencer loss: ``attract``, ``repel`` and ``apart``, its terms, each without weight.

    Murnane, EPJ Web Conf. 295, 09016 (2024). Every point is a user u_i and an influencer f_i in one space::

        attract = mean over objects of exp(mean over j in k of ln(mean over i in k of |u_i - f_j|^2))
        repel   = mean over near pairs of different objects of max(0, margin - |u_i - f_j|)^2
        apart   = mean over near pairs of points of max(0, apart - |f_i - f_j|)^2

    The geometric mean over influencers is small as soon as one of them is near the users of its object; ``apart`` takes
    care that the others are not. The inner mean is ``|f_j - u|^2`` plus the variance of the users around their mean u:
    no pair is looked at. From the distance ``reach`` on attraction grows like a distance, as in ``condensation``. The
    pairs are those of ``sample`` influencers (0: all) with their ``neighbours`` nearest users and influencers within
    the margins. The influencer of a point without object keeps off all users but its own.

    ``joint``: the gradient of ``repel`` moves an influencer together with the user of its point. Else, where users lie
    closer than about half the margin, ``repel`` grows smaller soonest by one shift of all influencers against all
    users, which tells no objects apart, and a training ends there.

    Shapes: ``user`` and ``leader`` (points, dimensions), ``object`` (number, below 0 for none) and ``event`` (points,).
    Memory: points + influencers times neighbours. 0 where there is nothing to average.
    """
    own, number, objects = _numbered(object)
    mine = gather(user, own)
    middle = segment_mean(mine, number, objects)
    spread = segment_mean(_squared(mine, gather(middle, number)).unsqueeze(1), number, objects)
    square = _squared(gather(leader, own), gather(middle, number)).unsqueeze(1) + gather(spread, number)
    mean = segment_mean((square + 1e-6).log(), number, objects).exp()
    chosen = _some(torch.arange(len(leader), device=leader.device), sample)
    at, near = (
        rows.to(leader.device) for rows in around(leader[chosen], user, margin, neighbours, event[chosen], event)
    )
    at = chosen[at]
    other = (object[at] != object[near]) | (object[at] < 0) & (at != near)
    at, near = at[other], near[other]
    one, two = (rows.to(leader.device) for rows in fixed_radius(leader, apart, neighbours, event, chosen))
    pushed = user + (leader - user).detach() if joint else leader
    return {
        "attract": _tamed(mean, reach).sum() / max(objects, 1),
        "repel": _hinge(gather(pushed, at), gather(user, near), margin),
        "apart": _hinge(gather(leader, one), gather(leader, two), apart),
    }


def _hinge(x: Tensor, y: Tensor, margin: float) -> Tensor:
    distance = (_squared(x, y) + 1e-12).sqrt()
    return contrastive_hinge(distance, torch.zeros_like(distance), margin)
