"""Nuclear interactions in the material: how many there are, and what comes out of them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from cloudchamber.data.collisions import CollisionsConfig, is_primary, simulate
from cloudchamber.data.interactions import _ends, _frame
from cloudchamber.errors import UserError
from cloudchamber.event import Event

pytest.importorskip("acts", reason="needs cloudchamber[simulate]")
pytest.importorskip("pythia8mc", reason="needs cloudchamber[simulate]")

TINY = CollisionsConfig(process=(), pileup=20, soft=("SoftQCD:nonDiffractive = on",), noise=0.0, seed=5)


@pytest.fixture(scope="module")
def event() -> Event:
    return next(simulate(TINY, 1))


def test_as_many_meet_a_nucleus_as_the_material_says() -> None:
    rng = np.random.default_rng(1)
    number, hits = 20_000, 5
    owner = np.repeat(np.arange(number), hits)
    time = np.tile(np.arange(hits, dtype=np.float64), number)
    shuffled = rng.permutation(len(owner))
    kinds = np.array([211, -321, 2212, 11, 13])
    particles = {"id": np.arange(number), "x0": np.full(number, 0.5), "pdg": kinds[np.arange(number) % 5]}
    last = _ends({"object": owner[shuffled], "time": time[shuffled]}, particles, 0.4, rng)
    hadron = np.isin(particles["pdg"], kinds[:3])
    assert (last[~hadron] == -1).all()
    expected = 1 - math.exp(-0.4 * 0.5)
    trials = hadron.sum()
    assert abs((last[hadron] >= 0).mean() - expected) < 4 * math.sqrt(expected * (1 - expected) / trials)
    met = np.flatnonzero(last >= 0)
    assert (owner[shuffled][last[met]] == met).all()
    # The deeper, the rarer: the share of those that are left falls alike behind each hit.
    behind = np.bincount(time[shuffled][last[met]].astype(int), minlength=hits)
    left = trials - np.cumsum(behind) + behind
    assert abs(behind / left - (1 - math.exp(-0.4 * 0.5 / hits))).max() < 4 * math.sqrt(0.04 / trials)


def test_frame_turns_the_last_axis() -> None:
    rng = np.random.default_rng(2)
    for axis in (*np.eye(3), *rng.normal(size=(20, 3))):
        unit = axis / np.linalg.norm(axis)
        turn = _frame(unit)
        assert np.allclose(turn @ turn.T, np.eye(3), atol=1e-12)
        assert np.allclose([0, 0, 1] @ turn, unit)
        assert np.linalg.det(turn) == pytest.approx(1.0)


def test_secondaries_begin_where_hadrons_end(event: Event) -> None:
    """The place is half a millimetre behind a hit of a generated hadron; ids stay unique."""
    particles, point = event.object, event.point
    generation = (particles["id"] >> 24) & 0xFFF
    made = torch.isin(particles["pdg"].abs(), torch.tensor([211, 321, 2212])) & (generation == 1)
    assert made.sum() > 20
    begin = torch.stack([particles[name] for name in ("vx", "vy", "vz")], dim=1)[made].double()
    place = torch.stack([point[name] for name in ("tx", "ty", "tz")], dim=1).double()
    near = torch.cdist(begin, place)
    hadron = torch.isin(particles["pdg"].abs(), torch.tensor([211, 321, 2212])) & (generation == 0)
    parent = hadron[point["object"]]
    at_parent = near[:, parent] < 0.51
    # All but the decays of what came out of a collision.
    assert at_parent.any(dim=1).float().mean() > 0.9
    assert len(particles["id"].unique()) == event.rows("object")


def test_energy_is_not_made(event: Event) -> None:
    """What comes out of a hadron has at most its energy and that of the nucleon, where it is charged."""
    particles = event.object
    code = particles["id"]
    family = code & ~((0xFFFFFF << 12) | 0xFFF)
    momentum = torch.stack([particles[name] for name in ("px", "py", "pz")], dim=1).double().norm(dim=1)
    first = is_primary(code)
    at_birth = dict(zip(family[first].tolist(), momentum[first].tolist(), strict=True))
    children = torch.isin(particles["pdg"].abs(), torch.tensor([211, 321])) & ((code >> 24) & 0xFFF == 1)
    for parent, child in zip(family[children].tolist(), momentum[children].tolist(), strict=True):
        # An antiproton at rest gives its mass besides.
        assert child < at_birth[parent] + 2.0


def test_without(event: Event) -> None:
    bare = next(simulate(replace(TINY, interactions=0.0), 1))
    assert is_primary(bare.object["id"]).sum() == is_primary(event.object["id"]).sum()
    assert bare.object["pdg"][~is_primary(bare.object["id"])].abs().unique().tolist() == [11]
    stiff = (torch.hypot(bare.object["px"], bare.object["py"]) > 0.5) & is_primary(bare.object["id"])
    central = (bare.object["pz"] / torch.hypot(bare.object["px"], bare.object["py"])).abs() < 1
    begun = torch.hypot(bare.object["vx"], bare.object["vy"]) < 1
    assert (bare.object["hits"][stiff & central & begun] >= 9).all()
    with pytest.raises(UserError, match="interactions is a ratio of lengths"):
        CollisionsConfig(interactions=-1)
