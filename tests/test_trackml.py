"""TrackML tables survive a round trip exactly, and a malformed one gives one line that says what is wrong and where."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_event import same
from torch import Tensor

from cloudchamber.data import convert, open_events, trackml
from cloudchamber.errors import UserError
from cloudchamber.event import Event

DATA = Path(os.environ.get("CLOUDCHAMBER_DATA", Path(__file__).parents[2] / "shared" / "data")) / "trackml"
NAME = "event000000007"
quick = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])

TABLES = {
    "hits": "hit_id,x,y,z,volume_id,layer_id,module_id\n"
    "3,1.5,0,-3,8,2,1\n1,30,1,2,8,4,5\n9,70.25,2,5,8,6,7\n4,0,9,9,7,2,1\n",
    "cells": "hit_id,ch0,ch1,value\n1,10,20,0.5\n1,11,20,0.25\n3,5,5,1\n",
    "particles": "particle_id,particle_type,vx,vy,vz,px,py,pz,q,nhits\n"
    "9007199254740993,13,0,0,0,1,0,1,-1,2\n9223372036854775807,211,0,0,1,0,2,1,1,1\n",
    "truth": "hit_id,particle_id,tx,ty,tz,tpx,tpy,tpz,weight\n1,9007199254740993,30,1,2,1,0,1,0.25\n"
    "3,9007199254740993,1.5,0,-3,1,0,1,0.25\n9,9223372036854775807,70,2,5,0,2,1,0.5\n4,0,0,9,9,-5e5,0,1,0\n",
}


def write_tables(directory: Path, **changed: str | None) -> Path:
    """An event of four small tables, some of them replaced or (None) left out."""
    directory.mkdir(exist_ok=True)
    for table, text in {**TABLES, **changed}.items():
        path = directory / f"{NAME}-{table}.csv"
        path.unlink(missing_ok=True)
        if text is not None:
            path.write_text(text)
    return directory


def error(directory: Path) -> str:
    """The message of reading the event, which must be one line that names a file."""
    with pytest.raises(UserError) as caught:
        trackml.read(directory, NAME)
    message = str(caught.value)
    assert str(directory / NAME) in message
    assert "\n" not in message
    return message.removeprefix(f"{directory / NAME}-")


def test_read(tmp_path: Path) -> None:
    event = trackml.read(write_tables(tmp_path), NAME)
    assert event.point["id"].tolist() == [3, 1, 9, 4]
    assert event.point["object"].tolist() == [0, 0, 1, -1]
    assert event.point["weight"].tolist() == [0.25, 0.25, 0.5, 0]
    assert event.point["tx"].tolist() == [1.5, 30, 70, 0]
    assert event.cell["point"].tolist() == [1, 1, 0]
    assert event.object["id"].tolist() == [9007199254740993, 2**63 - 1]
    assert event.object["hits"].tolist() == [2, 1]
    assert event.scene["id"].tolist() == [7]
    assert event.point["x"].dtype == event.object["charge"].dtype == event.cell["value"].dtype == torch.float32
    assert event.point["weight"].dtype == torch.float64


def test_only_hits_are_needed(tmp_path: Path) -> None:
    event = trackml.read(write_tables(tmp_path, cells=None, particles=None, truth=None), NAME)
    assert (event.rows("point"), event.rows("object"), event.rows("cell")) == (4, 0, 0)
    assert "object" not in event.point
    event = trackml.read(write_tables(tmp_path, truth=None), NAME)
    assert event.rows("object") == 2
    assert "object" not in event.point


def test_truth_without_particles(tmp_path: Path) -> None:
    event = trackml.read(write_tables(tmp_path, particles=None), NAME)
    assert list(event.object) == ["id", "hits"]
    assert event.object["id"].tolist() == [9007199254740993, 2**63 - 1]
    assert event.point["object"].tolist() == [0, 0, 1, -1]


@pytest.mark.parametrize("table", ["truth", "derived"])
def test_weights_are_computed_where_truth_has_none(tmp_path: Path, table: str) -> None:
    hits = TABLES["hits"] + "5,80,2,6,8,6,7\n6,90,2,7,8,6,7\n7,99,2,8,8,6,7\n"
    truth = "hit_id,particle_id\n" + "".join(f"{hit},9007199254740993\n" for hit in (3, 1, 9, 5, 6, 7)) + "4,0\n"
    write_tables(tmp_path, **{"hits": hits, "truth": None, table: truth})
    weight = trackml.read(tmp_path, NAME).point["weight"]
    assert weight.sum().item() == pytest.approx(1)
    assert weight[3] == 0
    assert weight[0] > weight[1]


def test_number_of_hits_is_counted_where_particles_do_not_say(tmp_path: Path) -> None:
    particles = "\n".join(line.rsplit(",", 1)[0] for line in TABLES["particles"].split())
    assert trackml.read(write_tables(tmp_path, particles=particles), NAME).object["hits"].tolist() == [2, 1]


@pytest.mark.parametrize("hits", [0, 1])
@pytest.mark.parametrize("zipped", [False, True])
def test_an_empty_event_and_one_hit(tmp_path: Path, hits: int, zipped: bool) -> None:
    texts = {"hits": hits + 1, "cells": 1, "particles": 1, "truth": 1}
    heads = {table: "".join(TABLES[table].splitlines(keepends=True)[:n]) for table, n in texts.items()}
    if hits:
        heads["truth"] += "3,0,0,0,0,0,0,0,0\n"
    event = trackml.read(write_tables(tmp_path / "in", **heads), NAME)
    assert event.rows("point") == hits
    trackml.write(tmp_path / "out", event, gzip=zipped)
    same(event, trackml.read(tmp_path / "out", NAME))


def finite(width: Literal[32, 64]) -> st.SearchStrategy[float]:
    return st.floats(allow_nan=False, allow_infinity=False, width=width)


@st.composite
def full_events(draw: st.DrawFn) -> Event:
    """An event with every column that the format has."""

    def column(n: int, kind: torch.dtype) -> Tensor:
        values: st.SearchStrategy[float] = finite(32) if kind == torch.float32 else st.integers(-(2**63), 2**63 - 1)
        return torch.tensor(draw(st.lists(values, min_size=n, max_size=n)), dtype=kind)

    def columns(names: dict[str, str], n: int) -> dict[str, Tensor]:
        kinds = {new: torch.int64 if old in trackml.INTEGERS else torch.float32 for old, new in names.items()}
        return {name: column(n, kind) for name, kind in kinds.items() if name != "weight"}

    def ids(most: int) -> Tensor:
        chosen = st.lists(st.integers(1, 2**63 - 1), unique=True, max_size=most)
        return torch.tensor(draw(chosen), dtype=torch.int64)

    hit, particle = ids(4), ids(3)
    n, cells = len(hit), draw(st.integers(0, 3)) if len(hit) else 0
    owner = torch.tensor([draw(st.integers(-1, len(particle) - 1)) for _ in range(n)], dtype=torch.int64)
    weight = torch.tensor([abs(draw(finite(64))) for _ in range(n)], dtype=torch.float64)
    point = columns(trackml.HITS, n) | {"id": hit, "object": owner} | columns(trackml.TRUTH, n) | {"weight": weight}
    cell = columns(trackml.CELLS, cells)
    cell["point"] = torch.tensor([draw(st.integers(0, n - 1)) for _ in range(cells)], dtype=torch.int64)
    objects = columns(trackml.PARTICLES, len(particle)) | {"id": particle}
    return Event(point=point, object=objects, cell=cell, scene={"id": torch.tensor([draw(st.integers(0, 10**9))])})


@quick
@given(event=full_events(), zipped=st.booleans())
def test_round_trip_is_exact(tmp_path_factory: pytest.TempPathFactory, event: Event, zipped: bool) -> None:
    directory = tmp_path_factory.mktemp("event")
    trackml.write(directory, event, gzip=zipped)
    (found,) = open_events(directory)
    same(event, found)


def test_open_events_and_convert(tmp_path: Path) -> None:
    write_tables(tmp_path / "in")
    source = open_events(tmp_path / "in")
    assert source.names == [NAME]
    convert(source, tmp_path / "parquet")
    convert(open_events(tmp_path / "parquet"), tmp_path / "out", "trackml")
    for path in ("parquet", f"parquet/{NAME}.parquet", "out", f"out/{NAME}-hits.csv.gz"):
        again = open_events(tmp_path / path)
        assert again.names == [NAME]
        same(source[0], again[0])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{NAME}-{t}.csv.gz" for t in sorted(TABLES)]


def test_one_bad_event_spoils_only_itself(tmp_path: Path) -> None:
    write_tables(tmp_path)
    (tmp_path / "event000000001-hits.csv").write_text("junk")
    (tmp_path / "event000000009-truth.csv").write_text(TABLES["truth"])
    source = open_events(tmp_path)
    assert source.names == ["event000000001", NAME, "event000000009"]
    assert source[1].rows("point") == 4
    with pytest.raises(UserError, match=r"event000000001-hits\.csv: header: expected a column hit_id, found junk"):
        source[0]
    with pytest.raises(UserError, match=r"event000000009-hits\.csv: no such file, neither with \.gz"):
        source[2]


BIG, LESS = "9223372036854775807", "9007199254740993"
HIT, UNIQUE = "column hit_id: expected a hit_id of event", "expected a value that no row before has"

#: In a table, replace a text by another: what the error then says.
MISTAKES = [
    ("hits", TABLES["hits"], "", "empty file: expected a header line"),
    ("hits", ",z,", ",zz,", "header: expected a column z, found hit_id,x,y,zz"),
    ("hits", ",z,", ",x,", "header: expected a column z"),
    ("hits", "hit_id,x", "hit_id,x,x", "header: expected each column once, found x twice"),
    ("hits", "1.5", "nan", "row 1, column x: expected a finite float32, found nan"),
    ("hits", "70.25", "-inf", "row 3, column x: expected a finite float32, found -inf"),
    ("hits", "70.25", "1e39", "row 3, column x: expected a finite float32, found inf"),
    ("hits", "70.25", "", "row 3, column x: expected a finite number (float32), found ''"),
    ("hits", "70.25", "7O", "row 3, column x: expected a finite number (float32), found '7O'"),
    ("hits", "\n9,", "\n9.5,", "row 3, column hit_id: expected an integer (int64), found '9.5'"),
    ("hits", "\n9,", f"\n{2**63},", "row 3, column hit_id: expected an integer (int64)"),
    ("hits", "\n9,", "\n3,", f"row 3, column hit_id: {UNIQUE}, found 3"),
    ("hits", "7,2,1\n", "7,2", "row 4: expected 7 columns, found 6"),
    ("hits", "7,2,1\n", "7,2,1\n5,0,0,0,8,2,1\n", f"row 5, {HIT}000000007-truth.csv, found 5"),
    ("hits", "\n", "\r", "not a CSV table: expected a header line"),
    ("hits", "\n9,", '\n"9,', "row 3"),
    ("truth", "\n4,0", "\n5,0", f"row 4, {HIT}000000007-hits.csv, found 5"),
    ("truth", "\n4,0", "\n9,0", f"row 4, column hit_id: {UNIQUE}, found 9"),
    (
        "truth",
        "\n4,0",
        "\n4,6",
        "row 4, column particle_id: expected 0 or a particle_id of event000000007-particles.csv",
    ),
    ("truth", "0.5", "-0.5", "row 3, column weight: expected a weight of at least 0, found -0.5"),
    ("truth", "0.5", "nan", "row 3, column weight: expected a finite float64, found nan"),
    ("cells", "3,5,5", "2,5,5", f"row 3, {HIT}000000007-hits.csv, found 2"),
    ("cells", "3,5,5", "3,5.5,5", "row 3, column ch0: expected an integer (int64), found '5.5'"),
    ("particles", BIG, "0", "row 2, column particle_id: expected a particle_id other than 0, which means noise"),
    ("particles", BIG, LESS, f"row 2, column particle_id: {UNIQUE}, found {LESS}"),
    ("particles", "px", "p", "header: expected a column px"),
]


@pytest.mark.parametrize(("table", "old", "new", "expected"), MISTAKES)
def test_a_mistake_names_row_column_and_what_was_expected(
    tmp_path: Path, table: str, old: str, new: str, expected: str
) -> None:
    assert old in TABLES[table]
    write_tables(tmp_path, **{table: TABLES[table].replace(old, new)})
    assert error(tmp_path).startswith(f"{table}.csv: {expected}")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "not a CSV table: expected a header line"),
        (bytes(1000), "not a CSV table: expected a header line"),
        (TABLES["hits"].encode("utf-16"), "not a CSV table: expected a header line"),
        (gzip.compress(TABLES["hits"].encode(), mtime=0)[:-20], "damaged gzip file, perhaps cut short"),
        (gzip.compress(TABLES["hits"].encode(), mtime=0) + b"junk", "damaged gzip file"),
        (gzip.compress(b"", mtime=0), "empty file"),
    ],
)
def test_a_wrong_file(tmp_path: Path, data: bytes, expected: str) -> None:
    (write_tables(tmp_path) / f"{NAME}-hits.csv").write_bytes(data)
    assert error(tmp_path).startswith(f"hits.csv: {expected}")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: text.removesuffix("\n"),
        lambda text: text.replace("\n", "\n\n"),
        lambda text: text.replace("hit_id", '"hit_id"').replace("particle_id", '"particle_id"'),
        lambda text: "\n".join(f"{line},{i or 'other'}" for i, line in enumerate(text.split())),
    ],
)
def test_harmless_differences(tmp_path: Path, change: Callable[[str], str]) -> None:
    expected = trackml.read(write_tables(tmp_path), NAME)
    same(expected, trackml.read(write_tables(tmp_path, **{k: change(v) for k, v in TABLES.items()}), NAME))


def test_a_table_and_its_zipped_twin(tmp_path: Path) -> None:
    (write_tables(tmp_path) / f"{NAME}-truth.csv.gz").write_bytes(gzip.compress(b""))
    assert error(tmp_path).startswith(f"truth.csv: expected this or {NAME}-truth.csv.gz, found both")


@quick
@given(data=st.data())
def test_any_mutation_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    table = data.draw(st.sampled_from(sorted(TABLES)))
    text = TABLES[table]
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        stop = data.draw(st.integers(start, min(len(text), start + 10)))
        odd = st.sampled_from(["", ",", "\n", "\r", '"', "-", ".", "0", "9" * 20, "1e400", "nan", "\0", "é", "\ufeff"])
        text = text[:start] + data.draw(odd | st.text(max_size=3)) + text[stop:]
    raw = text.encode("utf-8", "surrogatepass")
    if data.draw(st.booleans()):
        raw = gzip.compress(raw)[: data.draw(st.integers(0, len(raw) + 30))]
    (write_tables(tmp_path) / f"{NAME}-{table}.csv").write_bytes(raw)
    try:
        event = trackml.read(tmp_path, NAME)
    except UserError:
        assert error(tmp_path).startswith(tuple(TABLES))
    else:
        assert all(column.isfinite().all() for column in event.point.values())
        assert len(set(event.point["id"].tolist())) == event.rows("point")


def test_write_refuses_what_the_format_cannot_hold(tmp_path: Path) -> None:
    event = trackml.read(write_tables(tmp_path / "in"), NAME)
    with pytest.warns(UserWarning, match=r"no place in the TrackML format for point\.time, edge\.sender: not written"):
        trackml.write(tmp_path / "out", event.with_columns("point", time=torch.zeros(4)).with_level("edge", EDGE))
    lacking = event.with_level("point", {k: v for k, v in event.point.items() if k != "volume"})
    with pytest.raises(UserError, match=r"event000000007: the TrackML format needs a column point\.volume"):
        trackml.write(tmp_path / "none", lacking)
    with pytest.raises(UserError, match=r"no column scene\.id"):
        trackml.write(tmp_path / "none", Event())
    assert not (tmp_path / "none").exists()


EDGE = {"sender": torch.tensor([0])}


@pytest.mark.skipif(not (DATA / "thin_event").is_dir(), reason="needs the TrackML sample: set CLOUDCHAMBER_DATA")
def test_a_published_event(tmp_path: Path) -> None:
    (event,) = open_events(DATA / "thin_event")
    assert [event.rows(level) for level in ("point", "object", "cell")] == [5527, 548, 18564]
    owner = event.point["object"]
    assert torch.equal(torch.bincount(owner[owner >= 0], minlength=548), event.object["hits"])
    assert (event.point["weight"][owner < 0] == 0).all()
    trackml.write(tmp_path, event)
    (again,) = open_events(tmp_path)
    same(event, again)


@pytest.mark.skipif(not (DATA / "events").is_dir(), reason="needs the TrackML sample: set CLOUDCHAMBER_DATA")
def test_a_full_event_with_derived_truth() -> None:
    source = open_events(DATA / "events")
    assert len(source) == 12
    event = source[0]
    assert event.rows("point") == 93680
    assert event.point["weight"].sum().item() == pytest.approx(1)
