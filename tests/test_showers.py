"""Showers by Geant4, overlaid; where geant4-pybind or xraylib is missing, only what needs neither is tested."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cloudchamber.__main__ import app
from cloudchamber.data import geant4data, open_events
from cloudchamber.data.sampling import CELL, DEPTH, LAYERS, MOLIERE, PITCH, X0, Simulator
from cloudchamber.data.showers import FOLDER, SIDE, THRESHOLD, ShowersConfig, library, overlay, simulate
from cloudchamber.errors import UserError
from cloudchamber.evaluate import evaluate
from cloudchamber.event import Event, batch, unbatch
from cloudchamber.metrics import Showers
from cloudchamber.reconstruct import Reconstructor

geant4 = pytest.mark.skipif(
    find_spec("geant4_pybind") is None or find_spec("xraylib") is None, reason="needs cloudchamber[geant4]"
)
QUIET = ShowersConfig(noise=False, least=2, most=2, seed=7)


def _single(energy: float = 2.0, dx: float = 0.1) -> Event:
    """A shower made by hand: 1 GeV in the cell of its axis, 0.5 GeV in (3, 1), and a deposit below threshold."""
    columns = {"energy": energy, "x": 1.0, "y": -2.0, "dx": dx, "dy": 0.0}
    return Event(
        point={
            "layer": torch.tensor([5, 6, 7]),
            "ix": torch.tensor([0, 3, 0]),
            "iy": torch.tensor([0, 1, 0]),
            "energy": torch.tensor([1.0, 0.5, 1e-5]),
        },
        object={"pdg": torch.tensor([22])} | {name: torch.tensor([value]) for name, value in columns.items()},
    )


def test_deposits_add_up_and_the_largest_share_owns_a_cell():
    for number in range(40):
        event = overlay(QUIET, [_single()], number)
        total = np.bincount(event.cell["point"], event.cell["energy"], minlength=event.rows("point"))
        np.testing.assert_allclose(event.point["energy"], total, rtol=1e-6)
        np.testing.assert_allclose(event.object["seen"], 1.5)
        assert event.rows("object") == 2
        shares = torch.zeros(event.rows("point"), 2)
        shares[event.cell["point"], event.cell["object"]] = event.cell["energy"]
        owner = event.point["object"][:, None]
        assert torch.equal(shares.gather(1, owner)[:, 0], shares.max(1).values)


def test_cells_lie_where_the_shower_was_turned_and_placed():
    seen = set()
    for number in range(60):
        event = overlay(QUIET, [_single()], number)
        for shower in range(2):
            own = {name: float(event.object[name][shower]) for name in ("x", "y", "dx", "dy")}
            mine = event.cell["point"][event.cell["object"] == shower]
            mine = mine[torch.argsort(event.point["z"][mine])]
            x, y, z = (event.point[name][mine].numpy() for name in "xyz")
            np.testing.assert_allclose(z, [5.5 * PITCH, 6.5 * PITCH], rtol=1e-6)
            assert max(abs(own["x"] - x[0]), abs(own["y"] - y[0])) <= CELL / 2
            assert sorted((abs(x[1] - x[0]), abs(y[1] - y[0]))) == [CELL, 3 * CELL]
            # the slope points to the side on which the second cell is three cells away
            along = (own["dx"] * (x[1] - x[0]), own["dy"] * (y[1] - y[0]))
            assert max(along) == pytest.approx(0.1 * 3 * CELL)
            seen.add((np.sign(x[1] - x[0]), np.sign(y[1] - y[0]), abs(x[1] - x[0]) > CELL))
    assert len(seen) == 8


def test_noise_is_what_the_threshold_lets_through():
    config = ShowersConfig(least=0, most=0)
    events = [overlay(config, [_single()], number) for number in range(20)]
    number = np.mean([event.rows("point") for event in events])
    expected = 4.29e-4 * LAYERS * SIDE**2  # one side of a Gaussian beyond 3.333 standard deviations
    assert abs(number - expected) < 4 * np.sqrt(expected / 20)
    energy = torch.cat([event.point["energy"] for event in events])
    assert float(energy.min()) >= THRESHOLD
    assert float(energy.mean()) < 1.2 * THRESHOLD
    assert all(bool((event.point["object"] == -1).all()) for event in events)


def test_an_event_depends_on_its_seed_and_number_alone():
    config = ShowersConfig(seed=3)
    first, again = (overlay(config, [_single(), _single(5.0)], 4) for _ in range(2))
    assert all(torch.equal(first.point[name], again.point[name]) for name in first.point)
    other = overlay(config, [_single(), _single(5.0)], 5)
    assert not torch.equal(first.point["id"], other.point["id"])


def test_shares_stay_with_their_event_in_a_batch():
    events = [overlay(QUIET, [_single()], number) for number in range(3)]
    for event, part in zip(events, unbatch(batch(events)), strict=True):
        assert all(torch.equal(event.cell[name], part.cell[name]) for name in event.cell)


def test_close_showers_are_within_so_many_moliere_radii():
    config = ShowersConfig(noise=False, least=2, most=2, close=1.0, within=1.5)
    apart = []
    for number in range(60):
        event = overlay(config, [_single()], number)
        apart.append(float(torch.hypot(*(event.object[name].diff() for name in "xy"))))
    assert 0.8 * 1.5 * MOLIERE < max(apart) <= 1.5 * MOLIERE + 2**0.5 * CELL  # whole cells, and places within them
    assert np.median(apart) == pytest.approx(1.5 * MOLIERE / 2**0.5, abs=CELL)  # uniform over a disc


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"energy_min": 5.0, "energy_max": 2.0}, "energy_min < energy_max"),
        ({"least": 3, "most": 2}, "least <= most"),
        ({"close": 1.5}, "close from 0 to 1"),
        ({"within": -1.0}, "within from 0 to 20"),
        ({"library": 0}, "library >= 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        ShowersConfig(**settings)


@pytest.mark.parametrize(("z", "mass", "published"), [(14, 28.0855, 21.82), (74, 183.84, 6.76), (82, 207.2, 6.37)])
def test_radiation_lengths_are_those_of_the_pdg(z, mass, published):
    """Atomic and nuclear properties, PDG, g/cm^2."""
    assert geant4data.radiation_length(z, mass) == pytest.approx(published, rel=0.01)


def test_mixture_has_the_radiation_length_and_moliere_radius_of_the_pdg_rules():
    weight, x0, critical = np.array([1.4 * 19.3, 0.3 * 2.33]), np.array([6.76, 21.82]), np.array([7.97, 40.19])
    density, share = weight.sum() / 1.7 / 10, weight / weight.sum()  # g/cm^2 per mm
    assert pytest.approx(1 / (share / x0).sum() / density, rel=0.01) == X0
    assert pytest.approx(21.2 / (share * critical / x0).sum() / density, rel=0.01) == MOLIERE


@geant4
def test_showers_are_those_of_geant4(tmp_path: Path):
    """Response, its spread, the depth of the maximum and the width of showers of 2 GeV, against formulas."""
    simulator, zero = Simulator(), np.zeros(2)
    showers = [simulator.shower(11, 2.0, zero, zero, seed) for seed in range(40)]
    again = simulator.shower(11, 2.0, zero, zero, 3)
    assert all(np.array_equal(again[name], showers[3][name]) for name in again)
    response = np.array([shower["energy"].sum() for shower in showers]) / 2.0
    assert response.mean() == pytest.approx(1.0, abs=0.05)
    assert 0.11 < response.std() * np.sqrt(2.0) < 0.20  # sampling: 13 to 15% over the root of the energy
    cells = {name: np.concatenate([shower[name] for shower in showers]) for name in showers[0]}
    profile = np.bincount(cells["layer"], cells["energy"], minlength=LAYERS)
    depth = (np.arange(LAYERS) + 0.5) * PITCH / X0
    mean = np.average(depth, weights=profile)
    variance = np.average((depth - mean) ** 2, weights=profile)
    peak = mean - variance / mean  # of a gamma function of this mean and variance
    # Grindhammer and Peters, hep-ex/0001020, of a sampling calorimeter with e/mip = 0.65 and Ec = 21.2 MeV X0 / Moliere
    critical, gap = 21.2 * X0 / MOLIERE, 1.7 / X0
    assert peak == pytest.approx(np.log(2000 / critical) - 0.858 - 0.59 * gap - 0.53 * (1 - 0.65), abs=0.3)
    radius = np.hypot(cells["ix"], cells["iy"]) * CELL
    inside = cells["energy"][radius < MOLIERE].sum() / cells["energy"].sum()
    assert inside == pytest.approx(0.9, abs=0.05)


@geant4
def test_geant4_is_started_anew_where_it_ended(monkeypatch: pytest.MonkeyPatch):
    simulator, zero = Simulator(), np.zeros(2)
    before = simulator.shower(22, 0.5, zero, zero, 7)
    simulator.process.kill()
    after = simulator.shower(22, 0.5, zero, zero, 7)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    simulator.process.kill()
    start = Simulator._start

    def start_and_end(self: Simulator) -> None:
        start(self)
        self.process.kill()

    monkeypatch.setattr(Simulator, "_start", start_and_end)
    with pytest.raises(UserError, match="3 times in a row, at last with status -9"):
        simulator.shower(22, 0.5, zero, zero, 7)


@geant4
def test_events_are_the_same_for_any_number_of_processes(tmp_path: Path):
    config = ShowersConfig(energy_min=0.1, energy_max=0.2, library=21, seed=5)
    one, two = (list(simulate(config, 2, tmp_path / str(workers), workers)) for workers in (1, 2))
    for a, b in zip(one, two, strict=True):
        assert all(torch.equal(a.point[name], b.point[name]) for name in a.point)
    kept = sorted((tmp_path / "1" / FOLDER).iterdir())
    before = [path.stat().st_mtime_ns for path in kept]
    assert len(library(config, tmp_path / "1" / FOLDER)) == 21
    assert [path.stat().st_mtime_ns for path in kept] == before
    other = ShowersConfig(energy_min=0.1, energy_max=0.3, library=21, seed=5)
    with pytest.raises(UserError, match="expected"):
        library(other, tmp_path / "1" / FOLDER)
    many = CliRunner().invoke(app, [
        "simulate", "showers", "--events", "2", "--energy-min", "0.1", "--energy-max", "0.2", "--library", "21",
        "--seed", "5", "-o", str(tmp_path / "1"),
    ])  # fmt: skip
    assert many.exit_code == 0, many.output
    written = open_events(tmp_path / "1")
    assert len(written) == 2
    assert torch.equal(written[1].cell["energy"], one[1].cell["energy"])


@geant4
def test_the_network_that_ships_finds_showers(tmp_path: Path):
    config = ShowersConfig(energy_max=10.0, library=40, least=3, most=6, close=0.0, seed=11)
    events = list(simulate(config, 12, tmp_path))
    find = Reconstructor("showers")
    scores = evaluate([find(event) for event in events], events)
    found = Showers.join(scores.showers)
    assert found.efficiency().low > 0.85
    assert found.fake_rate().high < 0.1
    right = found.measured[found.found] / found.energy[found.found]
    assert np.median(right) == pytest.approx(1.0, abs=0.05)


@geant4
def test_axis_crosses_the_plane_where_it_should():
    simulator = Simulator()
    cells = simulator.shower(11, 3.0, np.array([2.0, -1.0]), np.array([0.1, 0.0]), 1)
    x = np.average(cells["ix"], weights=cells["energy"]) * CELL
    z = (np.average(cells["layer"], weights=cells["energy"]) + 0.5) * PITCH
    assert x == pytest.approx(2.0 + 0.1 * (z - DEPTH), abs=1.5)
