"""Ragged sets: tables there and back, reductions, and neighbours against brute force."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cloudchamber.sets import DENSE, Sets, complete, nearest, sampled

COUNTS = {
    "mixed": [3, 0, 17, 8, 1, 9, 16, 0, 40],
    "one": [5],
    "empty ones": [0, 0],
    "none": [],
}


def both(count: list[int]) -> list[Sets]:
    """The same sets, by their sizes and by a table."""
    counts = torch.tensor(count, dtype=torch.int64)
    start = counts.cumsum(0) - counts
    column = torch.arange(max([*count, 0]) + 7)
    slot = torch.where(column < counts.unsqueeze(1), start.unsqueeze(1) + column, -1)
    return [Sets.of(counts), Sets.of_table(slot, sum(count))]


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("form", [0, 1])
def test_tables_there_and_back(name: str, form: int) -> None:
    count = COUNTS[name]
    sets = both(count)[form]
    x = torch.randn(sum(count), 3, dtype=torch.float64)
    assert (sets.number, sets.count.tolist()) == (len(count), count)
    assert torch.equal(sets.index, torch.repeat_interleave(torch.arange(len(count)), torch.tensor(count).long()))
    tables = sets.spread(x)
    if tables:
        assert torch.equal(sets.rows(tables), x)
        torch.testing.assert_close(sets.by_set([table.sum(1) for table in tables]), sets.sum(x))
    parts = x.split(count) if count else []
    for found, reduce in ((sets.sum(x), torch.sum), (sets.mean(x), torch.mean), (sets.max(x), torch.amax)):
        assert found.shape == (len(count), 3)
        for row, part in zip(found, parts, strict=True):
            torch.testing.assert_close(row, reduce(part, 0) if len(part) else torch.zeros(3, dtype=torch.float64))


def test_few_places_stay_empty() -> None:
    sets = Sets.of(torch.randint(0, 200, (300,)))
    assert all(int((~table.mask).sum(1).max()) < 8 for table in sets.tables)


def pairs(edges: tuple[Tensor, Tensor]) -> set[tuple[int, int]]:
    return {(s, r) for s, r in zip(*(ends.tolist() for ends in edges), strict=True) if s != r}


@pytest.mark.parametrize("form", [0, 1])
def test_neighbours_equal_those_of_brute_force(form: int) -> None:
    count = COUNTS["mixed"]
    sets = both(count)[form]
    x = torch.randn(sum(count), 4, dtype=torch.float64)
    alike = sets.index[:, None] == sets.index[None]
    alike.fill_diagonal_(False)
    every = {(int(s), int(r)) for r, s in alike.nonzero()}
    assert pairs(complete(sets)) == every
    distance = torch.where(alike, torch.cdist(x, x), torch.inf)
    expected = {(s, r) for r, row in enumerate(distance) for s in row.argsort()[:6].tolist() if torch.isfinite(row[s])}
    if form == 0:
        sender, _ = nearest(x, 6, sets)
        assert len(sender) == len(expected)
    assert pairs(nearest(x, 6, sets)) == expected
    drawn = sampled(3, sets)
    assert pairs(drawn) <= every
    if form == 0:
        assert len(drawn[0]) == len(pairs(drawn)) == sum(n * min(3, max(n - 1, 0)) for n in count)


def test_neighbours_in_large_sets_are_those_of_brute_force() -> None:
    torch.manual_seed(0)
    count = [DENSE + 20, 3, DENSE + 9]
    x = torch.randn(sum(count), 4)
    x[5:17] = 0.25  # more points at one place than neighbours
    for sets in both(count):
        sender, receiver = nearest(x, 6, sets)
        assert (sender != receiver).all()
        assert torch.equal(sets.index[sender], sets.index[receiver])
        assert torch.bincount(receiver).tolist() == [6] * count[0] + [2] * 3 + [6] * count[2]
        own = torch.nonzero(sets.index == 2)[:, 0]
        square = torch.cdist(x[own].double(), x[own].double()).fill_diagonal_(torch.inf)
        wanted = square.topk(6, largest=False).indices.sort(1).values + own[0]
        found = sender[receiver >= own[0]].view(-1, 6).sort(1).values
        assert torch.equal(found, wanted)
