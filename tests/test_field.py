"""The field that tracks show: against the one that bent them, and the state of a track that flies through it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

from cloudchamber.follow import HIT, NODES, field_at, measure_field, radial
from cloudchamber.follow.state import BEND, COS, FIELD, KK, SIN, SIZE, SLOPE, TT, X, Y, Z, adapt, move
from cloudchamber.physics import SPEED_OF_LIGHT

Array = NDArray[Any]
Field = Callable[[Any], Any]
UNIT = SPEED_OF_LIGHT * 2e-3
NODE_Z = np.linspace(-3000, 3000, NODES)
NONE, ACROSS = np.zeros(4), np.array([0.002, -0.001, 8e-6, 1e-5])


def even(z: Any) -> Any:
    return np.ones_like(np.asarray(z, np.float64))


def weak_ends(z: Any) -> Any:
    """On the axis of a solenoid of about 5.5 m, which is not in the middle."""
    return 1 - 0.7 / (1 + np.exp((2300 - np.abs(np.asarray(z) - 100)) / 350))


def slope_of(field: Field, z: Any) -> Any:
    return (field(z + 0.5) - field(z - 0.5)) / 1.0


def flown(field: Field, across: Array, momentum: Array, z0: float, arcs: Array) -> tuple[Array, Array]:
    """Places and momenta (GeV) of a positive track from the beam line after so many mm in the transverse plane.

    The Lorentz force in a field without sources: ``b(z)`` on the axis, ``-r b'/2`` away from it, and that across.
    """

    def step(s: float, v: Array) -> Array:
        x, y, z = v[:3]
        radial = -slope_of(field, z) / 2
        b = np.array([radial * x + across[0] + across[2] * z, radial * y + across[1] + across[3] * z, field(z)])
        transverse = np.hypot(v[3], v[4])
        return np.concatenate([v[3:], UNIT * np.cross(v[3:], b)]) / transverse

    start = np.concatenate([[0.0, 0.0, z0], momentum])
    found = solve_ivp(step, (0, arcs[-1]), start, t_eval=arcs, rtol=1e-9, atol=1e-9).y
    return found[:3], found[3:]


def tracks(number: int, field: Field, error: float, seed: int, across: Array = NONE) -> Array:
    """Hits of tracks of 0.6 to 3 GeV: two within 80 mm of the beam, the others on discs up to 3 m."""
    random, found = np.random.default_rng(seed), []
    for track in range(number):
        slope, pt = random.uniform(3, 8) * random.choice([-1, 1]), random.uniform(0.6, 3)
        discs = np.array([600, 900, 1200, 1500, 1800, 2100, 2500, 2900]) / abs(slope)
        arcs = np.concatenate([[30, 60], discs[(discs > 70) & (discs < 700)]])
        sign, phi, z0 = random.choice([-1, 1]), random.uniform(-3, 3), random.normal(0, 50)
        momentum = pt * np.array([np.cos(phi), np.sin(phi), slope])
        (x, y, z), _ = flown(lambda z, sign=sign: sign * field(z), sign * across, momentum, z0, arcs)
        rows = np.zeros(len(arcs), HIT)
        rows["phi"] = np.arctan2(y, x) + random.normal(0, error, len(arcs)) / np.hypot(x, y)
        rows["radius"], rows["z"], rows["error_t"] = np.hypot(x, y), z, error
        rows["x"], rows["y"] = rows["radius"] * np.cos(rows["phi"]), rows["radius"] * np.sin(rows["phi"])
        rows["layer"], rows["track"] = np.arange(len(arcs)), track
        found.append(rows)
    hits = np.concatenate(found)
    return hits[random.permutation(len(hits))]


@pytest.mark.parametrize(("field", "across"), [(even, NONE), (weak_ends, NONE), (even, ACROSS), (weak_ends, ACROSS)])
def test_the_field_that_bent_the_tracks_is_found(field: Field, across: Array) -> None:
    found, sideways = measure_field(tracks(800, field, 0.02, seed=1, across=across), 3000.0)
    known = slice(2, NODES - 2)
    shown = (field(NODE_Z) + NODE_Z * slope_of(field, NODE_Z) / 2) / field(0)
    assert found[9:12].tolist() == [1.0, 1.0, 1.0]
    assert found[known] == pytest.approx(shown[known], abs=0.03 if field is even else 0.06)
    assert sideways[:2] == pytest.approx(across[:2], abs=2e-3)
    assert sideways[2:] == pytest.approx(across[2:], abs=1e-6)
    assert field_at(found, 3000.0, np.array([-1350.0])) == pytest.approx((found[5] + found[6]) / 2)


def test_the_radial_field_follows_from_the_one_along_the_beam() -> None:
    shown = weak_ends(NODE_Z) + NODE_Z * slope_of(weak_ends, NODE_Z) / 2
    expected = -slope_of(weak_ends, NODE_Z) / 2
    assert radial(shown, 3000.0)[[4, 5, 15, 16]] == pytest.approx(expected[[4, 5, 15, 16]], rel=0.15)
    assert (radial(np.ones(NODES), 3000.0)[9:12] == 0).all()
    assert radial(np.ones(NODES), 3000.0) == pytest.approx(np.zeros(NODES), abs=1e-12)


def test_without_tracks_the_field_is_even() -> None:
    for hits in (np.zeros(0, HIT), tracks(1, even, 3.0, seed=2)):
        field, across = measure_field(hits, 3000.0)
        assert (field == 1).all()
        assert (across == 0).all()


@pytest.mark.parametrize("charge", [-1, 1])
@pytest.mark.parametrize("inwards", [False, True])
def test_a_state_in_a_changing_field(charge: int, inwards: bool) -> None:
    """Compared with the integrated equations of motion, and with a helix."""
    momentum, arcs = 0.8 * np.array([np.cos(0.3), np.sin(0.3), 5.0]), np.array([0.0, 300.0, 360.0])
    where, after = flown(lambda z: charge * weak_ends(z), charge * ACROSS, momentum, 0.0, arcs)
    first, last, sign = (2, 1, -1) if inwards else (1, 2, 1)
    transverse = np.hypot(after[0], after[1])
    angle, slope = np.arctan2(after[1], after[0]), after[2] / transverse
    # What the field along the beam is for a straight track from the middle, and less for that across.
    z = where[2]
    u = after[:2] / transverse
    tilt = slope * (u[0] * (ACROSS[0] + ACROSS[2] * z) + u[1] * (ACROSS[1] + ACROSS[3] * z))
    shown = weak_ends(z) + z * slope_of(weak_ends, z) / 2
    curvature = -charge * UNIT / transverse
    a, b = np.zeros(SIZE), np.zeros(SIZE)
    a[[X, Y, Z]] = where[:, first]
    a[COS], a[SIN], a[SLOPE] = sign * np.cos(angle[first]), sign * np.sin(angle[first]), sign * slope[first]
    a[FIELD] = (shown - tilt)[first]
    a[BEND] = sign * curvature[first] * a[FIELD]
    a[TT], a[KK] = 0.01, 1e-10
    turn = a[BEND] * 60.0
    move(a, b, 60.0, np.sin(turn), np.cos(turn))

    def off() -> Array:
        return np.abs([np.hypot(b[X] - where[0, last], b[Y] - where[1, last]), b[Z] - where[2, last]])

    helix = off()
    adapt(b, 60.0, shown[last], -slope_of(weak_ends, z[last]) / 2, ACROSS)
    assert off()[0] < 0.3 * helix[0]
    assert off()[1] < max(0.3 * helix[1], 0.1)  # mm: the radial field at the end is taken for that on the way
    assert np.arctan2(sign * b[SIN], sign * b[COS]) == pytest.approx(angle[last], abs=1e-3)
    assert sign * b[SLOPE] == pytest.approx(slope[last], rel=1e-3)
    assert sign * b[BEND] / b[FIELD] == pytest.approx(curvature[last], rel=2e-3)
    assert b[KK] == pytest.approx(1e-10 * (b[BEND] / a[BEND]) ** 2)
