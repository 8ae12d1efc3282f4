"""Events survive the disk to the bit, other tools read them, and a failed write leaves nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_event import events, same

from cloudchamber.data import convert, open_events, store
from cloudchamber.errors import UserError
from cloudchamber.event import Event, batch

quick = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])

DTYPES = [torch.float16, torch.float32, torch.float64, torch.int8, torch.int16, torch.int32, torch.int64]
DTYPES += [torch.uint8, torch.bool]


@quick
@given(parts=st.lists(events(), max_size=5), group=st.sampled_from([1, 20, store.GROUP_ROWS]))
def test_round_trip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: list[Event], group: int) -> None:
    monkeypatch.setattr(store, "GROUP_ROWS", group)
    store.write(tmp_path / "events.parquet", parts)
    file = store.EventFile(tmp_path / "events.parquet")
    assert len(file) == len(parts)
    for before, after in zip(parts, file, strict=True):
        same(before, after)


@quick
@given(parts=st.lists(events(), max_size=6), group=st.sampled_from([1, 20, store.GROUP_ROWS]), data=st.data())
def test_a_range_is_the_batch_of_its_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: list[Event], group: int, data: st.DataObject
) -> None:
    """Whether written one by one or as a batch, a range reads as the batch of the same events."""
    monkeypatch.setattr(store, "GROUP_ROWS", group)
    store.write(tmp_path / "events.parquet", [batch(parts)] if len(parts) % 2 else parts)
    file = store.EventFile(tmp_path / "events.parquet")
    first = data.draw(st.integers(0, len(parts)))
    last = data.draw(st.integers(first, len(parts)))
    found = file.range(first, last)
    assert len(found) == last - first
    if found:
        same(batch(parts[first:last]), found)
    with pytest.raises(IndexError, match="events"):
        file.range(first, len(parts) + 1)


def test_a_range_names_the_row_of_a_bad_reference(tmp_path: Path) -> None:
    good = Event(point={"object": torch.tensor([0, -1])}, object={"id": torch.tensor([1])})
    bad = Event(point={"object": torch.tensor([0, 1])}, object={"id": torch.tensor([1])})
    store.write(tmp_path / "a.parquet", [good, good, bad, good])
    file = store.EventFile(tmp_path / "a.parquet")
    assert len(file.range(0, 2)) == 2
    with pytest.raises(UserError, match=r"row 3, column point\.object: expected -1 or a row of object"):
        file.range(1, 4)


def test_what_the_file_is_about(tmp_path: Path) -> None:
    store.write(tmp_path / "a.parquet", [], about={"labels": ["top", "Ωqcd"]})
    assert store.EventFile(tmp_path / "a.parquet").about["labels"] == ["top", "Ωqcd"]


@pytest.mark.parametrize("shape", [(3,), (0,), (3, 4), (0, 4), (3, 2, 2)])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtype_and_shape_are_kept(tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    event = Event(point={"a": (torch.rand(shape) * 100).to(dtype)})
    store.write(tmp_path / "a.parquet", event)
    same(event, store.read(tmp_path / "a.parquet"))


@quick
@given(values=st.lists(st.floats(width=32), max_size=5))
def test_every_float_is_kept(tmp_path: Path, values: list[float]) -> None:
    event = Event(point={"a": torch.tensor(values, dtype=torch.float32)})
    store.write(tmp_path / "a.parquet", event)
    found = store.read(tmp_path / "a.parquet").point["a"].numpy()
    assert found.tobytes() == event.point["a"].numpy().tobytes()


@pytest.mark.parametrize(
    "parts",
    [
        [Event()],
        [Event(), Event()],
        [Event(count={"object": torch.tensor([3])}), Event()],
        [Event(point={"x": torch.ones(2)}, count={"point": torch.tensor([2]), "object": torch.tensor([3])})],
    ],
)
def test_levels_without_columns(tmp_path: Path, parts: list[Event]) -> None:
    store.write(tmp_path / "a.parquet", parts)
    for before, after in zip(parts, store.EventFile(tmp_path / "a.parquet"), strict=True):
        same(before, after)


@pytest.mark.parametrize("group", [1, 100])
def test_an_empty_event_among_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int) -> None:
    monkeypatch.setattr(store, "GROUP_ROWS", group)
    full = Event(point={"x": torch.ones(3), "m": torch.ones(3, 2)})
    store.write(tmp_path / "a.parquet", [Event(), full, Event(), full])
    assert [event.rows("point") for event in store.EventFile(tmp_path / "a.parquet")] == [0, 3, 0, 3]


def test_a_batch_is_written_as_its_events(tmp_path: Path) -> None:
    parts = [Event(point={"object": torch.tensor([0, -1])}, object={"id": torch.tensor([i])}) for i in range(3)]
    store.write(tmp_path / "a.parquet", batch(parts))
    for before, after in zip(parts, store.EventFile(tmp_path / "a.parquet"), strict=True):
        same(before, after)


def test_awkward_reads_it(tmp_path: Path) -> None:
    x = [torch.tensor([1.5, 2.5]), torch.tensor([]), torch.tensor([3.5])]
    store.write(
        tmp_path / "a.parquet", (Event(point={"x": part}, scene={"id": torch.tensor([i])}) for i, part in enumerate(x))
    )
    array = ak.from_parquet(tmp_path / "a.parquet")
    assert array.point.x.to_list() == [[1.5, 2.5], [], [3.5]]
    assert str(array.point.x.type) == "3 * var * float32"
    assert array.scene.id.to_list() == [[0], [1], [2]]


def test_awkward_reads_a_file_without_events(tmp_path: Path) -> None:
    store.write(tmp_path / "a.parquet", [])
    assert len(store.EventFile(tmp_path / "a.parquet")) == len(ak.from_parquet(tmp_path / "a.parquet")) == 0


def test_indexing(tmp_path: Path) -> None:
    store.write(tmp_path / "a.parquet", (Event(scene={"id": torch.tensor([i])}) for i in range(5)))
    file = store.EventFile(tmp_path / "a.parquet")
    assert int(file[-1].scene["id"]) == 4
    assert [int(event.scene["id"]) for event in file[1:4:2]] == [1, 3]
    with pytest.raises(IndexError):
        file[5]


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    for value in range(3):
        store.write(path, Event(point={"x": torch.tensor([value])}))
        os.utime(path, ns=(value, value))
        assert store.read(path).point["x"].tolist() == [value]


def test_what_is_read_may_be_changed(tmp_path: Path) -> None:
    store.write(tmp_path / "a.parquet", Event(point={"x": torch.ones(3)}))
    store.read(tmp_path / "a.parquet").point["x"].zero_()
    assert store.read(tmp_path / "a.parquet").point["x"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("group", [1, 100])
@pytest.mark.parametrize(
    "other",
    [
        Event(point={"y": torch.ones(1)}),
        Event(point={"x": torch.ones(1).double()}),
        Event(point={"x": torch.ones(1, 1)}),
        Event(point={"x": torch.ones(1), "y": torch.ones(1)}),
    ],
)
def test_events_with_other_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: Event, group: int) -> None:
    monkeypatch.setattr(store, "GROUP_ROWS", group)
    with pytest.raises(ValueError, match="write: "):
        store.write(tmp_path / "a.parquet", [Event(point={"x": torch.ones(1)}), other])
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    def broken() -> Iterator[Event]:
        yield Event(point={"x": torch.zeros(2)})
        raise KeyboardInterrupt

    event = Event(point={"x": torch.ones(2)})
    store.write(tmp_path / "a.parquet", event)
    with pytest.raises(KeyboardInterrupt):
        store.write(tmp_path / "a.parquet", broken())
    same(event, store.read(tmp_path / "a.parquet"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_atomic(tmp_path: Path) -> None:
    path = tmp_path / "new" / "plot.svg"
    with store.atomic(path) as temporary:
        temporary.write_text("a")
        assert temporary.suffix == ".svg"
        assert not path.exists()
    assert path.read_text() == "a"
    with pytest.raises(ZeroDivisionError), store.atomic(path) as temporary:
        temporary.write_text(str(1 / 0 if temporary.write_text("b") else 0))
    assert path.read_text() == "a"
    assert list(path.parent.iterdir()) == [path]


def test_an_output_that_cannot_be_written_is_a_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/a\.parquet: cannot write: "):
        store.write(tmp_path / "file" / "a.parquet", Event())
    with pytest.raises(FileNotFoundError, match="input"), store.atomic(tmp_path / "out"):
        (tmp_path / "input").read_text()


def _damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0xFF
    path.write_bytes(data)


def _reference(path: Path) -> None:
    store.write(path, Event(point={"object": torch.tensor([0, 2])}, object={"id": torch.tensor([1, 2])}))


def _null(path: Path) -> None:
    schema = pq.read_schema(path)
    column = pa.array([[{"x": None}]], pa.list_(pa.struct([("x", pa.float32())])))
    pq.write_table(pa.table({"point": column}).replace_schema_metadata(schema.metadata), path)


@pytest.mark.parametrize(
    ("break_it", "expected"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_bytes(b""), "not a readable Parquet file"),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99)), "not a readable Parquet file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-50]), "not a readable Parquet file"),
        (lambda path: pq.write_table(pa.table({"x": [1]}), path), "a Parquet file, but not of events"),
        (_damage, "not a readable Parquet file"),
        (_reference, r"row 1, column point\.object: expected -1 or a row of object"),
        (_null, "a value is missing"),
    ],
)
def test_a_bad_file_spoils_only_its_own_event(tmp_path: Path, break_it: object, expected: str) -> None:
    for name in "abc":
        store.write(tmp_path / f"{name}.parquet", Event(point={"x": torch.randn(5000)}))
    source = open_events(tmp_path)
    assert callable(break_it)
    break_it(tmp_path / "b.parquet")
    for opened in [source, open_events(tmp_path)] if (tmp_path / "b.parquet").exists() else [source]:
        assert opened.names == ["a", "b", "c"]
        assert opened[0].rows("point") == opened[2].rows("point") == 5000
        with pytest.raises(UserError, match=expected) as caught:
            opened[1]
        assert "b.parquet" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_open_events_of_parquet(tmp_path: Path) -> None:
    parts = [Event(scene={"id": torch.tensor([i])}) for i in range(3)]
    store.write(tmp_path / "jets.parquet", parts)
    store.write(tmp_path / "one.parquet", parts[0])
    (tmp_path / ".half-written.parquet").write_bytes(b"")
    source = open_events(tmp_path)
    assert source.names == ["jets-000000", "jets-000001", "jets-000002", "one"]
    assert [int(event.scene["id"]) for event in source] == [0, 1, 2, 0]
    assert source[1:3].names == ["jets-000001", "jets-000002"]
    assert len(open_events(tmp_path / "jets.parquet")) == 3
    convert(source, tmp_path / "each")
    assert open_events(tmp_path / "each").names == source.names
    assert [int(event.scene["id"]) for event in open_events(tmp_path / "each")] == [0, 1, 2, 0]


def test_open_events_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: no such file or directory"):
        open_events(tmp_path / "nowhere")
    with pytest.raises(UserError, match=f"{tmp_path}: no events"):
        open_events(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match=r"notes\.txt: no events"):
        open_events(tmp_path / "notes.txt")
    store.write(tmp_path / "a.parquet", Event())
    (tmp_path / "event1-hits.csv").write_text("")
    with pytest.raises(UserError, match=f"{tmp_path}: events of several formats"):
        open_events(tmp_path)


def test_convert_refuses(tmp_path: Path) -> None:
    store.write(tmp_path / "a.parquet", Event())
    with pytest.raises(UserError, match="expected one of parquet, trackml"):
        convert(open_events(tmp_path), tmp_path / "out", "root")
    with pytest.raises(UserError, match="expected another directory"):
        convert(open_events(tmp_path), tmp_path / "b" / "..")


def test_a_newer_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "FORMAT_VERSION", 99)
    store.write(tmp_path / "a.parquet", Event())
    monkeypatch.undo()
    with pytest.raises(UserError, match="newer than this one"):
        store.read(tmp_path / "a.parquet")


def test_numpy_columns_are_not_copied_wrongly(tmp_path: Path) -> None:
    strided = torch.from_numpy(np.arange(12.0).reshape(3, 4))[:, ::2].T
    event = Event(point={"x": strided, "y": strided[:, 1]})
    store.write(tmp_path / "a.parquet", event)
    same(event, store.read(tmp_path / "a.parquet"))
