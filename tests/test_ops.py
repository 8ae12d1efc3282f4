"""Ragged operations against naive ones: values, gradients, empty inputs, threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numba
import numpy as np
import pytest
import torch
from torch import Tensor

from cloudchamber.ops import (
    around,
    connected_components,
    fixed_radius,
    gather,
    group,
    segment_argmax,
    segment_max,
    segment_mean,
    segment_softmax,
    segment_sum,
)
from cloudchamber.threads import use_threads

Segment = Callable[[Tensor, Tensor, int], Tensor]


def rows(count: int, segments: int, width: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random rows, and their segments, some of which stay empty."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, width, generator=generator, dtype=torch.float64)
    return x, torch.randint(max(segments - 2, 1), (count,), generator=generator)


def naive(x: Tensor, index: Tensor, segments: int, what: str) -> Tensor:
    """Segment by segment."""
    result = torch.zeros(segments if what != "softmax" else len(x), x.shape[1], dtype=x.dtype)
    for segment in range(segments):
        own = x[index == segment]
        if not len(own):
            continue
        if what == "softmax":
            result[index == segment] = own.softmax(0)
        else:
            result[segment] = {"sum": own.sum(0), "mean": own.mean(0), "max": own.amax(0)}[what]
    return result


OPERATIONS: dict[str, Segment] = {
    "sum": segment_sum,
    "mean": segment_mean,
    "max": segment_max,
    "softmax": segment_softmax,
}


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of threads of numba and torch, and puts it back."""
    before = numba.get_num_threads(), torch.get_num_threads()
    yield use_threads
    numba.set_num_threads(before[0])
    torch.set_num_threads(before[1])


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize(("count", "segments"), [(40, 9), (7, 30), (1, 1), (0, 4), (0, 0)])
def test_segment_operations_equal_naive_ones(name: str, count: int, segments: int) -> None:
    x, index = rows(count, segments)
    found = OPERATIONS[name](x, index, segments)
    torch.testing.assert_close(found, naive(x, index, segments, name))
    assert OPERATIONS[name](x.float(), index, segments).dtype == torch.float32


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("count", [12, 0])
def test_gradients(name: str, count: int) -> None:
    x, index = rows(count, 5)
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: OPERATIONS[name](x, index, 5), x)


def test_gradients_of_gather_and_second_derivatives() -> None:
    x, index = rows(6, 6)
    x.requires_grad_()
    chosen = torch.tensor([0, 0, 5, 2, 2, 2])
    assert torch.equal(gather(x, chosen), x[chosen])
    assert torch.autograd.gradcheck(lambda x: gather(x, chosen), x)
    assert torch.autograd.gradgradcheck(lambda x: segment_sum(gather(x, chosen) ** 3, index, 6), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_compiled_sum_equals_index_add(dtype: torch.dtype) -> None:
    x, index = rows(500, 20, width=5)
    x = x.to(dtype)
    expected = torch.zeros(20, 5, dtype=dtype).index_add(0, index, x)
    found = segment_sum(x, index, 20)
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(segment_sum(x.t().contiguous().t(), index, 20), found, rtol=0, atol=0)
    assert segment_sum(x[:, 0], index, 20).shape == (20,)


def test_sums_are_the_same_bits_for_any_number_of_threads(threads: Callable[[int], None]) -> None:
    x, index = rows(20_000, 50, width=8)
    found = []
    for number in (1, 2):
        threads(number)
        leaf = x.float().requires_grad_()
        out = segment_sum(gather(leaf, index.flip(0)), index, 50)
        (out * out).sum().backward()
        found.append((out.detach(), leaf.grad))
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("wrong", [-1, 4])
def test_a_row_of_no_segment_is_an_error(wrong: int) -> None:
    with pytest.raises(IndexError, match="segment"):
        segment_sum(torch.ones(2, 1), torch.tensor([0, wrong]), 4)


def test_group_keeps_the_order_of_rows() -> None:
    offset, order = group(torch.tensor([2, 0, 2, 1, 0]), 4)
    assert offset.tolist() == [0, 2, 3, 5, 5]
    assert order.tolist() == [1, 4, 3, 0, 2]


def brute(x: Tensor, radius: float, k: int, event: Tensor) -> list[set[int]]:
    """The neighbours of every point, from all distances."""
    distance = (x[:, None] - x[None]).square().sum(-1)
    distance[event[:, None] != event[None]] = torch.inf
    distance.fill_diagonal_(torch.inf)
    return [
        {int(j) for j in row.argsort(stable=True)[:k] if row[j] <= radius**2} for row in distance.double().unbind(0)
    ]


@pytest.mark.parametrize("dims", [1, 2, 3, 5])
@pytest.mark.parametrize(("k", "radius"), [(3, 0.3), (100, 0.2), (1, 5.0), (100, 1e-3)])
def test_fixed_radius_finds_what_brute_force_finds(dims: int, k: int, radius: float) -> None:
    x = torch.rand(120, dims, generator=torch.Generator().manual_seed(dims), dtype=torch.float64)
    event = torch.arange(120) // 50
    point, near = fixed_radius(x, radius, k, event)
    found: list[set[int]] = [set() for _ in x]
    for i, j in zip(point.tolist(), near.tolist(), strict=True):
        found[i].add(j)
    assert len(point) == sum(map(len, found))
    assert found == brute(x, radius, k, event)
    asked = torch.tensor([7, 3])
    some, _ = fixed_radius(x, radius, k, event, asked)
    assert some.tolist() == [7] * len(found[7]) + [3] * len(found[3])


@pytest.mark.parametrize("dims", [1, 2, 3, 5])
def test_around_finds_what_brute_force_finds(dims: int) -> None:
    torch.manual_seed(dims)
    x, at = torch.randn(80, dims), 2 * torch.randn(50, dims)
    at[:3] = 1e9 * torch.tensor([[1.0], [-1.0], [torch.nan]])
    event, at_event = torch.randint(2, (80,)), torch.randint(2, (50,))
    place, point = around(at, x, 0.9, 80, at_event, event)
    near = (torch.cdist(at.double(), x.double()) <= 0.9) & (at_event[:, None] == event)
    assert set(zip(place.tolist(), point.tolist(), strict=True)) == set(map(tuple, torch.nonzero(near).tolist()))
    place, point = around(at, x, 0.9, 1, at_event, event)
    assert torch.equal(place, torch.nonzero(near.any(1))[:, 0])
    distance = torch.where(near, torch.cdist(at.double(), x.double()), torch.inf)
    assert torch.equal(point, distance.argmin(1)[place])
    for few in (around(at[:0], x, 1.0, 3, event[:0], event), around(at, x[:0], 1.0, 3, at_event, event[:0])):
        assert [len(rows) for rows in few] == [0, 0]


def test_segment_argmax_is_the_first_of_the_largest() -> None:
    x = torch.tensor([1.0, 5.0, 5.0, -2.0, -1.0])
    index = torch.tensor([0, 0, 0, 2, 2])
    assert segment_argmax(x, index, 4).tolist() == [1, 5, 4, 5]
    assert segment_argmax(x[:0], index[:0], 0).tolist() == []


def test_fixed_radius_of_odd_clouds() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    for found in fixed_radius(torch.zeros(0, 3), 0.1, 4, none):
        assert found.shape == (0,)
    for x in (torch.zeros(1, 3), torch.tensor([[0.0], [1e30]]), torch.tensor([[0.0], [torch.nan], [torch.inf]])):
        assert len(fixed_radius(x, 0.1, 4, torch.zeros(len(x), dtype=torch.int64))[0]) == 0
    assert len(fixed_radius(torch.zeros(5, 3), 0.1, 0, torch.zeros(5, dtype=torch.int64))[0]) == 0
    point, near = fixed_radius(torch.zeros(5, 3), 0.1, 4, torch.zeros(5, dtype=torch.int64))
    assert len(point) == 20
    assert (point != near).all()
    wide = torch.tensor([[0.0, 0, 0], [1e6, 0, 0], [1e6, 1e-3, 0], [0, 1e6, 1e6]])  # a grid of many empty cells
    assert fixed_radius(wide, 0.1, 4, torch.zeros(4, dtype=torch.int64))[0].tolist() == [1, 2]


@pytest.mark.parametrize("edges", [0, 1, 30, 300])
def test_connected_components_equal_spreading_labels(edges: int) -> None:
    random = np.random.default_rng(edges)
    sender, receiver = random.integers(0, 60, (2, edges))
    label = np.arange(60)
    for _ in range(60):
        for a, b in zip(sender, receiver, strict=True):
            label[a] = label[b] = min(label[a], label[b])
    count, found = connected_components(sender, receiver, 60)
    assert count == len(np.unique(label))
    assert found.dtype == np.int64
    assert (np.unique(np.stack([label, found]), axis=1).shape[1]) == count  # the same partition


def test_connected_components_without_points() -> None:
    none = np.zeros(0, np.int64)
    count, found = connected_components(none, none, 0)
    assert (count, found.shape) == (0, (0,))
