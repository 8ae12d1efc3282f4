"""Object condensation and the influencer loss: by hand, their gradients, and how many pairs they look at."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cloudchamber import losses
from cloudchamber.losses import artanh_beta, condensation, influencer, payload

#: Two objects of two points each, and a point of noise, on a line. Betas 1/2, 1/4, 1/4, 3/4 and 1/2.
SPACE = torch.tensor([[0.0], [0.5], [0.75], [2.0], [-0.5]], dtype=torch.float64)
BETA = (0.5, 0.25, 0.25, 0.75, 0.5)
LOGIT = torch.tensor([math.log(b / (1 - b)) for b in BETA], dtype=torch.float64)
OBJECT = torch.tensor([4, 4, 7, 7, -1])
EVENT = torch.zeros(5, dtype=torch.int64)
Q = [math.atanh(b) ** 2 + 0.1 for b in BETA]


def cloud(points: int, seed: int = 0, objects: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Places, logits, objects with noise, events of a random cloud of three events."""
    torch.manual_seed(seed)
    space = torch.randn(points, 3, dtype=torch.float64)
    event = torch.arange(points) * 3 // max(points, 1)
    object = torch.where(torch.rand(points) < 0.2, -1, event * objects + torch.randint(objects, (points,)))
    return space, torch.randn(points, dtype=torch.float64), object, event


def test_artanh_of_beta() -> None:
    logit = torch.linspace(-8, 8, 33, dtype=torch.float64)
    torch.testing.assert_close(artanh_beta(logit), torch.atanh(torch.sigmoid(logit)))
    far = torch.tensor([-1e4, 1e4], requires_grad=True)
    value = artanh_beta(far)
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert far.grad is not None
    assert far.grad.tolist() == [0.0, 0.5]


def test_condensation_by_hand() -> None:
    parts = condensation(SPACE, LOGIT, OBJECT, EVENT)
    # Points 0 and 3 stand for their objects.
    pull = Q[1] * Q[0] * 0.5**2 + Q[2] * Q[3] * 1.25**2
    push = Q[0] * (Q[2] * 0.25 + Q[4] * 0.5)  # point 3 is further than 1 from all others
    expected = {"attract": pull / 5, "repel": push / 5, "beta": (0.5 + 0.25) / 2, "noise": 0.5}
    assert {name: float(part) for name, part in parts.items()} == pytest.approx(expected)
    parts = condensation(SPACE, LOGIT, OBJECT, EVENT, reach=1.0, charge=0.0, noise=OBJECT == 7)
    pull = (Q[1] - 0.1) * (Q[0] - 0.1) * 0.5**2 + (Q[2] - 0.1) * (Q[3] - 0.1) * (2 * 1.25 - 1)
    assert float(parts["attract"]) == pytest.approx(pull / 5)
    assert float(parts["noise"]) == pytest.approx((0.25 + 0.75) / 2)


def test_payload_by_hand() -> None:
    error = torch.tensor([[1.0], [2.0], [3.0], [4.0], [99.0]], dtype=torch.float64)
    xi = [math.atanh(b) ** 2 for b in BETA]
    first = (xi[0] * 1 + xi[1] * 2) / (xi[0] + xi[1])
    second = (xi[2] * 3 + xi[3] * 4) / (xi[2] + xi[3])
    assert float(payload(error, LOGIT, OBJECT)) == pytest.approx((first + second) / 2)
    assert float(payload(error.repeat(1, 2), LOGIT, OBJECT)) == pytest.approx(first + second)


def test_influencer_by_hand() -> None:
    leader = SPACE + torch.tensor([[0.0], [1.0], [0.0], [0.0], [0.25]], dtype=torch.float64)  # 0, 1.5, 0.75, 2, -0.25
    parts = influencer(SPACE, leader, OBJECT, EVENT, margin=1.0, apart=0.5)
    first = math.sqrt((0**2 + 0.5**2) / 2 * (1.5**2 + 1.0**2) / 2)
    second = math.sqrt((0**2 + 1.25**2) / 2 * (1.25**2 + 0**2) / 2)
    assert float(parts["attract"]) == pytest.approx((first + second) / 2, rel=1e-5)
    # Influencer to user of another object: 0 - 2, 0 - 4; 1 - 2, 1 - 3; 2 - 0, 2 - 1; none of 3; 4 - 0, 4 - 1.
    near = [0.75, 0.5, 0.75, 0.5, 0.75, 0.25, 0.25, 0.75]
    near += [1.0]  # 4 - 2, just at the margin
    assert float(parts["repel"]) == pytest.approx(sum((1 - d) ** 2 for d in near) / len(near))
    # Influencers 0 - 4 and 1 - 3, each way.
    assert float(parts["apart"]) == pytest.approx((2 * 0.25**2 + 2 * 0.0**2) / 4)


def brute(space: Tensor, logit: Tensor, object: Tensor, event: Tensor) -> dict[str, Tensor]:
    """Condensation point by point and object by object, every pair."""
    beta = torch.sigmoid(logit)
    q = torch.atanh(beta) ** 2 + 0.1
    pull = push = miss = space.new_zeros(())
    present = [int(k) for k in object.unique() if k >= 0]
    for k in present:
        rows = torch.nonzero(object == k)[:, 0]
        alpha = rows[q[rows].argmax()]
        miss = miss + 1 - beta[alpha]
        for j in range(len(space)):
            distance = (space[j] - space[alpha]).norm()
            if object[j] == k:
                pull = pull + q[j] * q[alpha] * distance**2
            elif event[j] == event[alpha]:
                push = push + q[j] * q[alpha] * (1 - distance).clamp(min=0)
    noise = beta[object < 0].mean()
    return {"attract": pull / len(space), "repel": push / len(space), "beta": miss / len(present), "noise": noise}


def test_condensation_is_the_sum_over_all_pairs() -> None:
    given = cloud(60)
    found, expected = condensation(*given, reach=99.0), brute(*given)
    for name, part in expected.items():
        torch.testing.assert_close(found[name], part, rtol=1e-9, atol=1e-9)


def total(loss: Callable[..., dict[str, Tensor]], *given: Tensor, **settings: float) -> Tensor:
    return torch.stack(list(loss(*given, **settings).values())).sum()


def test_gradients_are_those_of_finite_differences() -> None:
    space, logit, object, event = cloud(24)
    places = (space.requires_grad_(), logit.requires_grad_())
    assert torch.autograd.gradcheck(lambda x, z: total(condensation, x, z, object, event, reach=1.5), places)
    error = torch.rand(24, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda e, z: payload(e, z, object), (error, logit))
    leader = (space + torch.randn_like(space)).detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda u, f: total(influencer, u, f, object, event, reach=1.5), (space, leader))


def test_jointly_an_influencer_is_repelled_as_far_as_the_user_of_its_point() -> None:
    space, _, object, event = cloud(24)
    space.requires_grad_()
    leader = (space + 0.3 * torch.randn_like(space)).detach().requires_grad_()
    apart, joint = (influencer(space, leader, object, event, joint=joint)["repel"] for joint in (False, True))
    torch.testing.assert_close(joint, apart)
    user, own = torch.autograd.grad(apart, (space, leader))
    moved, alone = torch.autograd.grad(joint, (space, leader), allow_unused=True)
    assert float(own.norm()) > 0
    torch.testing.assert_close(moved, user + own)
    assert alone is None or float(alone.abs().max()) == 0


@pytest.mark.parametrize("points", [0, 1, 5])
@pytest.mark.parametrize("kind", ["noise", "one object"])
def test_small_clouds(points: int, kind: str) -> None:
    space = torch.zeros(points, 3, requires_grad=True)  # all at one place
    logit = torch.zeros(points, requires_grad=True)
    object = torch.full((points,), -1 if kind == "noise" else 3)
    event = torch.zeros(points, dtype=torch.int64)
    parts = [condensation(space, logit, object, event), influencer(space, space + 0.0, object, event)]
    for part in parts:
        assert all(torch.isfinite(value) for value in part.values())
    loss = sum(torch.stack(list(part.values())).sum() for part in parts)
    assert isinstance(loss, Tensor)
    (loss + payload(space, logit, object)).backward()
    for leaf in (space, logit):
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()


def test_the_order_of_points_and_the_numbers_of_objects_do_not_matter() -> None:
    space, logit, object, event = cloud(50)
    order = torch.randperm(50)
    renamed = torch.where(object >= 0, 1000 - 7 * object, -2)[order]
    for loss, second in ((condensation, logit), (influencer, space * 0.9)):
        found, expected = loss(space[order], second[order], renamed, event[order]), loss(space, second, object, event)
        for name, part in expected.items():
            torch.testing.assert_close(found[name], part)


def test_events_do_not_see_one_another() -> None:
    space, logit, object, event = cloud(60)
    parts = [condensation(*(rows[event == number] for rows in (space, logit, object, event))) for number in range(3)]
    whole = condensation(space, logit, object, event)
    mean = sum(float(part["repel"]) * int((event == number).sum()) for number, part in enumerate(parts)) / 60
    assert float(whole["repel"]) == pytest.approx(mean)


def test_a_sample_of_objects_gives_the_sum_on_average() -> None:
    given = cloud(300, objects=20)
    exact = float(condensation(*given)["repel"])
    torch.manual_seed(1)
    drawn = torch.tensor([float(condensation(*given, sample=12)["repel"]) for _ in range(200)])
    assert abs(float(drawn.mean()) - exact) < 4 * float(drawn.std()) / 200**0.5
    assert float(drawn.std()) > 0


@pytest.mark.parametrize("loss", [condensation, influencer])
def test_pairs_and_rows_grow_like_the_points(
    loss: Callable[..., dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At constant density, and when all points lie at one place: the largest tensor is linear in the points."""
    rows: list[int] = []

    def count(name: str) -> None:
        original = getattr(losses, name)

        def counted(x: Tensor, *rest: object) -> object:
            result = original(x, *rest)
            rows.append(max(len(part) for part in (x, *(result if isinstance(result, tuple) else (result,)))))
            return result

        monkeypatch.setattr(losses, name, counted)

    for name in ("fixed_radius", "around", "gather", "_squared"):
        count(name)
    for collapsed in (False, True):
        largest = []
        for points in (500, 1000, 2000):
            rows.clear()
            generator = torch.Generator().manual_seed(0)
            space = torch.rand(points, 3, generator=generator) * (0.0 if collapsed else points ** (1 / 3))
            object, event = torch.arange(points) // 10, torch.zeros(points, dtype=torch.int64)
            loss(space, space + 0.01 if loss is influencer else space[:, 0], object, event, neighbours=8)
            largest.append(max(rows))
        assert largest[1] <= 2.3 * largest[0]
        assert largest[2] <= 2.3 * largest[1]
        assert largest[2] <= 10 * 2000  # not 2000 x 2000
