"""Plots, tables and the event display: what is written is read back and compared with what went in."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.font_manager import fontManager
from rich.console import Console

from cloudchamber.errors import UserError
from cloudchamber.event import Event, batch
from cloudchamber.metrics import Fraction
from cloudchamber.physics import Helix
from cloudchamber.report import (
    Column,
    Curve,
    console_table,
    markdown_table,
    measured,
    memory,
    percent,
    plain,
    plot_efficiency,
    plot_event,
    seconds,
    write_display,
)
from cloudchamber.report.geometry import flight_order, layers, picture
from cloudchamber.report.plots import find_fonts

RADII = np.array([32.0, 72.0, 116.0, 172.0, 260.0, 360.0, 500.0, 660.0])


def make_event(tracks: int = 12, noise: int = 20, seed: int = 0) -> Event:
    """Helices through cylinders and some noise, hits shuffled; truth and track parameters in ``object``."""
    rng = np.random.default_rng(seed)
    pt, phi = rng.uniform(0.6, 5.0, tracks), rng.uniform(-np.pi, np.pi, tracks)
    eta, z0, charge = rng.uniform(-1, 1, tracks), rng.normal(0, 50, tracks), rng.choice([-1.0, 1.0], tracks)
    helix = Helix(0.0, z0[:, None], phi[:, None], eta[:, None], charge[:, None], pt[:, None])
    xyz = np.stack(np.broadcast_arrays(*helix.at(helix.arc_to_radius(RADII))), axis=-1).reshape(-1, 3)
    xyz = np.concatenate([xyz, rng.uniform(-600, 600, (noise, 3))])
    row = np.concatenate([np.repeat(np.arange(tracks), len(RADII)), np.full(noise, -1)])
    layer = np.concatenate([np.tile(np.arange(len(RADII)), tracks), np.full(noise, 99)])
    order = rng.permutation(len(row))
    x, y, z = torch.tensor(xyz[order], dtype=torch.float32).unbind(1)
    column = {"pt": pt, "eta": eta, "phi": phi, "d0": 0 * pt, "z0": z0, "charge": charge}
    return Event(
        point={
            "id": torch.arange(1, len(row) + 1),
            "x": x,
            "y": y,
            "z": z,
            "volume": torch.ones(len(row), dtype=torch.int64),
            "layer": torch.tensor(layer[order]),
            "object": torch.tensor(row[order]),
        },
        object={name: torch.tensor(values, dtype=torch.float32) for name, values in column.items()},
        scene={"id": torch.tensor([7])},
    )


def empty() -> Event:
    whole, real = torch.zeros(0, dtype=torch.int64), torch.zeros(0)
    return Event(point={"id": whole, "x": real, "y": real, "z": real, "object": whole})


def page_of(path: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text("utf-8"), re.DOTALL)
    assert found
    page: dict[str, Any] = json.loads(found[1])
    return page


def unpack(text: str, kind: str) -> np.ndarray[Any, Any]:
    return np.frombuffer(base64.b64decode(text), kind)


def test_flight_order_follows_tracks_outwards() -> None:
    event = make_event()
    drawn = picture(event, event)
    assert drawn.tracks == 12
    assert np.array_equal(np.diff(drawn.bounds), np.full(12, len(RADII)))
    for track in range(drawn.tracks):
        hits = drawn.path[drawn.bounds[track] : drawn.bounds[track + 1]]
        assert np.all(drawn.track[hits] == track)
        np.testing.assert_allclose(np.hypot(*drawn.xyz[hits, :2].T), RADII, rtol=1e-4)


def test_flight_order_follows_a_curling_particle_and_survives_a_huge_object() -> None:
    turn = np.linspace(0, 1.9 * np.pi, 30)
    circle = np.stack([200 * (1 - np.cos(turn)), 200 * np.sin(turn), 3 * turn], axis=1).astype(np.float32)
    shuffled = np.random.default_rng(0).permutation(30)
    path, bounds = flight_order(circle[shuffled], np.zeros(30, np.int64), 1)
    assert np.array_equal(shuffled[path], np.arange(30))
    assert bounds.tolist() == [0, 30]
    path, _ = flight_order(np.random.default_rng(0).normal(size=(5000, 3)).astype(np.float32), np.zeros(5000, int), 1)
    assert np.array_equal(np.sort(path), np.arange(5000))


def test_curves_pass_through_the_helix_and_stay_straight_at_wrong_hits() -> None:
    event = make_event(noise=0)
    curve = picture(event, event).curve(0).astype(np.float64)
    p = {name: float(column[0]) for name, column in event.object.items()}
    helix = Helix(p["d0"], p["z0"], p["phi"], p["eta"], p["charge"], p["pt"])
    x, y, z = helix.at(helix.arc_to_radius(np.hypot(curve[:, 0], curve[:, 1])))
    np.testing.assert_allclose(curve, np.stack([x, y, z], axis=1), atol=1.0)
    zigzag = Event(
        point={
            "id": torch.arange(3),
            "x": torch.tensor([50.0, 100.0, 140.0]),
            "y": torch.tensor([0.0, 0.0, 300.0]),
            "z": torch.zeros(3),
            "object": torch.zeros(3, dtype=torch.int64),
        },
        object={"pt": torch.tensor([1.0])},
    )
    assert len(picture(zigzag, zigzag).curve(0)) == 3


def test_layers_are_cylinders_and_disks() -> None:
    event = make_event(tracks=40, noise=0)
    lines = layers(event)
    np.testing.assert_allclose(lines[:, 0], RADII, rtol=1e-4)
    assert np.array_equal(lines[:, 0], lines[:, 2])
    disk = Event(point={**event.point, "z": torch.full_like(event.point["z"], 600.0), "layer": event.point["volume"]})
    assert np.allclose(layers(disk)[0, [1, 3]], 600)
    assert len(layers(empty())) == 0


def test_truth_objects_get_perigee_parameters() -> None:
    event = make_event(tracks=1)
    momentum = {"px": [1.0, 0.0], "py": [0.0, 2.0], "pz": [1.0, 0.0], "charge": [1.0, 0.0]}
    columns = {**momentum, "vx": [0.0, 0.0], "vy": [0.0, 0.0], "vz": [5.0, 6.0]}
    drawn = picture(event, event.with_level("object", {k: torch.tensor(v) for k, v in columns.items()}))
    np.testing.assert_allclose(drawn.parameters["pt"], [1, 2])
    np.testing.assert_allclose(drawn.parameters["z0"], [5, 6])
    np.testing.assert_allclose(drawn.parameters["eta"], [np.arcsinh(1), 0], rtol=1e-6)


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_plot_event_writes_every_format_the_same_each_time(tmp_path: Path, suffix: str) -> None:
    event = make_event()
    event = event.with_columns("object", pt=torch.where(torch.arange(12) == 3, torch.nan, event.object["pt"]))
    names = "a" if suffix == "png" else "ab"
    for name in names:
        plot_event(event, event, tmp_path / "new" / f"{name}.{suffix}", pt_min=0.0)
    written = [(tmp_path / "new" / f"{name}.{suffix}").read_bytes() for name in names]
    assert len(written[0]) > 5000
    assert len(set(written)) == 1
    assert len(list((tmp_path / "new").iterdir())) == len(names)


def test_the_fonts_of_formulas_are_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that lacked them, made by another program, had drawn a substitute for every Greek letter."""
    monkeypatch.setattr(fontManager, "ttflist", [f for f in fontManager.ttflist if not f.name.startswith("STIX")])
    find_fonts()
    assert {"STIXGeneral", "STIXNonUnicode", "STIXSizeOneSym"} <= {font.name for font in fontManager.ttflist}


@pytest.mark.parametrize("tracks", [empty(), Event()])
def test_nothing_to_draw_is_drawn(tmp_path: Path, tracks: Event) -> None:
    plot_event(empty(), tracks, tmp_path / "a.png")
    write_display(empty(), tracks, tmp_path / "a.html")
    assert page_of(tmp_path / "a.html")["xyz"] == ""


def test_plot_efficiency_takes_fractions_arrays_and_empty_bins(tmp_path: Path) -> None:
    edges = np.geomspace(0.5, 50, 5)
    ours = Fraction(np.array([90, 45, 9, 0]), np.array([100, 50, 10, 0]))
    theirs = ([0.8, 0.7, np.nan, 0.5], [0.7, 0.6, np.nan, 0.4], [0.9, 0.8, np.nan, 0.6])
    plot_efficiency([Curve("ours", edges, ours), Curve("theirs", edges, *theirs)], tmp_path / "pt.png", "pt", title="T")
    plot_efficiency([Curve("bare", [-1, 0, 1], [0.01, 0.02])], tmp_path / "eta.pdf", "eta", quantity="Fake rate")
    plot_efficiency([Curve("none", [-1, 1], [np.nan])], tmp_path / "other.svg", "Angle [rad]")
    assert {path.name for path in tmp_path.iterdir()} == {"pt.png", "eta.pdf", "other.svg"}


def test_display_holds_hits_tracks_and_truth(tmp_path: Path) -> None:
    event = make_event()
    label = event.point["object"].clone()
    label[label == 5] = -1  # missed
    keep = torch.randperm(len(label), generator=torch.Generator().manual_seed(0))
    predicted = Event(point={"id": event.point["id"][keep], "object": label[keep]}, object=event.object)
    write_display(event, predicted, tmp_path / "a.html", truth=event, title="A </script> <b>{{data}}</b>")
    page = page_of(tmp_path / "a.html")
    assert page["title"] == "A </script> <b>{{data}}</b>"
    xyz = unpack(page["xyz"], "<i2").reshape(3, -1).T * page["step"]
    hits, noise = unpack(page["tracks"]["hits"], "<u4"), unpack(page["noise"], "u1")
    assert hits.tolist() == [0 if i == 5 else len(RADII) for i in range(12)]
    assert np.sort(np.hypot(*xyz[hits.sum() :][noise[hits.sum() :] == 0, :2].T)) == pytest.approx(RADII, abs=0.05)
    np.testing.assert_allclose(np.hypot(*xyz[: hits.sum(), :2].T).reshape(-1, 8), np.tile(RADII, (11, 1)), atol=0.05)
    assert int(noise.sum()) == 20
    np.testing.assert_array_equal(unpack(page["tracks"]["pt"], "<f4"), event.object["pt"].numpy())
    assert unpack(page["match"], "u1").tolist() == [int(i != 5) for i in range(12)]
    missed = unpack(page["missed"]["path"], "<u4")
    np.testing.assert_allclose(np.hypot(*xyz[missed, :2].T), RADII, atol=0.05)


def test_display_needs_no_network(tmp_path: Path) -> None:
    event = make_event()
    write_display(event, event, tmp_path / "a.html")
    text = (tmp_path / "a.html").read_text("utf-8")
    assert "default-src 'none'" in text
    assert not re.search(r"https?:|<link|<img|\bsrc=|@import|fetch\(|import\(|\{\{", text)
    assert text.count("<script") == 2
    assert page_of(tmp_path / "a.html")["title"] == "Event 7"
    node = shutil.which("node")
    if node:
        (tmp_path / "a.js").write_text(text.split("<script>")[1].split("</script>")[0], "utf-8")
        subprocess.run([node, "--check", str(tmp_path / "a.js")], check=True)


def test_display_of_many_hits_is_small_and_precise(tmp_path: Path) -> None:
    xyz = torch.empty(100_000, 3).uniform_(-3000, 3000, generator=torch.Generator().manual_seed(0))
    row = torch.arange(100_000) // 10
    x, y, z = xyz.unbind(1)
    parameters = {name: torch.ones(10_000) for name in ("pt", "eta", "phi", "d0", "z0", "charge")}
    event = Event(point={"id": torch.arange(100_000), "x": x, "y": y, "z": z, "object": row}, object=parameters)
    write_display(event, event, tmp_path / "a.html", truth=event)
    assert (tmp_path / "a.html").stat().st_size < 2e6
    page = page_of(tmp_path / "a.html")
    assert page["step"] < 0.1
    assert np.sort(unpack(page["xyz"], "<i2")[:100_000] * page["step"]) == pytest.approx(np.sort(x.numpy()), abs=0.05)


def test_bad_input_is_named(tmp_path: Path) -> None:
    event = make_event()
    path = tmp_path / "a.png"
    with pytest.raises(UserError, match="one event at a time"):
        plot_event(batch([event, event]), batch([event, event]), path)
    with pytest.raises(UserError, match=r"no column point\.x"):
        plot_event(Event(point={"id": event.point["id"]}), event, path)
    with pytest.raises(UserError, match="position of hit row 2"):
        plot_event(
            event.with_columns("point", y=event.point["y"].index_fill(0, torch.tensor([2]), torch.nan)), event, path
        )
    with pytest.raises(UserError, match="not in the truth"):
        write_display(event, event.with_columns("point", id=event.point["id"] + 1), tmp_path / "a.html")
    with pytest.raises(UserError, match=r"\.png, \.pdf or \.svg"):
        plot_event(event, event, tmp_path / "a.bmp")
    with pytest.raises(UserError, match="no curves"):
        plot_efficiency([], path, "pt")
    with pytest.raises(UserError, match=r"'ours': value has shape \(2,\)"):
        plot_efficiency([Curve("ours", [1, 2], [0.1, 0.2])], path, "pt")
    with pytest.raises(UserError, match=r"log.* axis"):
        plot_efficiency([Curve("ours", [0, 2], [0.1])], path, "pt")
    assert not list(tmp_path.iterdir())


def test_tables() -> None:
    rows = [
        {
            "finder": "ours | GNN",
            "efficiency": Fraction(np.array(962), np.array(1000)),
            "time": 0.01234,
            "memory": 312e6,
        },
        {"finder": "[bold]CKF", "efficiency": Fraction(np.array(1), np.array(2)), "time": 185.0},
    ]
    columns = [
        Column("finder", "Finder"),
        Column("efficiency", "Efficiency", percent),
        Column("time", "Time", seconds),
        Column("memory", "Memory", memory),
    ]
    table = markdown_table(rows, columns).splitlines()
    assert len({len(line) for line in table}) == 1
    assert table[1].startswith("| ---")
    assert table[1].endswith("---: |")
    assert table[2].startswith("| ours \\| GNN |")
    assert "96.20 +0.61 −0.71 %" in table[2]
    assert "12.3 ms" in table[2]
    assert "312 MB" in table[2]
    assert "3 min 05 s" in table[3]
    assert table[3].endswith("– |")
    console = Console(width=120, file=io.StringIO())
    console.print(console_table(rows, columns, "Finders"))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[bold]CKF" in text
    assert "96.20 +0.61 −0.71 %" in text
    assert "Finders" in text
    assert markdown_table([], ["a"]) == "| a   |\n| --- |"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (seconds(2e-5), "20 µs"),
        (seconds(0.9999), "1 s"),
        (seconds(59.99), "60 s"),
        (seconds(119.7), "2 min 00 s"),
        (seconds(7800), "2 h 10 min"),
        (seconds(float("nan")), "–"),
        (memory(999.7e6), "1 GB"),
        (memory(12), "12 B"),
        (plain(1234567), "1\u202f234\u202f567"),
        (plain(0.123456), "0.1235"),
        (plain(float("nan")), "–"),
        (plain("text"), "text"),
        (percent(0.5), "50 %"),
        (measured(Fraction(np.array(0), np.array(0))), "–"),
        (measured(Fraction(np.array(5000), np.array(10000))), "0.5000 ± 0.0050"),
    ],
)
def test_numbers_are_written_briefly(written: str, expected: str) -> None:
    assert written == expected
