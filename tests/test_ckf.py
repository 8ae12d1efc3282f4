"""The ACTS peer: finds the tracks of a small simulated event, without truth."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import numpy as np
import pytest
import torch

from cloudchamber import physics
from cloudchamber.data import detector
from cloudchamber.errors import UserError
from cloudchamber.evaluate import evaluate
from cloudchamber.event import Event
from cloudchamber.metrics.match import Match, matched

pytest.importorskip("acts")
pytest.importorskip("pythia8mc")


@pytest.fixture(scope="module")
def ckf() -> ModuleType:
    return import_module("bench.ckf")


@pytest.fixture(scope="module")
def acts_io(ckf: ModuleType) -> ModuleType:
    return import_module("bench.acts_io")


@pytest.fixture(scope="module")
def event() -> Event:
    from cloudchamber.data.collisions import CollisionsConfig, simulate

    return next(iter(simulate(CollisionsConfig(pileup=0.0, noise=0.05), 1)))


@pytest.fixture(scope="module")
def hits(event: Event) -> Event:
    """The event without truth."""
    return Event(point={name: event.point[name] for name in ("id", "x", "y", "z", "volume", "layer", "module")})


@pytest.fixture(scope="module")
def result(ckf: ModuleType, hits: Event):  # type: ignore[no-untyped-def]
    return ckf.Ckf("D")(hits)


def test_rates(ckf: ModuleType, event: Event, result) -> None:  # type: ignore[no-untyped-def]
    rates = evaluate([result.tracks], [event]).rates["pT > 0.5 GeV"]["double"]
    assert rates["efficiency"].value > 0.85
    assert rates["fake_rate"].value < 0.1
    assert list(result.seconds) == list(result.cpu) == list(ckf.STEPS)
    assert all(result.cpu[name] > 0 for name in ckf.STEPS if name != "removal")
    assert result.cpu["removal"] == 0


def test_tracks_are_an_event(hits: Event, result) -> None:  # type: ignore[no-untyped-def]
    tracks = result.tracks
    assert torch.equal(tracks.point["id"], hits.point["id"])
    owner = tracks.point["object"]
    assert int(owner.min()) == -1
    assert torch.equal(torch.bincount(owner[owner >= 0], minlength=tracks.rows("object")), tracks.object["hits"])
    assert set(tracks.object) == {"charge", "pt", "eta", "phi", "d0", "z0", "hits"}


def test_parameters_are_those_of_the_particles(event: Event, result) -> None:  # type: ignore[no-untyped-def]
    """Signs and units agree with ``physics.perigee``, and the helix fit agrees with ACTS."""
    match = Match.of(result.tracks, event)
    good = matched(match) & (match.of_majority(event.object["hits"]) >= 7)
    particles = [match.of_majority(event.object[name]) for name in ("vx", "vy", "vz", "px", "py", "pz", "charge")]
    helix = physics.perigee(*particles)
    points = (event.point[name] for name in ("x", "y", "z"))
    fit = physics.fit_helices(*points, result.tracks.point["object"], len(good))
    for found in ({name: column.numpy() for name, column in result.tracks.object.items()}, fit):
        np.testing.assert_array_equal(found["charge"][good], helix.charge[good])
        for name, tolerance in (("d0", 0.3), ("z0", 1.0), ("eta", 0.01), ("phi", 0.01)):
            difference = (
                physics.wrap(found[name] - getattr(helix, name))
                if name == "phi"
                else (found[name] - getattr(helix, name))
            )
            assert np.median(np.abs(difference[good])) < tolerance
        assert np.median(np.abs(found["pt"] / helix.pt - 1)[good]) < 0.05


def test_both_numberings_of_the_modules(acts_io: ModuleType, hits: Event) -> None:
    table = detector.load()
    rows, local = acts_io.geometry().local(hits)
    renamed = hits.with_columns("point", module=torch.from_numpy(table.surface[rows]))
    assert not torch.equal(renamed.point["module"], hits.point["module"])
    again, same = acts_io.geometry().local(renamed)
    np.testing.assert_array_equal(again, rows)
    np.testing.assert_array_equal(same, local)
    assert np.abs(local[:, 2]).max() < 0.1
    assert (np.abs(local[:, 0]) < table.half_u[rows] + 0.1).all()


def test_errors(ckf: ModuleType, hits: Event) -> None:
    with pytest.raises(UserError, match="expected one of D, E, F, G"):
        ckf.Ckf("Z")
    with pytest.raises(UserError, match="off their modules"):
        ckf.Ckf()(hits.with_columns("point", z=hits.point["z"] + 5, x=hits.point["x"] + 5))
    with pytest.raises(UserError, match="the detector has no volume"):
        ckf.Ckf()(hits.with_columns("point", volume=hits.point["volume"] + 1))


def test_shared_hits_go_to_the_longer_track(acts_io: ModuleType) -> None:
    event = Event(point={"id": torch.arange(7)})
    tracks = acts_io.tracks_event(
        event, [[0, 1], [1, 2, 3], [3, 4, 5]], np.tile([0.1, 2, 0.3, np.pi / 2, -0.5, 0], (3, 1))
    )
    assert tracks.point["object"].tolist() == [0, 1, 1, 1, 2, 2, -1]
    assert tracks.object["hits"].tolist() == [1, 3, 2]
    assert tracks.object["charge"].tolist() == [-1] * 3
    assert tracks.object["pt"].tolist() == [2] * 3


def test_no_hits(ckf: ModuleType, hits: Event) -> None:
    empty = Event(point={name: column[:0] for name, column in hits.point.items()})
    assert ckf.Ckf()(empty).tracks.rows("object") == 0


def test_a_later_pass_finds_what_the_first_left(ckf: ModuleType, event: Event, hits: Event, result) -> None:  # type: ignore[no-untyped-def]
    """Its tracks are softer and take no hit that is taken."""
    first = ckf.CONFIGS["D"]
    both = ckf.Ckf((*first, ckf.Pass(pt_min=0.15, min_hits=5)))(hits)
    number = result.tracks.rows("object")
    assert both.tracks.rows("object") > 1.2 * number
    owner, before = both.tracks.point["object"], result.tracks.point["object"]
    assert torch.equal(owner[before >= 0], before[before >= 0])
    assert (both.tracks.object["pt"][:number] > 0.5).all()
    assert float(both.tracks.object["pt"][number:].median()) < 0.5
    assert both.cpu["removal"] > 0


def test_the_tuning_ends_at_the_configurations(ckf: ModuleType) -> None:
    variants = list(import_module("bench.ckf_tuning").variants().values())
    assert ckf.CONFIGS["F"] in variants
    assert ckf.CONFIGS["G"] == variants[-1]
    assert len(set(variants)) == len(variants)
