"""Resolutions, pulls, local density, and the plots of fits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cloudchamber import physics
from cloudchamber.data.resolution import hit_errors
from cloudchamber.errors import UserError
from cloudchamber.evaluate import SPLITS, evaluate
from cloudchamber.event import Event, batch
from cloudchamber.metrics import PARAMETERS, Residuals, Width, local_density, residuals, split_widths
from cloudchamber.report import plot_fits, plot_widths
from cloudchamber.tasks.tracks import fitted_tracks, without_outliers


def test_width_of_a_gaussian_and_its_error() -> None:
    draws = np.random.default_rng(0).normal(3.0, 2.0, (2000, 1000))
    widths = [Width.of(draw) for draw in draws]
    values = np.array([width.value for width in widths])
    assert values.mean() == pytest.approx(2.0, abs=0.01)
    assert values.std() == pytest.approx(np.mean([width.error for width in widths]), rel=0.1)
    medians = np.array([width.median for width in widths])
    assert medians.mean() == pytest.approx(3.0, abs=0.02)
    assert medians.std() == pytest.approx(1.3 * values.std(), rel=0.1)
    assert np.mean([width.tails for width in widths]) == pytest.approx(0.0027, abs=4e-4)
    assert (widths[0].low, widths[0].high) == (values[0] - widths[0].error, values[0] + widths[0].error)


def test_width_of_little() -> None:
    assert np.isnan(Width.of(np.array([1.0])).value)
    assert Width.of(np.array([1.0, np.nan, 3.0, np.inf])).count == 2


def event(tracks: int, production: np.ndarray) -> tuple[Event, physics.Helix]:
    """Three hits of each of some particles that fly off at the points ``production`` (tracks, 3)."""
    momentum = np.random.default_rng(1).normal(size=(tracks, 3)) + np.array([2, 0, 0])
    charge = np.where(np.arange(tracks) % 2, 1.0, -1.0)
    names = ("vx", "vy", "vz", "px", "py", "pz", "charge")
    values = np.column_stack([production, momentum, charge]).astype(np.float32).T
    particles = {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}
    label = torch.arange(tracks).repeat_interleave(3)
    point = {"id": torch.arange(1, len(label) + 1), "object": label}
    truth = Event(point=point, object=particles, scene={"id": torch.tensor([0])})
    return truth, physics.perigee(*values[:3], *values[3:6], values[6])


def prediction(truth: Event, helix: physics.Helix, **columns: np.ndarray) -> Event:
    """The particles as tracks, with parameters that may be replaced, and errors."""
    values = {name: np.asarray(getattr(helix, name), np.float64) for name in ("charge", "pt", "eta", "phi", "d0", "z0")}
    sigmas = {"sigma_pt": 0.01 * helix.pt, "sigma_eta": 0.02, "sigma_phi": 0.03, "sigma_d0": 0.04, "sigma_z0": 0.05}
    values |= {name: np.broadcast_to(value, helix.pt.shape) for name, value in sigmas.items()} | columns
    return Event(
        point=dict(truth.point), object={n: torch.from_numpy(v.copy()) for n, v in values.items()}, scene=truth.scene
    )


def test_residuals_at_the_perigee() -> None:
    """The truth is propagated from the point of production: a helix there has no residual."""
    truth, helix = event(6, np.random.default_rng(2).normal(size=(6, 3)) * 5)
    exact = residuals(prediction(truth, helix), truth)
    np.testing.assert_allclose(exact.residual, 0, atol=1e-5)
    off = prediction(
        truth, helix, pt=helix.pt / 1.02, phi=helix.phi + 0.03 + 2 * np.pi, d0=helix.d0 + 0.2, z0=helix.z0 - 0.1
    )
    found = residuals(off, truth)
    assert list(PARAMETERS) == ["q/pT", "phi", "cot theta", "d0", "z0"]
    np.testing.assert_allclose(found.residual, np.tile([0.02, 0.03, 0, 0.2, -0.1], (6, 1)), atol=1e-5)
    # sigma(q/pT) = sigma(pT) / pT^2, of the fitted pT
    relative = 0.01 * 1.02**2
    np.testing.assert_allclose(found.pull, np.tile([0.02 / relative, 1, 0, 5, -2], (6, 1)), atol=1e-3)
    np.testing.assert_allclose(found.pt, helix.pt)
    np.testing.assert_allclose(found.radius, np.hypot(truth.object["vx"].numpy(), truth.object["vy"].numpy()))
    assert found.pure.all()


def test_only_matched_and_fitted_tracks() -> None:
    truth, helix = event(4, np.zeros((4, 3)))
    charge = helix.charge.copy()
    charge[3] = 0  # no fit
    predicted = prediction(truth, helix, charge=charge)
    label = truth.point["object"].clone()
    label[:2], label[3] = -1, 2  # of track 0 one hit is left; track 2 takes a hit of particle 1
    predicted.point["object"] = label
    found = residuals(predicted, truth)
    assert found.track.tolist() == [1, 2]
    assert found.particle.tolist() == [1, 2]
    assert found.pure.tolist() == [True, False]
    del predicted.object["sigma_pt"]
    assert np.isnan(residuals(predicted, truth).pull).all()
    del predicted.object["d0"]
    with pytest.raises(UserError, match=r"object\.d0"):
        residuals(predicted, truth)


def test_widths_in_bins() -> None:
    truth, helix = event(6, np.zeros((6, 3)))
    one = residuals(prediction(truth, helix, d0=helix.d0 + np.arange(6)), truth)
    both = Residuals.join([one, one[one.pt > np.median(one.pt)]])
    assert len(both.pt) == 9
    edges = np.array([0, np.median(one.pt), 100.0])
    widths = split_widths(both, "residual", "pt", edges)
    assert [width.count for width in widths["d0"]] == [3, 6]
    assert widths["d0"][0] == Width.of(one.residual[one.pt < edges[1], 3])


def test_local_density_by_hand() -> None:
    x = torch.tensor([0.0, 1, 2, 50, 58, 200])
    label = torch.tensor([0, 0, 1, 0, -1, -1])
    point = {"x": x, "y": 0 * x, "z": 0 * x, "object": label, "id": torch.arange(6)}
    one = Event(point=point, object={"id": torch.arange(3)}, scene={"id": torch.tensor([0])})
    # hits 0 and 1 have one foreign neighbour each (hit 2), hit 3 has one (noise); hit 2 has two
    np.testing.assert_array_equal(local_density(one), [1.0, 2.0, np.nan])
    np.testing.assert_array_equal(local_density(batch([one, one])), [1.0, 2.0, np.nan] * 2)


def test_evaluation_and_plots_of_fits(toys: list[Event], tmp_path: Path) -> None:
    scores = evaluate([fitted_tracks(toy, toy.point["object"]) for toy in toys], toys)
    assert scores.binned.keys() == SPLITS.keys()
    every = Residuals.join(scores.residuals)
    assert len(every.pt) == 100
    pulls = Width.of(every.pull[:, 0])
    assert 0.05 < pulls.value < 0.5  # the toys do not scatter
    written = scores.to_dict()["fits"]
    assert len(written["residual"]["d0"]) + 1 == len(written["edges"])
    paths = list(plot_fits({"ours": every, "theirs": every}, tmp_path))
    assert [path.name for path in paths] == ["resolution_pt.png", "resolution_eta.png", "pulls.png"]
    assert all(path.stat().st_size > 20_000 for path in paths)
    with pytest.raises(UserError, match="no fits"):
        plot_widths({}, tmp_path / "none.png", "pt", [1, 2])


def test_the_last_fit_leaves_out_what_the_fit_would(toys: list[Event]) -> None:
    track = toys[0].point["object"].clone()
    track[::9] = torch.where(track[::9] >= 0, (track[::9] + 1) % 25, -1)  # wrong hits
    first = fitted_tracks(toys[0], track)
    last = without_outliers(toys[0], first)
    x, y, z = (toys[0].point[name].numpy() for name in "xyz")
    every = physics.fit_helices(x, y, z, track.numpy(), 25, outlier=20.0, **hit_errors(toys[0].point))
    assert (every["ndf"] < first.object["ndf"].numpy()).sum() > 5
    for name, column in every.items():
        np.testing.assert_allclose(last.object[name].numpy(), column, rtol=1e-5, atol=1e-6)
    assert torch.equal(last.point["object"], track)
    assert torch.equal(last.object["hits"], first.object["hits"])
