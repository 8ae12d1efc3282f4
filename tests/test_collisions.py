"""Simulated collisions: columns, truth, reproducibility and mistakes."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch

from cloudchamber.data import detector
from cloudchamber.data.collisions import CollisionsConfig, is_primary, simulate, simulate_many
from cloudchamber.data.transport import ID_BITS, pack, unpack
from cloudchamber.errors import UserError
from cloudchamber.event import LEVELS, Event

pytest.importorskip("acts", reason="needs cloudchamber[simulate]")
pytest.importorskip("pythia8mc", reason="needs cloudchamber[simulate]")

SOFT = ("SoftQCD:nonDiffractive = on",)
SMALL = CollisionsConfig(pileup=4, soft=SOFT, seed=11)
#: Pile-up alone starts fastest.
TINY = CollisionsConfig(process=(), pileup=3, soft=SOFT, seed=3)

POINT = {"id", "volume", "layer", "module", "object"}, {"x", "y", "z", "tx", "ty", "tz", "tpx", "tpy", "tpz"}
OBJECT = {"id", "pdg", "hits"}, {"vx", "vy", "vz", "px", "py", "pz", "charge"}


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return list(simulate(SMALL, 3))


def same(one: Event, other: Event) -> bool:
    """Whether two events are equal to the bit."""
    return all(
        getattr(one, level).keys() == getattr(other, level).keys()
        and all(torch.equal(column, getattr(other, level)[name]) for name, column in getattr(one, level).items())
        for level in LEVELS
    )


def test_columns(events: list[Event]) -> None:
    for number, event in enumerate(events):
        for level, (whole, real) in {
            "point": POINT,
            "object": OBJECT,
            "cell": ({"point", "u", "v"}, {"value"}),
        }.items():
            kinds = {name: column.dtype for name, column in getattr(event, level).items() if name != "weight"}
            assert kinds == dict.fromkeys(whole, torch.int64) | dict.fromkeys(real, torch.float32)
        assert event.point["weight"].dtype == torch.float64
        assert event.scene["id"].tolist() == [number]
        assert event.rows("point") > 500
        assert event.rows("object") > 50
        assert all(torch.isfinite(column).all() for level in LEVELS for column in getattr(event, level).values())


def test_hits_are_in_trackmls_order(events: list[Event]) -> None:
    for event in events:
        point = event.point
        assert torch.equal(point["id"], torch.arange(1, event.rows("point") + 1))
        place = (point["volume"] << 40) + (point["layer"] << 20) + point["module"]
        assert (place.diff() >= 0).all()


def test_truth(events: list[Event]) -> None:
    for event in events:
        point, particles = event.point, event.object
        real = point["object"] >= 0
        assert torch.equal(particles["hits"], torch.bincount(point["object"][real], minlength=event.rows("object")))
        assert len(particles["id"].unique()) == event.rows("object")
        assert (particles["charge"].abs() == 1).all()
        assert point["weight"].sum() == pytest.approx(1.0)
        assert (point["weight"][~real] == 0).all()
        assert (point["tpx"][~real] == 0).all()
        momentum = torch.stack([point[name] for name in ("tpx", "tpy", "tpz")], dim=1)[real].norm(dim=1)
        at_birth = torch.stack([particles[name] for name in ("px", "py", "pz")], dim=1).norm(dim=1)
        ratio = momentum / at_birth[point["object"][real]]
        assert ratio.median() == pytest.approx(1.0, abs=0.02)
        assert (ratio < 1.001).all()


def test_primaries_and_secondaries(events: list[Event]) -> None:
    found = torch.cat([event.object["id"] for event in events])
    radius = torch.cat([torch.hypot(event.object["vx"], event.object["vy"]) for event in events])
    primary = is_primary(found)
    assert 0.5 < primary.float().mean() < 1.0
    assert (radius[~primary] > 18.0).all()  # the beam pipe is the first matter
    assert (radius[primary] < 1.0).float().mean() > 0.8
    kinds = torch.cat([event.object["pdg"] for event in events])
    # Conversions, and what comes out of nuclei.
    assert (kinds[~primary].abs() == 11).float().mean() > 0.2
    assert torch.isin(kinds[~primary].abs(), torch.tensor([211, 321, 2212])).float().mean() > 0.2


def test_positions(events: list[Event]) -> None:
    modules = detector.load()
    for event in events:
        point = {name: column.numpy() for name, column in event.point.items()}
        rows = modules.rows(point["volume"], point["layer"], point["module"])
        found, true = (
            modules.to_local(rows, torch.stack([event.point[n] for n in names], dim=1).double().numpy())
            for names in ("xyz", ("tx", "ty", "tz"))
        )
        pixel = point["volume"] < 10
        assert abs(found[:, 2]).max() < 1e-3
        assert abs((found - true)[pixel, 0]).mean() < 0.0125
        assert abs((found - true)[:, 0]).max() < 1.0
        cell = event.cell["point"]
        assert (cell.diff() >= 0).all()
        assert torch.equal(cell.unique(), torch.arange(event.rows("point")))


def test_noise_fraction(events: list[Event]) -> None:
    points = sum(event.rows("point") for event in events)
    noise = sum(int((event.point["object"] < 0).sum()) for event in events)
    assert abs(noise / points - 0.15) < 5 * (0.15 * 0.85 / points) ** 0.5
    clean = next(simulate(replace(TINY, noise=0.0), 1))
    assert (clean.point["object"] >= 0).all()


def test_an_event_depends_on_seed_and_number_alone(events: list[Event]) -> None:
    assert same(next(simulate(SMALL, 1, first=2)), events[2])
    assert not same(next(simulate(replace(SMALL, seed=12), 1)), events[0])


@pytest.mark.slow
def test_processes_do_not_change_events() -> None:
    alone = list(simulate_many(TINY, 5, workers=1, first=7))
    shared = list(simulate_many(TINY, 5, workers=2, first=7))
    assert [int(event.scene["id"][0]) for event in shared] == [7, 8, 9, 10, 11]
    assert all(same(one, other) for one, other in zip(alone, shared, strict=True))


def test_nothing_happens() -> None:
    event = next(simulate(replace(TINY, pileup=0), 1))
    assert event.rows("point") == event.rows("object") == event.rows("cell") == 0
    assert len(event) == 1
    assert set(event.point) >= POINT[0] | POINT[1]
    assert list(simulate_many(TINY, 0, workers=2)) == []


def test_particle_ids() -> None:
    # Vertex, particle, generation, sub-particle, secondary vertex; the first two are ids of a real TrackML event.
    codes = torch.tensor([[1, 1, 0, 0, 0], [1, 27, 2, 1, 1], [2047, 65535, 4095, 4095, 4095]])
    columns = dict(zip(ID_BITS, codes.numpy().T, strict=True))
    ids = torch.from_numpy(pack(columns))
    assert ids.tolist() == [4503668346847232, (1 << 52) + (27 << 36) + (2 << 24) + (1 << 12) + 1, 2**63 - 1]
    assert is_primary(ids).tolist() == [True, False, False]
    assert all((unpack(ids.numpy())[name] == columns[name]).all() for name in ID_BITS)
    with pytest.raises(ValueError, match="vertexPrimary 2048 does not fit into 11 bits"):
        pack(columns | {"vertexPrimary": columns["vertexPrimary"] + 1})


@pytest.mark.parametrize("setting", ["Top:gg2ttbarr = on", "nonsense"])
def test_unknown_setting(setting: str) -> None:
    with pytest.raises(UserError, match=f"Pythia does not know the setting '{setting}'"):
        next(simulate(replace(TINY, soft=(*SOFT, setting)), 1))


def test_impossible_settings() -> None:
    with pytest.raises(UserError, match="Pythia cannot start"):
        next(simulate(replace(TINY, soft=("SoftQCD:all = off",)), 1))


@pytest.mark.parametrize("given", [{"noise": 1.0}, {"noise": -0.1}, {"pileup": -1}, {"pileup": 5000}, {"seed": -1}])
def test_impossible_config(given: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(given))):
        CollisionsConfig(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize("module", ["acts", "pythia8mc"])
def test_missing_packages(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"glibc >= 2.34.*pip install 'cloudchamber\[simulate\]'"):
        next(simulate(TINY, 1))


def test_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    next(simulate(TINY, 1))
    assert capfd.readouterr() == ("", "")
