"""Kinematics and the signs of the perigee parameters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_fit import helices

from cloudchamber import physics
from cloudchamber.physics import Helix

RNG = np.random.default_rng


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
