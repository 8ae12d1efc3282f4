"""Jets on disk: many per file, in ranges, with the names of their labels; written once and never mixed."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_cli import Call, call, refused

from cloudchamber.data import jetsource, open_events, store
from cloudchamber.data.jetsource import Jets, open_jets, write_jets
from cloudchamber.errors import UserError
from cloudchamber.event import Event, batch, unbatch

__all__ = ["call"]
quick = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


def make(jets: int, first: int = 0, kinds: int = 2, seed: int = 0) -> Event:
    """Jets of 0 to 5 constituents with labels in turn."""
    generator = torch.Generator().manual_seed(seed + first)
    count = torch.randint(0, 6, (jets,), generator=generator)
    point = {name: torch.randn(int(count.sum()), generator=generator) for name in ("px", "py", "pz", "energy")}
    scene = {"id": torch.arange(first, first + jets), "label": torch.arange(first, first + jets) % kinds}
    scene |= {name: torch.randn(jets, generator=generator) for name in ("pt", "eta", "phi", "mass")}
    return Event(point=point, scene=scene, count={"point": count, "scene": torch.ones(jets, dtype=torch.int64)})


def same(one: Event, other: Event) -> None:
    for level in ("point", "scene"):
        assert torch.equal(one.count[level], other.count[level])
        for name, column in getattr(one, level).items():
            assert torch.equal(column, getattr(other, level)[name]), name


@quick
@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=5), limit=st.integers(1, 12), data=st.data())
def test_what_is_written_is_read_in_ranges(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], limit: int, data: st.DataObject
) -> None:
    directory, patch = tmp_path_factory.mktemp("jets"), pytest.MonkeyPatch()
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    parts = [make(size, start) for size, start in zip(sizes, starts, strict=True)]
    with patch.context() as context:
        context.setattr(jetsource, "FILE_JETS", limit)
        context.setattr(store, "GROUP_ROWS", 20)
        written = list(write_jets(directory, parts, ("top", "qcd")))
    assert sum(number for _, number in written) == sum(sizes)
    assert [path.name for path, _ in written] == [f"jets-{i:06d}.parquet" for i in range(len(written))]
    jets = open_jets(directory)
    assert (len(jets), jets.labels) == (sum(sizes), ("top", "qcd"))
    first = data.draw(st.integers(0, len(jets)))
    last = data.draw(st.integers(first, len(jets)))
    same(batch(parts).take(torch.arange(first, last)), jets.range(first, last))
    assert [len(event) for event in jets.batches(4)] == [min(4, len(jets) - i) for i in range(0, len(jets), 4)]
    for index, jet in enumerate(unbatch(batch(parts))):
        same(jet, jets[index])
        same(jet, jets[index - len(jets)])
    with pytest.raises(IndexError):
        jets[len(jets)]
    with pytest.raises(IndexError):
        jets.range(0, len(jets) + 1)


def test_labels_of_files_are_brought_together(tmp_path: Path) -> None:
    for name, labels in (("a", ("qcd", "top")), ("b", ("w",)), ("c", ("top", "z"))):
        store.write(tmp_path / f"{name}.parquet", make(4, kinds=len(labels)), {"labels": labels})
    jets = open_jets(tmp_path)
    assert jets.labels == ("qcd", "top", "w", "z")
    assert jets.range(0, 12).scene["label"].tolist() == [0, 1, 0, 1, 2, 2, 2, 2, 1, 3, 1, 3]
    assert jets.range(9, 11).scene["label"].tolist() == [3, 1]
    store.write(tmp_path / "d.parquet", make(1))
    with pytest.raises(UserError, match="names of labels in all files or in none"):
        open_jets(tmp_path)


def test_a_label_without_a_name(tmp_path: Path) -> None:
    store.write(tmp_path / "a.parquet", make(8, kinds=3), {"labels": ("top", "qcd")})
    jets = open_jets(tmp_path / "a.parquet")
    assert len(jets.range(0, 2)) == 2
    with pytest.raises(
        UserError, match=r"a\.parquet: row 6, column scene\.label: expected a number from 0 to 1, found 2"
    ):
        jets.range(3, 8)


@quick
@given(
    row=st.integers(0, 7),
    column=st.sampled_from(["px", "energy", "pt", "mass"]),
    number=st.sampled_from(["nan", "-inf"]),
)
def test_a_number_that_is_none(tmp_path: Path, row: int, column: str, number: str) -> None:
    event = make(8, seed=3)
    level = "scene" if column in event.scene else "point"
    place = torch.nonzero(event.index(level) == row)
    values = getattr(event, level)[column].clone()
    values[place[:1]] = float(number)
    store.write(tmp_path / "a.parquet", event.with_columns(level, **{column: values}), {"labels": ("top", "qcd")})
    jets = open_jets(tmp_path)
    if len(place):
        with pytest.raises(UserError, match=rf"row {row + 1}, column {level}\.{column}: expected a finite .* {number}"):
            jets.range(0, 8)
    assert len(jets.range(row + 1, 8)) == 7 - row


def test_another_process_reads_on(tmp_path: Path) -> None:
    list(write_jets(tmp_path, [make(9)], ("top", "qcd")))
    jets = open_jets(tmp_path)
    same(pickle.loads(pickle.dumps(jets)).range(2, 5), jets.range(2, 5))


def test_files_with_different_columns(tmp_path: Path) -> None:
    store.write(tmp_path / "a.parquet", make(4))
    more = make(4)
    store.write(
        tmp_path / "b.parquet", more.with_columns("point", type=torch.zeros(more.rows("point"), dtype=torch.int64))
    )
    with pytest.raises(UserError, match=r"files of jets with different columns: .*point\.type"):
        open_jets(tmp_path).range(0, 8)


def test_runs_do_not_mix(tmp_path: Path) -> None:
    list(write_jets(tmp_path, [make(3)], ()))
    with pytest.raises(UserError, match=r"jets-000000\.parquet: exists"):
        next(write_jets(tmp_path, [make(3)], ()))


def test_what_is_whole_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jetsource, "FILE_JETS", 5)

    def broken() -> Iterator[Event]:
        yield from (make(5), make(3, 5))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(write_jets(tmp_path, broken(), ("top", "qcd")))
    assert [path.name for path in tmp_path.iterdir()] == ["jets-000000.parquet"]
    assert len(open_jets(tmp_path)) == 5


def test_no_jets_at_all(tmp_path: Path) -> None:
    assert [number for _, number in write_jets(tmp_path, [], ("top",))] == [0]
    jets = open_jets(tmp_path)
    assert (len(jets), jets.labels, list(jets.batches())) == (0, ("top",), [])


def test_little_is_read_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the row groups of a file only those are read that a range needs, and one is kept."""
    monkeypatch.setattr(store, "GROUP_ROWS", 100)
    store.write(tmp_path / "a.parquet", make(1000), {"labels": ("top", "qcd")})
    read: list[int] = []
    group = store.EventFile._group
    monkeypatch.setattr(store.EventFile, "_group", lambda self, number: read.append(number) or group(self, number))
    jets = open_jets(tmp_path)
    assert read == []
    jets.range(500, 510)
    assert len(set(read)) <= 2


def test_jets_are_events(tmp_path: Path) -> None:
    event = make(5)
    list(write_jets(tmp_path, [event], ("top", "qcd")))
    same(batch(list(open_events(tmp_path))), event)
    assert isinstance(open_jets(tmp_path), Jets)


@pytest.mark.slow
def test_simulate(tmp_path: Path, call: Call) -> None:
    pytest.importorskip("fastjet", reason="needs cloudchamber[simulate]")
    pytest.importorskip("pythia8mc", reason="needs cloudchamber[simulate]")
    arguments = ("--process", "w,gluon", "--jets", 5, "--seed", 3, "--pt-min", 300, "--pt-max", 400, "--radius", 1.0)
    status, out, err = call("simulate", "jets", *arguments, "--smeared", "-o", tmp_path / "jets")
    assert (status, err) == (0, "")
    assert "jets-000000.parquet: 5 jets" in out.replace("\n", "")
    jets = open_jets(tmp_path / "jets")
    assert jets.labels == ("w", "gluon")
    event = jets.range(0, 5)
    assert event.scene["label"].tolist() == [0, 1, 0, 1, 0]
    assert ((event.scene["pt"] > 300) & (event.scene["pt"] < 400)).all()
    assert "d0" in event.point
    refused(call("simulate", "jets", *arguments, "-o", tmp_path / "jets"), "jets-000000.parquet", "exists")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--process", "top,charm"), ("unknown process 'charm'", "hbb")),
        (("--process", "top", "--process", "top"), ("each process once",)),
        (("--pt-min", 700), ("pt_min < pt_max",)),
        (("--radius", 5), ("radius from 0.1 to 1.5",)),
    ],
)
def test_mistakes_are_told_in_one_line(
    tmp_path: Path, call: Call, arguments: tuple[str, ...], words: tuple[str]
) -> None:
    refused(call("simulate", "jets", *arguments, "-o", tmp_path), *words)
