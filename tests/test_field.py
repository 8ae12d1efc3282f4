"""The field that tracks show: against the one that bent them, and the state of a track that flies through it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

from cloudchamber.follow import HIT, NODES, field_at, measure_field
from cloudchamber.follow.state import BEND, COS, FIELD, KK, SIN, SIZE, TT, X, Y, adapt, move
from cloudchamber.physics import SPEED_OF_LIGHT

Array = NDArray[Any]
Field = Callable[[Any], Any]
UNIT = SPEED_OF_LIGHT * 2e-3


def even(z: Any) -> Any:
    return np.ones_like(np.asarray(z, np.float64))


def weak_ends(z: Any) -> Any:
    """About that of a solenoid of 5.5 m."""
    return 1 - 0.6 / (1 + np.exp((2100 - np.abs(z)) / 350))


def flown(field: Field, kappa: float, phi: float, slope: float, z0: float, arcs: Array) -> tuple[Array, ...]:
    """x, y, z and direction of a track from the beam line after so many mm in the transverse plane."""

    def step(s: float, v: Array) -> list[float]:
        return [np.cos(v[2]), np.sin(v[2]), kappa * float(field(z0 + slope * s))]

    x, y, angle = solve_ivp(step, (0, arcs[-1]), [0.0, 0.0, phi], t_eval=arcs, rtol=1e-9, atol=1e-9).y
    return x, y, z0 + slope * arcs, angle


def tracks(number: int, field: Field, error: float, seed: int) -> Array:
    """Hits of tracks of 0.6 to 3 GeV: two within 80 mm of the beam, the others on discs up to 3 m."""
    random, found = np.random.default_rng(seed), []
    for track in range(number):
        slope, pt = random.uniform(3, 8) * random.choice([-1, 1]), random.uniform(0.6, 3)
        discs = np.array([600, 900, 1200, 1500, 1800, 2100, 2500, 2900]) / abs(slope)
        arcs = np.concatenate([[30, 60], discs[(discs > 70) & (discs < 700)]])
        kappa, z0 = random.choice([-1, 1]) * UNIT / pt, random.normal(0, 50)
        x, y, z, _ = flown(field, kappa, random.uniform(-3, 3), slope, z0, arcs)
        rows = np.zeros(len(arcs), HIT)
        rows["phi"] = np.arctan2(y, x) + random.normal(0, error, len(arcs)) / np.hypot(x, y)
        rows["radius"], rows["z"], rows["error_t"] = np.hypot(x, y), z, error
        rows["x"], rows["y"] = rows["radius"] * np.cos(rows["phi"]), rows["radius"] * np.sin(rows["phi"])
        rows["layer"], rows["track"] = np.arange(len(arcs)), track
        found.append(rows)
    hits = np.concatenate(found)
    return hits[random.permutation(len(hits))]


@pytest.mark.parametrize("field", [even, weak_ends])
def test_the_field_that_bent_the_tracks_is_found(field: Field) -> None:
    found = measure_field(tracks(400, field, 0.02, seed=1), 3000.0)
    nodes = np.linspace(0, 3000, NODES)
    assert found[:2].tolist() == [1.0, 1.0]
    assert found[2:9] == pytest.approx(field(nodes)[2:9], abs=0.03)
    assert field_at(found, 3000.0, np.array([-1350.0])) == pytest.approx((found[4] + found[5]) / 2)


def test_without_tracks_the_field_is_even() -> None:
    assert (measure_field(np.zeros(0, HIT), 3000.0) == 1).all()
    assert (measure_field(tracks(1, even, 3.0, seed=2), 3000.0) == 1).all()


@pytest.mark.parametrize("charge", [-1, 1])
def test_a_state_in_a_changing_field(charge: int) -> None:
    """Compared with the integrated equations of motion, and with no change at all."""
    kappa, slope = charge * UNIT / 0.8, 5.0
    arcs = np.array([0.0, 300.0, 360.0])
    x, y, z, angle = flown(weak_ends, kappa, 0.3, slope, 0.0, arcs)
    before, after = weak_ends(z[1:])
    a, b = np.zeros(SIZE), np.zeros(SIZE)
    a[X], a[Y], a[COS], a[SIN], a[BEND], a[FIELD] = (
        x[1],
        y[1],
        np.cos(angle[1]),
        np.sin(angle[1]),
        kappa * before,
        before,
    )
    a[TT], a[KK] = 0.01, 1e-10
    turn = a[BEND] * 60.0
    move(a, b, 60.0, np.sin(turn), np.cos(turn))
    off = np.hypot(b[X] - x[2], b[Y] - y[2])
    adapt(b, 60.0, after)
    assert np.hypot(b[X] - x[2], b[Y] - y[2]) < 0.2 * off
    assert np.arctan2(b[SIN], b[COS]) == pytest.approx(angle[2], abs=3e-4)
    assert (b[BEND], b[FIELD]) == pytest.approx((kappa * after, after))
    assert b[KK] == pytest.approx(1e-10 * (after / before) ** 2)
