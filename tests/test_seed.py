"""Pairs of hits that tracks begin with: the circle, the state, and where a third hit is looked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cloudchamber.follow import HIT, LAYER, cells
from cloudchamber.follow.pair import begin, circle, promising
from cloudchamber.follow.state import BEND, COS, KK, SIN, SIZE, SLOPE, TT, ZZ, X, Y, Z
from cloudchamber.physics import SPEED_OF_LIGHT, Helix

Array = NDArray[Any]
UNIT = SPEED_OF_LIGHT * 2e-3
RADII = (32.0, 72.0, 116.0)


def detector() -> Array:
    """Three cylinders and, beyond them, a disc; a third hit may be in the last two."""
    layers = np.zeros(4, LAYER)
    layers["disc"], layers["at"], layers["spread"] = [False, False, False, True], [*RADII, 600.0], 0.5
    layers["low"], layers["high"], layers["thickness"] = [-500, -500, -500, 30], [500, 500, 500, 180], 0.02
    layers["error_t"], layers["error_w"], layers["seed"], layers["field"] = 0.02, 0.1, -1, 1.0
    layers["seed"][1, :2] = 2, 3
    return layers


def tracks(number: int, d0: float, seed: int) -> tuple[Helix, Array]:
    """Tracks of pT from 0.5 GeV, and their hits (tracks, 3 layers) with errors: the third on a cylinder or the disc."""
    random = np.random.default_rng(seed)
    charge, pt, phi = (
        random.choice([-1.0, 1.0], number),
        0.5 + random.exponential(1, number),
        random.uniform(-3, 3, number),
    )
    eta, z0 = np.where(np.arange(number) % 2, random.uniform(-1, 1, number), random.uniform(2.1, 2.4, number)), 0.0
    helix = Helix(random.normal(0, d0, number), np.full(number, z0), phi, eta, charge, pt)
    columns = [Helix(*(column[:, None] for column in (helix.d0, helix.z0, phi, eta, charge, pt)))]
    arc = columns[0].arc_to_radius(np.broadcast_to(np.array(RADII), (number, 3))).reshape(number, 3)
    arc[:, 2] = np.where(eta > 1.5, 600 / np.sinh(eta), arc[:, 2])
    x, y, z = (np.broadcast_to(column, arc.shape) for column in columns[0].at(arc))
    hits = np.zeros((number, 3), HIT)
    hits["phi"] = np.arctan2(y, x) + random.normal(0, 0.02, arc.shape) / np.hypot(x, y)
    hits["radius"], hits["z"] = np.hypot(x, y), z
    disc = (np.arange(3) == 2) & (eta > 1.5)[:, None]
    hits["z"] += np.where(disc, 0, random.normal(0, 0.1, arc.shape))
    hits["radius"] += np.where(disc, random.normal(0, 0.1, arc.shape), 0)
    hits["x"], hits["y"] = hits["radius"] * np.cos(hits["phi"]), hits["radius"] * np.sin(hits["phi"])
    hits["error_t"], hits["error_z"], hits["error_r"] = 0.02, np.where(disc, 0, 0.1), np.where(disc, 0.1, 0)
    hits["layer"], hits["track"] = np.where(disc, 3, np.arange(3)), -1
    return helix, hits


def test_the_circle_and_the_state_of_a_track_from_the_beam_line() -> None:
    helix, hits = tracks(50, 1e-9, seed=0)
    layers, a, b = detector(), np.zeros(SIZE), np.zeros(SIZE)
    for i, (p, q, _) in enumerate(hits):
        bend, arc1, arc2 = circle(p, q)
        kappa, error = helix.kappa[i], 4 * 2 * 0.04 / (32 * 40)
        assert bend == pytest.approx(kappa, abs=error)
        assert (arc1, arc2) == pytest.approx(2 * np.arcsin(0.5 * bend * np.array([p["radius"], q["radius"]])) / bend)
        begin(a, b, p, q, bend, arc1, arc2, layers[0], layers[1], UNIT, 0.01)
        assert (a[X], a[Y]) == pytest.approx((q["x"], q["y"]), abs=0.1)
        assert a[Z] == pytest.approx(q["z"], abs=0.2)
        direction = helix.phi[i] + kappa * arc2
        assert (a[COS], a[SIN]) == pytest.approx((np.cos(direction), np.sin(direction)), abs=0.01)
        assert abs(a[BEND] - kappa) < 5 * np.sqrt(a[KK])
        assert a[SLOPE] == pytest.approx(np.sinh(helix.eta[i]), abs=5 * 0.1 * 1.5 / 40)
        assert 0 < a[TT] < 0.02**2
        assert 0 < a[ZZ] < 1.1 * 0.1**2


def test_a_track_that_turns_back_has_no_circle() -> None:
    _, hits = tracks(1, 0.1, seed=1)
    p, q = hits[0][0].copy(), hits[0][1].copy()
    p["x"], p["y"] = -p["radius"] * np.cos(q["phi"]), -p["radius"] * np.sin(q["phi"])
    assert np.isnan(circle(p, q)[0]) or abs(circle(p, q)[0]) < 1e-6  # or a line through the beam
    p["x"], p["y"] = 5.0, 31.6
    q["x"], q["y"], q["radius"] = 20.0, 26.0, 32.8
    assert np.isnan(circle(p, q)[0])


@pytest.mark.parametrize("d0", [0.15, 2.0])
def test_where_a_third_hit_is_looked_for(d0: float) -> None:
    """It is found for all but few tracks; nothing is where there is no hit, or only one that a track has taken."""
    _, hits = tracks(400, d0, seed=2)
    found, turned = [], []
    for p, q, third in hits:
        layers = detector()
        bits = []
        for shift, track in ((0.0, -1), (0.5, -1), (0.0, 7)):
            other = np.array([third])
            other["track"] = track
            other["phi"] = np.mod(other["phi"] + shift + np.pi, 2 * np.pi) - np.pi
            other["x"], other["y"] = other["radius"] * np.cos(other["phi"]), other["radius"] * np.sin(other["phi"])
            order, start = cells(layers, other)
            bits.append(
                promising(p, q, *circle(p, q), layers[0], layers[1], 9.0, d0, UNIT, layers, other[order], start)
            )
        found.append(bits[0] == 1 << (third["layer"] - 2))
        turned.append(bits[1:] == [0, 0])
    assert np.mean(found) > 0.97
    assert np.mean(turned) > 0.99  # but where the window is the whole neighbourhood
