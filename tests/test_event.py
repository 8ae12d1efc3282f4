"""Batches are exact: what goes in comes out, references still point at the same rows."""

from __future__ import annotations

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudchamber.event import LEVELS, REFERENCES, Event, batch, unbatch


def same(a: Event, b: Event) -> None:
    """Fail unless two events are equal to the bit: columns, their order, dtype, shape, and counts."""
    for level in LEVELS:
        assert torch.equal(a.count[level], b.count[level]), level
        left, right = getattr(a, level), getattr(b, level)
        assert list(left) == list(right), level
        for name in left:
            assert left[name].dtype == right[name].dtype, (level, name)
            torch.testing.assert_close(left[name], right[name], rtol=0, atol=0, equal_nan=True)


@st.composite
def events(draw: st.DrawFn, most: int = 5) -> Event:
    """An event with every level and reference, any of them perhaps empty."""
    rows = {level: draw(st.integers(0, most)) for level in LEVELS} | {"scene": 1}
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    levels: dict[str, dict[str, torch.Tensor]] = {
        level: {
            "a": torch.randn(n, generator=generator),
            "id": torch.randint(-(2**62), 2**62, (n,), generator=generator),
            "matrix": torch.randn(n, 2, 3, generator=generator, dtype=torch.float64),
            "flag": torch.randint(0, 2, (n,), generator=generator) > 0,
        }
        for level, n in rows.items()
    }
    for (level, name), target in REFERENCES.items():
        levels[level][name] = torch.randint(-1, rows[target], (rows[level],), generator=generator)
    return Event(**levels)


@settings(deadline=None, max_examples=50)
@given(st.lists(events(), min_size=1, max_size=5))
def test_unbatch_is_the_inverse_of_batch(parts: list[Event]) -> None:
    joined = batch(parts)
    assert len(joined) == len(parts)
    for before, after in zip(parts, unbatch(joined), strict=True):
        same(before, after)
    same(joined, batch(unbatch(joined)))


@settings(deadline=None, max_examples=50)
@given(st.lists(events(), min_size=1, max_size=5), st.data())
def test_take(parts: list[Event], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(parts))))[: data.draw(st.integers(1, len(parts)))]
    same(batch(parts).take(torch.tensor(order)), batch([parts[i] for i in order]))
    assert len(batch(parts).take(torch.tensor([], dtype=torch.int64))) == 0


@settings(deadline=None, max_examples=50)
@given(st.lists(events(), min_size=2, max_size=5), st.integers(1, 4))
def test_a_batch_of_batches_is_one_batch(parts: list[Event], cut: int) -> None:
    cut = min(cut, len(parts) - 1)
    same(batch(parts), batch([batch(parts[:cut]), batch(parts[cut:])]))


@settings(deadline=None, max_examples=50)
@given(st.lists(events(), min_size=1, max_size=4))
def test_references_point_at_the_same_rows(parts: list[Event]) -> None:
    joined = batch(parts)
    for (level, name), target in REFERENCES.items():
        found = torch.cat([_followed(event, level, name, target) for event in parts])
        assert torch.equal(_followed(joined, level, name, target), found)


def _followed(event: Event, level: str, name: str, target: str) -> torch.Tensor:
    """The id of the row that each reference names, 0 for none."""
    reference = getattr(event, level)[name]
    return torch.cat([getattr(event, target)["id"], torch.zeros(1, dtype=torch.int64)])[reference]


def test_minus_one_is_kept_and_others_are_shifted() -> None:
    one = Event(point={"object": torch.tensor([0, -1])}, object={"id": torch.tensor([7])})
    assert batch([one, one, one]).point["object"].tolist() == [0, -1, 1, -1, 2, -1]


def test_an_event_without_columns_joins_a_batch() -> None:
    full = Event(point={"x": torch.ones(3)}, object={"id": torch.tensor([1, 2])})
    joined = batch([Event(), full, Event()])
    assert joined.count["point"].tolist() == [0, 3, 0]
    assert joined.index("point").tolist() == [1, 1, 1]
    empty, middle, _ = unbatch(joined)
    assert empty.rows("point") == 0
    same(middle, full)


def test_rows_without_columns_are_counted() -> None:
    tracks = Event(point={"object": torch.tensor([1])}, count={"point": torch.tensor([1]), "object": torch.tensor([2])})
    joined = batch([tracks, tracks])
    assert joined.point["object"].tolist() == [1, 3]
    for part in unbatch(joined):
        same(part, tracks)


def test_an_event_survives_pickling_and_compares_by_identity() -> None:
    event = Event(point={"x": torch.ones(3)})
    same(event, pickle.loads(pickle.dumps(event)))
    assert event in [event]
    assert event != Event(point={"x": torch.ones(3)})


def test_with_columns_and_levels_leave_the_original() -> None:
    event = batch([Event(point={"x": torch.ones(2)}), Event(point={"x": torch.ones(1)})])
    assert set(event.with_columns("point", y=torch.ones(3)).point) == {"x", "y"}
    edge = {"sender": torch.tensor([0, 2]), "receiver": torch.tensor([1, 2])}
    assert [part.rows("edge") for part in unbatch(event.with_level("edge", edge, torch.tensor([1, 1])))] == [1, 1]
    assert set(event.point) == {"x"}
    assert event.rows("edge") == 0
    with pytest.raises(ValueError, match="edge: has rows, but count does not say"):
        event.with_level("edge", edge)


def test_errors_name_level_and_column() -> None:
    x = {"x": torch.ones(2)}
    with pytest.raises(ValueError, match=r"point: columns differ in length: \{'x': 2, 'y': 3\}"):
        Event(point={**x, "y": torch.ones(3)})
    with pytest.raises(ValueError, match="point: 2 rows, but count says 3"):
        Event(point=x, count={"point": torch.tensor([3])})
    with pytest.raises(ValueError, match="levels disagree"):
        Event(count={"point": torch.tensor([0]), "cell": torch.tensor([0, 0])})
    with pytest.raises(ValueError, match=r"event 1 has no column point\.x"):
        batch([Event(point=x), Event(point={"y": torch.ones(2)})])
    with pytest.raises(ValueError, match="no events"):
        batch([])


@pytest.mark.parametrize(
    "other", [torch.ones(0), torch.ones(2, dtype=torch.int32), torch.ones(2, 1, dtype=torch.int64)]
)
def test_batch_does_not_promote(other: torch.Tensor) -> None:
    big = Event(point={"id": torch.tensor([2**62 + 1])})
    with pytest.raises(ValueError, match=r"differ in dtype or shape of point\.id"):
        batch([big, Event(point={"id": other})])
