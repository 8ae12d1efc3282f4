"""Losses against hand-computed values, and their gradients."""

from __future__ import annotations

import math

import pytest
import torch

from cloudchamber.losses import binary_focal, contrastive_hinge, cross_entropy

LOGIT = torch.tensor([0.0, math.log(3.0), -math.log(3.0)], dtype=torch.float64)  # probabilities 1/2, 3/4, 1/4
TARGET = torch.tensor([True, False, False])
RIGHT = (0.5, 0.25, 0.75)  # probability given to the right answer


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_binary_focal_by_hand(gamma: float) -> None:
    each = [-((1 - p) ** gamma) * math.log(p) for p in RIGHT]
    assert float(binary_focal(LOGIT, TARGET, gamma=gamma)) == pytest.approx(sum(each) / 3)
    weight = torch.tensor([1.0, 0.0, 3.0], dtype=torch.float64)
    assert float(binary_focal(LOGIT, TARGET, weight, gamma)) == pytest.approx((each[0] + 3 * each[2]) / 4)


@pytest.mark.parametrize("gamma", [0.0, 1.5])
def test_binary_focal_gradient(gamma: float) -> None:
    logit = LOGIT.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: binary_focal(x, TARGET, gamma=gamma), logit)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_binary_focal_of_very_sure_answers_is_finite(gamma: float) -> None:
    logit = torch.tensor([200.0, -200.0, 200.0, -200.0], requires_grad=True)
    loss = binary_focal(logit, torch.tensor([1, 0, 0, 1]), gamma=gamma)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(100.0)
    assert logit.grad is not None
    assert torch.isfinite(logit.grad).all()


def test_contrastive_hinge_by_hand() -> None:
    distance = torch.tensor([0.2, 0.8, 0.1, 0.9], dtype=torch.float64)
    same = torch.tensor([True, True, False, False])
    near, far = 0.2**2 / 2, 0.5 * (0.8 - 0.5 / 2)
    expected = (near + far) / 2 + (0.4**2 + 0.0) / 2
    assert float(contrastive_hinge(distance, same, margin=0.5)) == pytest.approx(expected)
    weight = torch.tensor([1.0, 3.0, 2.0, 0.0], dtype=torch.float64)
    expected = (near + 3 * far) / 4 + 0.4**2
    assert float(contrastive_hinge(distance, same, 0.5, weight)) == pytest.approx(expected)
    leaf = distance.requires_grad_()
    assert torch.autograd.gradcheck(lambda d: contrastive_hinge(d, same, 0.5, weight), leaf)


def test_losses_without_rows_are_zero_with_a_gradient() -> None:
    none = torch.zeros(0, requires_grad=True)
    for loss in (binary_focal(none, none > 0), contrastive_hinge(none, none > 0)):
        assert float(loss.detach()) == 0
        loss.backward()


def test_cross_entropy_leaves_out_what_is_unknown() -> None:
    logit, target = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 2, -1, 1, -1, 2])
    expected = torch.nn.functional.cross_entropy(logit[target >= 0], target[target >= 0])
    torch.testing.assert_close(cross_entropy(logit, target), expected)
    assert float(cross_entropy(logit, torch.full((6,), -1))) == 0
    assert float(cross_entropy(logit[:0], target[:0])) == 0
