"""The helix fit: parameters, errors and chi2 against exact helices, smeared hits and refits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cloudchamber import physics
from cloudchamber.physics import Helix

RNG = np.random.default_rng
NOTHING = {"material": physics.walls()}
COLUMNS = {"charge", "pt", "eta", "phi", "d0", "z0", "chi2", "ndf", "worst"}
COLUMNS |= {f"sigma_{name}" for name in ("pt", "eta", "phi", "d0", "z0")}
RADII = np.array([32.0, 72, 116, 172, 260, 360, 500, 660, 820, 1020])


def helices(n: int, seed: int = 0, low: float = 0.3, high: float = 50.0, d0: float = 2.0, field: float = 2.0) -> Helix:
    rng = RNG(seed)
    return Helix(
        d0=rng.normal(0, d0, n),
        z0=rng.normal(0, 50, n),
        phi=rng.uniform(-np.pi, np.pi, n),
        eta=rng.uniform(-3, 3, n),
        charge=rng.choice([-1.0, 1.0], n),
        pt=np.exp(rng.uniform(np.log(low), np.log(high), n)),
        field_tesla=field,
    )


def points(helix: Helix, hits: int = 10, seed: int = 1) -> tuple[np.ndarray, ...]:
    """x, y, z, track of hits anywhere between radii of 30 and 1000 mm, or up to two thirds of the turn."""
    n = len(helix.pt)
    s = RNG(seed).uniform(30, np.minimum(1000, 4 / np.abs(helix.kappa))[:, None], (n, hits))
    columns = {k: np.asarray(getattr(helix, k))[:, None] for k in ("d0", "z0", "phi", "eta", "charge", "pt")}
    x, y, z = Helix(**columns, field_tesla=helix.field_tesla).at(s)
    return x.ravel(), y.ravel(), z.ravel(), np.repeat(np.arange(n), hits)


def assert_same(fit: dict[str, np.ndarray], helix: Helix, tolerance: float = 1e-5) -> None:
    assert set(fit) == COLUMNS
    assert all(column.dtype == np.float32 and column.shape == helix.pt.shape for column in fit.values())
    np.testing.assert_array_equal(fit["charge"], helix.charge)
    np.testing.assert_allclose(fit["pt"], helix.pt, rtol=tolerance)
    np.testing.assert_allclose(physics.wrap(fit["phi"] - helix.phi), 0, atol=tolerance)
    for name in ("eta", "d0", "z0"):
        np.testing.assert_allclose(fit[name], getattr(helix, name), rtol=1e-6, atol=tolerance)


@pytest.mark.parametrize("hits", [3, 5, 20])
@pytest.mark.parametrize("d0", [0.0, 2.0, 10.0])
def test_exact_helices_are_recovered(hits: int, d0: float) -> None:
    helix = helices(1000, d0=d0)
    x, y, z, track = points(helix, hits)
    if hits == 3:  # spread the three: close ones fix nothing
        s = np.minimum(1000, 4 / np.abs(helix.kappa)) * np.array([[0.1], [0.5], [1.0]])
        x, y, z = (c.T.ravel() for c in helix.at(s))
    assert_same(physics.fit_helices(x, y, z, track, 1000, **NOTHING), helix)


@pytest.mark.parametrize("field", [2.0, -3.8])
def test_field_sets_momentum_and_charge(field: float) -> None:
    helix = helices(100, field=field)
    assert_same(physics.fit_helices(*points(helix), 100, field_tesla=field, **NOTHING), helix)


def test_stiff_tracks() -> None:
    helix = helices(500, low=999, high=1001, d0=0.1)
    assert_same(physics.fit_helices(*points(helix), 500, **NOTHING), helix)


def test_straight_track() -> None:
    x = np.array([100.0, 200, 400])
    fit = physics.fit_helices(x, 0 * x, 2 * x, np.zeros(3), 1)
    assert fit["pt"][0] > 1e6
    assert fit["eta"][0] == pytest.approx(np.arcsinh(2))
    assert abs(fit["d0"][0]) < 1e-6


def test_order_of_hits_does_not_matter() -> None:
    helix = helices(300, d0=0.1)
    x, y, z, track = points(helix)
    x = x + RNG(4).normal(0, 0.02, len(x))
    track[RNG(5).random(len(track)) < 0.1] = -1
    order = RNG(6).permutation(len(x))
    fit = physics.fit_helices(x, y, z, track, 300)
    mixed = physics.fit_helices(x[order], y[order], z[order], track[order], 300)
    for name, column in fit.items():
        np.testing.assert_allclose(mixed[name], column, rtol=2e-5, atol=2e-5)


def test_resolution_is_the_best_possible() -> None:
    """The spread of the fits is that of the Cramer-Rao bound ``(J^T W J)^-1``, and their mean is unbiased."""
    radii = np.array([32.0, 72, 116, 172, 260, 360, 500, 660, 820, 1020])
    truth = np.array([0.3, 20.0, 0.4, 0.8, 1 / 3.0])

    def measure(p: np.ndarray) -> np.ndarray:
        helix = Helix(p[0], p[1], p[2], p[3], np.sign(p[4]), 1 / abs(p[4]))
        x, y, z = helix.at(helix.arc_to_radius(radii))
        return np.stack([np.arctan2(y, x), z])

    mean, n, rng = measure(truth), 3000, RNG(7)
    sigma, _, sigma_z = physics.hit_sigmas(radii, 0 * radii, mean[1])
    small = 1e-5
    jacobian = np.stack([(measure(truth + d) - measure(truth - d)) / (2 * small) for d in np.eye(5) * small])
    jacobian[:, 0] *= radii
    scaled = (jacobian / np.stack([sigma, sigma_z])).reshape(5, -1)
    expected = np.sqrt(np.diag(np.linalg.inv(scaled @ scaled.T)))

    phi = mean[0] + rng.normal(size=(n, 10)) * sigma / radii
    z = mean[1] + rng.normal(size=(n, 10)) * sigma_z
    track = np.repeat(np.arange(n), 10)
    errors = {"sigma_rphi": np.tile(sigma, n), "sigma_r": np.zeros(10 * n), "sigma_z": np.tile(sigma_z, n)}
    x, y = radii * np.cos(phi), radii * np.sin(phi)
    fit = physics.fit_helices(x.ravel(), y.ravel(), z.ravel(), track, n, **errors, **NOTHING)
    found = np.stack([fit["d0"], fit["z0"], fit["phi"], fit["eta"], fit["charge"] / fit["pt"]])
    pulls = (found.astype(float) - truth[:, None]) / expected[:, None]
    np.testing.assert_allclose(pulls.std(axis=1), 1, atol=0.05)
    np.testing.assert_allclose(pulls.mean(axis=1), 0, atol=0.08)


def test_disks_measure_radius_badly() -> None:
    """Forward strips: r is off by millimetres, yet the momentum is known, for the track's z fixes r."""
    helix = helices(500, low=1.0, high=5.0, d0=0.01)
    forward = Helix(helix.d0, helix.z0, helix.phi, np.full(500, 2.0), helix.charge, helix.pt)
    z = np.array([600.0, 700, 820, 960, 1120, 1300, 1500, 1850, 2150, 2500, 2950])
    x, y, z = forward.at((z[:, None] - forward.z0) / np.sinh(2.0))
    r, rng = np.hypot(x, y), RNG(8)
    sigma, sigma_r, _ = physics.hit_sigmas(x.ravel(), y.ravel(), z.ravel())
    stretch = 1 + rng.normal(size=r.size) * sigma_r / r.ravel()
    turn = np.exp(1j * rng.normal(size=r.size) * sigma / r.ravel())
    moved = (x + 1j * y).ravel() * stretch * turn
    fit = physics.fit_helices(moved.real, moved.imag, z.ravel(), np.tile(np.arange(500), len(r)), 500, **NOTHING)
    assert np.std(fit["pt"] / helix.pt - 1) < 0.03
    assert np.std(fit["eta"] - 2) < 1e-3


def test_tensors_are_welcome() -> None:
    x, y, z, track = (torch.tensor(c) for c in points(helices(10)))
    assert_same(physics.fit_helices(x, y, z, track, 10, **NOTHING), helices(10))


def test_degenerate_tracks() -> None:
    ring = np.linspace(0, 3, 5)
    x = np.concatenate([[1.0, 2], [5.0] * 4, 100 * np.cos(ring)])
    y = np.concatenate([[1.0, 2], [5.0] * 4, 100 * np.sin(ring)])
    track = np.repeat([0, 1, 2], [2, 4, 5])
    fit = physics.fit_helices(x, y, 0 * x, track, 4)
    assert (fit.pop("charge") == 0).all()
    assert all(np.isnan(column).all() for column in fit.values())
    empty = physics.fit_helices([], [], [], [], 0)
    assert all(len(column) == 0 for column in empty.values())


def test_errors() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        physics.fit_helices([1.0], [1.0], [1.0, 2.0], [0], 1)
    with pytest.raises(ValueError, match="expected -1 to 0"):
        physics.fit_helices([1.0], [1.0], [1.0], [1], 1)


def smeared(helix: Helix, radii: np.ndarray, seed: int = 7) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Hits on cylinders, smeared by their resolution, as arguments of the fit; the last is the track of each."""
    columns = {k: np.asarray(getattr(helix, k))[:, None] for k in ("d0", "z0", "phi", "eta", "charge", "pt")}
    wide = Helix(**columns)
    x, y, z = (c.ravel() for c in wide.at(wide.arc_to_radius(radii)))
    r, rng = np.hypot(x, y), RNG(seed)
    sigma, sigma_r, sigma_z = physics.hit_sigmas(x, y, 0 * z)
    phi = np.arctan2(y, x) + rng.normal(size=len(x)) * sigma / r
    hits = {"x": r * np.cos(phi), "y": r * np.sin(phi), "z": z + rng.normal(size=len(x)) * sigma_z}
    hits |= {"sigma_rphi": sigma, "sigma_r": sigma_r, "sigma_z": sigma_z}
    return hits, np.repeat(np.arange(len(helix.pt)), len(radii))


def test_pulls_and_chi2_are_those_of_right_errors() -> None:
    helix, n = helices(3000, d0=0.1, low=0.5), 3000
    hits, track = smeared(helix, RADII)
    fit = physics.helix_fit(**hits, track=track, tracks=n, **NOTHING)
    truth = np.stack([helix.d0, helix.z0, helix.phi, np.sinh(helix.eta), helix.charge / helix.pt], axis=1)
    residual = fit.parameters - truth
    residual[:, 2] = physics.wrap(residual[:, 2])
    pulls = residual / np.sqrt(np.diagonal(fit.covariance, axis1=1, axis2=2))
    np.testing.assert_allclose(pulls.std(axis=0), 1, atol=0.05)
    np.testing.assert_allclose(pulls.mean(axis=0), 0, atol=0.08)
    # all five at once, correlations included
    distance = np.einsum("ni,ni->n", residual, np.linalg.solve(fit.covariance, residual[..., None])[..., 0])
    assert distance.mean() == pytest.approx(5, abs=0.25)
    assert (fit.ndf == 2 * len(RADII) - 5).all()
    assert fit.chi2.mean() == pytest.approx(fit.ndf[0], abs=0.4)
    assert fit.hit_chi2.mean() == pytest.approx(2, abs=0.06)
    assert (fit.hit_chi2 > 9.21).mean() == pytest.approx(0.01, abs=0.003)


@pytest.mark.parametrize(("material", "tolerance"), [(physics.walls(), 0.02), (physics.TRACKML, 0.1)])
def test_chi2_of_a_hit_is_what_it_adds(material: np.ndarray, tolerance: float) -> None:
    """The fit without the hit has a chi2 that is less by ``hit_chi2``, but for the scattering at the new momentum."""
    hits, track = smeared(helices(40, d0=0.1, low=0.5), RADII)
    fit = physics.helix_fit(**hits, track=track, tracks=40, material=material)
    for left_out in range(len(RADII)):
        kept = {k: v.copy() for k, v in hits.items()}
        for name in ("sigma_rphi", "sigma_z"):
            kept[name][left_out :: len(RADII)] = 1e4
        without = physics.helix_fit(**kept, track=track, tracks=40, material=material)
        one = fit.hit_chi2[left_out :: len(RADII)]
        np.testing.assert_allclose(fit.chi2 - without.chi2, one, rtol=tolerance, atol=tolerance)


def test_turned_modules() -> None:
    """Strips of a disc stand across the middle of their module, not across the hit: the angle says so."""
    n, rng = 2000, RNG(11)
    helix = Helix(np.zeros(n), np.zeros(n), np.zeros(n), np.full(n, 1.8), np.ones(n), np.full(n, 2.0))
    z = np.array([600.0, 700, 820, 960, 1120, 1300, 1500, 1850, 2150, 2500])
    x, y, _ = helix.at(z[:, None] / np.sinh(1.8))
    angle = rng.uniform(-0.08, 0.08, x.shape)
    axis = np.exp(1j * (np.arctan2(y, x) + np.pi / 2 + angle))
    moved = x + 1j * y + axis * (0.03 * rng.normal(size=x.shape) + 3j * rng.normal(size=x.shape))
    columns = [c.ravel() for c in (moved.real, moved.imag, np.broadcast_to(z[:, None], x.shape))]
    sigmas = {"sigma_rphi": np.full(x.size, 0.03), "sigma_r": np.full(x.size, 3.0), "sigma_z": np.zeros(x.size)}
    # the angle is that at the measured point, which has moved along the strip
    turned = (np.angle(axis) - np.angle(moved) - np.pi / 2).ravel()
    fit = physics.helix_fit(*columns, np.tile(np.arange(n), len(z)), n, **sigmas, angle=turned, **NOTHING)
    pulls = (fit.parameters[:, 4] - 0.5) / np.sqrt(fit.covariance[:, 4, 4])
    assert pulls.std() == pytest.approx(1, abs=0.06)
    assert fit.chi2.mean() == pytest.approx(15, abs=0.5)


def test_scattering_and_loss_where_the_walls_are() -> None:
    """Tracks that scatter and lose energy in one cylinder and one disc: pulls have unit width and little bias."""
    n, rng = 4000, RNG(12)
    walls = physics.walls([physics.cylinder(100.0, 1e4, 0.05, 1e-3), physics.disc(400.0, 0.0, 1e3, 0.05, 1e-3)])
    pt, phi, cot, mass = 0.4, 0.3, 1.0, 0.13957
    place, momentum = np.zeros((n, 3)), np.tile(pt * np.array([np.cos(phi), np.sin(phi), cot]), (n, 1))
    hits = []
    for kind, where in [(0, 32.0), (0, 72), (1, 0), (0, 116), (0, 260), (0, 360), (1, 1), (0, 500), (0, 660), (0, 820)]:
        helix = physics.perigee(*place.T, *momentum.T, np.ones(n))
        radius = {0: 100.0, 1: None}[int(where)] if kind else where
        s = (400.0 - helix.z0) / np.sinh(helix.eta) if radius is None else helix.arc_to_radius(radius)
        place, turn = np.stack(helix.at(s), axis=1), helix.phi + helix.kappa * s
        momentum = helix.pt[:, None] * np.stack([np.cos(turn), np.sin(turn), np.sinh(helix.eta)], axis=1)
        if not kind:
            hits.append(place)
            continue
        p = np.linalg.norm(momentum, axis=1)
        flight, beta2 = momentum / p[:, None], 1 / (1 + mass**2 / p**2)
        radial = (flight[:, :2] * place[:, :2]).sum(axis=1) / np.hypot(*place[:, :2].T)
        path = 1 / (radial if where == 0 else flight[:, 2])
        angle = 0.0136 / (np.sqrt(beta2) * p) * np.sqrt(0.05 * path) * (1 + 0.038 * np.log(0.05 * path / beta2))
        kick = rng.normal(size=(n, 3)) * angle[:, None]
        flight = flight + kick - flight * (flight * kick).sum(axis=1, keepdims=True)
        momentum = flight / np.linalg.norm(flight, axis=1)[:, None] * (p - 1e-3 * path / beta2**1.5)[:, None]
    xyz = np.concatenate(hits)
    r, turn = np.hypot(*xyz[:, :2].T), np.arctan2(xyz[:, 1], xyz[:, 0])
    turn, z = turn + 0.02 * rng.normal(size=len(r)) / r, xyz[:, 2] + 0.1 * rng.normal(size=len(r))
    sigmas = {"sigma_rphi": np.full(len(r), 0.02), "sigma_r": np.zeros(len(r)), "sigma_z": np.full(len(r), 0.1)}
    track = np.tile(np.arange(n), len(hits))
    fit = physics.helix_fit(r * np.cos(turn), r * np.sin(turn), z, track, n, **sigmas, material=walls)
    pulls = (fit.parameters - [0, 0, phi, cot, 1 / pt]) / np.sqrt(np.diagonal(fit.covariance, axis1=1, axis2=2))
    np.testing.assert_allclose(pulls.std(axis=0), 1, atol=0.05)
    np.testing.assert_allclose(pulls.mean(axis=0), 0, atol=0.15)  # half a sigma in q / pT without the loss
    assert fit.chi2.mean() == pytest.approx(11, abs=0.35)


@pytest.mark.parametrize("wrong_hits", [1, 2])
def test_wrong_hits_are_left_out(wrong_hits: int) -> None:
    n, rng = 500, RNG(9)
    helix = helices(n, d0=0.1, low=0.5)
    hits, track = smeared(helix, RADII)
    first = rng.integers(0, len(RADII), n)
    wrong = np.concatenate([np.arange(n) * len(RADII) + (first + 3 * i) % len(RADII) for i in range(wrong_hits)])
    angle = rng.choice([-1, 1], len(wrong)) * 2.0 / np.hypot(hits["x"], hits["y"])[wrong]  # 2 mm aside
    x, y = hits["x"][wrong], hits["y"][wrong]
    hits["x"][wrong], hits["y"][wrong] = x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)
    fit = physics.helix_fit(**hits, track=track, tracks=n, outlier=20)
    out = fit.hit_chi2 > 20
    assert out[wrong].mean() > 0.95
    assert np.delete(out, wrong).mean() < 0.03
    assert np.median(fit.chi2 / fit.ndf) == pytest.approx(0.7, abs=0.3)  # less than 1: nothing scatters here
    pull = (fit.parameters[:, 4] - helix.charge / helix.pt) / np.sqrt(fit.covariance[:, 4, 4])
    assert np.quantile(np.abs(pull), 0.9) < 2
    np.testing.assert_array_equal(fit.worst, np.where(out, 0, fit.hit_chi2).reshape(n, -1).max(axis=1))
    kept = physics.helix_fit(**hits, track=track, tracks=n)
    assert (kept.ndf == 2 * len(RADII) - 5).all()
    assert np.median(kept.chi2 / kept.ndf) > 10


def test_hits_without_a_track_have_no_chi2() -> None:
    hits, track = smeared(helices(3, d0=0.1), RADII)
    track[::7], track[track == 1] = -1, 2
    track[np.flatnonzero(track == 0)[2:]] = -1  # two hits are left
    fit = physics.helix_fit(**hits, track=track, tracks=3)
    np.testing.assert_array_equal(np.isnan(fit.hit_chi2), (track <= 0))
    np.testing.assert_array_equal(np.isnan(fit.chi2), [True, True, False])
