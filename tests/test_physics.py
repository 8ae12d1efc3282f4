"""Kinematics, the signs of the perigee parameters and the helix fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cloudchamber import physics
from cloudchamber.physics import Helix

RNG = np.random.default_rng


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
    assert set(fit) == {"charge", "pt", "eta", "phi", "d0", "z0"}
    assert all(column.dtype == np.float32 and column.shape == helix.pt.shape for column in fit.values())
    np.testing.assert_array_equal(fit["charge"], helix.charge)
    np.testing.assert_allclose(fit["pt"], helix.pt, rtol=tolerance)
    np.testing.assert_allclose(physics.wrap(fit["phi"] - helix.phi), 0, atol=tolerance)
    for name in ("eta", "d0", "z0"):
        np.testing.assert_allclose(fit[name], getattr(helix, name), rtol=1e-6, atol=tolerance)


def test_kinematics() -> None:
    assert physics.pt(3, 4) == pytest.approx(5)
    assert physics.eta([0.0, 1.0], [0.0, 0.0], [-1.0, 0.0]).tolist() == [-np.inf, 0]
    assert physics.delta_r(1, 3.1, 1, -3.1) == pytest.approx(2 * np.pi - 6.2)
    assert isinstance(physics.pt(torch.tensor([3.0]), torch.tensor([4.0])), np.ndarray)


def test_wrap_is_half_open() -> None:
    angles = np.array([np.pi, -np.pi, 3 * np.pi, np.nextafter(-np.pi, -4), 0.5, 7.0])
    wrapped = physics.wrap(angles)
    assert ((wrapped >= -np.pi) & (wrapped < np.pi)).all()
    np.testing.assert_allclose(np.exp(1j * wrapped), np.exp(1j * angles), atol=1e-12)
    assert physics.wrap(np.float32(1)).dtype == np.float32


def test_invariant_mass_keeps_precision_for_collinear_pairs() -> None:
    first, second = (50.0, 2.0, 1.0), (40.0, 2.0 + 1e-3, 1.0 + 1e-3)
    p = [np.array([t * np.cos(f), t * np.sin(f), t * np.sinh(e), t * np.cosh(e)]) for t, e, f in (first, second)]
    total = sum(p)
    exact = np.sqrt(total[3] ** 2 - (total[:3] ** 2).sum())
    assert physics.invariant_mass(*first, *second) == pytest.approx(exact, rel=1e-5)
    single = [np.float32(v) for v in (*first, *second)]
    assert physics.invariant_mass(*single) == pytest.approx(exact, rel=2e-4)  # the inputs' own rounding
    assert physics.invariant_mass(10, 0, 0, 10, 0, np.pi) == pytest.approx(20)


def test_signs_are_those_of_acts() -> None:
    """Along +x, a positive charge turns towards -y; d0 > 0 puts the perigee at +y."""
    x, y, z = Helix(d0=1.0, z0=5.0, phi=0.0, eta=0.0, charge=1.0, pt=1.0).at(np.array([0.0, 100.0]))
    np.testing.assert_allclose([x[0], y[0], z[0]], [0, 1, 5])
    radius = 1e3 / (physics.SPEED_OF_LIGHT * 2)
    assert x[1] == pytest.approx(radius * np.sin(100 / radius))
    assert y[1] == pytest.approx(1 - radius * (1 - np.cos(100 / radius)))


def test_perigee_of_a_vertex_lies_on_the_same_helix() -> None:
    helix, s = helices(200), RNG(3).uniform(0, 100, 200)
    turned = helix.phi + helix.kappa * s
    momentum = helix.pt * np.cos(turned), helix.pt * np.sin(turned), helix.pt * np.sinh(helix.eta)
    found = physics.perigee(*helix.at(s), *momentum, helix.charge)
    for name in ("d0", "z0", "eta", "pt"):
        np.testing.assert_allclose(getattr(found, name), getattr(helix, name), atol=1e-8, rtol=1e-9)
    np.testing.assert_allclose(physics.wrap(found.phi - helix.phi), 0, atol=1e-10)


def test_arc_to_radius() -> None:
    helix = helices(200, low=0.5)
    x, y, _ = helix.at(helix.arc_to_radius(400.0))
    np.testing.assert_allclose(np.hypot(x, y), 400)
    assert np.isnan(Helix(0.0, 0.0, 0.0, 0.0, 1.0, 0.1).arc_to_radius(1000.0))


@pytest.mark.parametrize("hits", [3, 5, 20])
@pytest.mark.parametrize("d0", [0.0, 2.0, 10.0])
def test_exact_helices_are_recovered(hits: int, d0: float) -> None:
    helix = helices(1000, d0=d0)
    x, y, z, track = points(helix, hits)
    if hits == 3:  # spread the three: close ones fix nothing
        s = np.minimum(1000, 4 / np.abs(helix.kappa)) * np.array([[0.1], [0.5], [1.0]])
        x, y, z = (c.T.ravel() for c in helix.at(s))
    assert_same(physics.fit_helices(x, y, z, track, 1000), helix)


@pytest.mark.parametrize("field", [2.0, -3.8])
def test_field_sets_momentum_and_charge(field: float) -> None:
    helix = helices(100, field=field)
    assert_same(physics.fit_helices(*points(helix), 100, field_tesla=field), helix)


def test_stiff_tracks() -> None:
    helix = helices(500, low=999, high=1001, d0=0.1)
    assert_same(physics.fit_helices(*points(helix), 500), helix)


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
    fit = physics.fit_helices(x.ravel(), y.ravel(), z.ravel(), track, n, **errors, material=0.0)
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
    fit = physics.fit_helices(moved.real, moved.imag, z.ravel(), np.tile(np.arange(500), len(r)), 500, material=0)
    assert np.std(fit["pt"] / helix.pt - 1) < 0.03
    assert np.std(fit["eta"] - 2) < 2e-3


def test_tensors_are_welcome() -> None:
    x, y, z, track = (torch.tensor(c) for c in points(helices(10)))
    assert_same(physics.fit_helices(x, y, z, track, 10), helices(10))


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


def test_three_points() -> None:
    helix = helices(100)
    s = np.minimum(500, 4 / np.abs(helix.kappa)) * np.array([[0.1], [0.5], [1.0]])
    x, y, _ = helix.at(s)
    for i in range(100):
        kappa, d0, phi = physics.circle_through(*np.stack([x[:, i], y[:, i]], 1).ravel())
        assert kappa == pytest.approx(helix.kappa[i], rel=1e-8)
        assert d0 == pytest.approx(helix.d0[i], abs=1e-7)
        assert physics.wrap(phi - helix.phi[i]) == pytest.approx(0, abs=1e-9)
    assert np.isnan(physics.circle_through(1.0, 1.0, 1.0, 1.0, 2.0, 2.0)[0])
