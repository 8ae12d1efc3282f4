"""How a track moves, scatters, meets layers and hits, and is updated: the compiled parts of track following."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cloudchamber.follow import HIT, LAYER, cells, measure_density, memory, rows
from cloudchamber.follow.cloud import BINS, CHI2, FOUND, SECTORS, near
from cloudchamber.follow.path import at_most, misses, take
from cloudchamber.follow.state import (
    BEND,
    FIELD,
    KK,
    LL,
    PK,
    PP,
    SIZE,
    SLOPE,
    TK,
    TT,
    UNEVEN,
    ZZ,
    arc_over_chord,
    chord_over_arc,
    move,
    reach,
    residual,
    scatter,
    toward,
    update,
)
from cloudchamber.physics import SPEED_OF_LIGHT

Array = NDArray[Any]
TRANSVERSE, ALONG = ((7, 8, 9), (8, 10, 11), (9, 11, 12)), ((13, 14), (14, 15))


def states(number: int, seed: int = 0) -> list[Array]:
    """States at 30 to 300 mm that fly outwards more or less, with pT from 0.15 GeV, and covariances of such tracks."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(number):
        phi, radius = random.uniform(-np.pi, np.pi), random.uniform(30, 300)
        turned = phi + random.uniform(-0.7, 0.7)
        bend = random.choice([-1, 1]) * 6e-4 / (0.15 + random.exponential(1))
        place = [radius * np.cos(phi), radius * np.sin(phi), np.cos(turned), np.sin(turned), bend]
        a = np.array([*place, random.uniform(-500, 500), random.normal(0, 2), *np.zeros(9), 1.0])
        for block, width in ((TRANSVERSE, [0.1, 3e-3, 2e-5]), (ALONG, [0.3, 5e-3])):
            root = random.normal(size=(len(width),) * 2) * np.array(width)[:, None]
            a[np.array(block)] = root @ root.T
        found.append(a)
    return found


def covariance(a: Array, block: Any) -> Array:
    return a[np.array(block)]


@pytest.mark.parametrize("a", states(8))
def test_a_move_is_along_the_circle_and_its_errors_follow(a: Array) -> None:
    turn, b = 0.4 * np.sign(a[BEND]), np.zeros(SIZE)
    arc = turn / a[BEND]
    move(a, b, arc, np.sin(turn), np.cos(turn))
    centre = a[:2] + np.array([-a[3], a[2]]) / a[BEND]
    assert np.hypot(*(b[:2] - centre)) == pytest.approx(1 / abs(a[BEND]))
    assert centre == pytest.approx(b[:2] + np.array([-b[3], b[2]]) / b[BEND])
    assert b[5] == pytest.approx(a[5] + arc * a[SLOPE])
    first = np.array([[1, arc, arc * arc / 2], [0, 1, arc], [0, 0, 1]])
    assert covariance(b, TRANSVERSE) == pytest.approx(first @ covariance(a, TRANSVERSE) @ first.T)
    second = np.array([[1, arc], [0, 1]])
    assert covariance(b, ALONG) == pytest.approx(second @ covariance(a, ALONG) @ second.T)


@pytest.mark.parametrize("a", states(20, seed=1))
def test_layers_are_reached(a: Array) -> None:
    b, radius = np.zeros(SIZE), float(np.hypot(*a[:2]))
    for at in (radius + 3, radius + 60, radius + 150):
        arc, sine, cosine = reach(a, False, at)
        if arc < 0:  # only where the circle turns by more than 53 degrees on the way, or ends before
            turns = np.linspace(0, np.arcsin(0.8), 2000)
            path = [np.hypot(*_on_circle(a, t / abs(a[BEND]))) for t in turns]
            assert max(path) < at + 1e-3
            continue
        move(a, b, arc, sine, cosine)
        assert np.hypot(*b[:2]) == pytest.approx(at, abs=1e-3)
        assert (sine, cosine) == pytest.approx((np.sin(a[BEND] * arc), np.cos(a[BEND] * arc)), abs=1e-6)
    arc, sine, cosine = reach(a, True, a[5] + 100 * np.sign(a[SLOPE]))
    if arc > 0:
        move(a, b, arc, sine, cosine)
        assert b[5] == pytest.approx(a[5] + 100 * np.sign(a[SLOPE]))
    assert reach(a, True, a[5] - 100 * np.sign(a[SLOPE]))[0] == -1


def test_arcs_and_chords() -> None:
    sine, half = np.linspace(1e-6, 0.95, 200), np.linspace(1e-6, 1.2, 200)
    assert [arc_over_chord(s) for s in sine] == pytest.approx(np.arcsin(sine) / sine, rel=3e-8)
    assert [chord_over_arc(h) for h in half] == pytest.approx(np.sin(half) / half, rel=3e-7)


def test_a_track_meets_no_layer_of_those_it_is_said_to_miss() -> None:
    layers, refused = np.zeros(2, LAYER), [0, 0]
    layers["disc"], layers["at"] = [False, True], [400, 900]
    layers["low"], layers["high"] = [-300, 100], [300, 250]
    for a in states(2000, seed=6):
        for row, layer in enumerate(layers):
            if misses(a, np.hypot(*a[:2]), a[ZZ] ** 0.5, a[LL] ** 0.5, layer):
                refused[row] += 1
                arc, sine, cosine = reach(a, bool(layer["disc"]), float(layer["at"]))
                if arc > 0:
                    b = np.zeros(SIZE)
                    move(a, b, arc, sine, cosine)
                    place = np.hypot(b[0], b[1]) if layer["disc"] else b[5]
                    assert not layer["low"] < place < layer["high"]
    assert min(refused) > 300


def _on_circle(a: Array, arc: float) -> Array:
    k = a[BEND]
    straight, across = np.sin(k * arc) / k, (1 - np.cos(k * arc)) / k
    return a[:2] + straight * a[2:4] + across * np.array([-a[3], a[2]])


def hit(x: float, y: float, z: float, **more: Any) -> Any:
    row = np.zeros(1, HIT)
    row["x"], row["y"], row["z"], row["radius"], row["phi"] = x, y, z, np.hypot(x, y), np.arctan2(y, x)
    row["error_t"], row["error_z"], row["track"] = 0.02, 0.3, -1
    for name, value in more.items():
        row[name] = value
    return row[0]


@pytest.mark.parametrize("a", states(8, seed=2))
def test_nearest_point_and_residual(a: Array) -> None:
    b, k = np.zeros(SIZE), a[BEND]
    place = _on_circle(a, 80.0)
    normal = (a[:2] + np.array([-a[3], a[2]]) / k - place) * k
    x, y = place + 0.7 * normal
    arc, sine, cosine = toward(a, hit(x, y, 0.0))
    assert arc == pytest.approx(80.0)
    move(a, b, arc, sine, cosine)
    along, across, dz, vt, vz, _ = residual(b, hit(x, y, b[5] + 0.5))
    assert (along, across, dz) == pytest.approx((0, 0.7, 0.5), abs=1e-9)
    lean = np.cos(np.arctan2(b[3], b[2]) - np.arctan2(y, x)) ** 2
    assert vt == pytest.approx(b[TT] + 0.02**2 * lean)
    assert vz == pytest.approx(b[ZZ] + 0.3**2 + a[SLOPE] ** 2 * 0.02**2 * (1 - lean))


@pytest.mark.parametrize("a", states(8, seed=8))
def test_a_hit_off_the_state_is_as_one_at_the_state_that_is_there(a: Array) -> None:
    """Where tracks are nearly straight, errors of the curvature are left out on such short ways."""
    a[BEND], a[TK], a[PK], a[KK] = 1e-7, 0.0, 0.0, 1e-14
    b = np.zeros(SIZE)
    move(a, b, 3.0, 3e-7, 1.0)
    new = hit(*(b[:2] + 0.3 * np.array([-b[3], b[2]])), b[5] - 0.4)
    assert residual(a, new)[0] == pytest.approx(3.0)
    assert residual(a, new)[1:] == pytest.approx(residual(b, new)[1:], rel=1e-5)
    for state in (a, b):
        along, across, dz, st, sz, _ = residual(state, new)
        update(state, along, across, dz, st, sz)
    assert a == pytest.approx(b, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("a", states(8, seed=3))
def test_the_update_is_that_of_kalman(a: Array) -> None:
    across, dz, vt, vz = 0.05, -0.2, 0.02**2, 0.3**2
    before = a.copy()
    update(a, 0.0, across, dz, before[TT] + vt, before[ZZ] + vz)
    for block, found, measured, variance in (
        (TRANSVERSE, [None, None, a[BEND] - before[BEND]], across, vt),
        (ALONG, [a[5] - before[5], a[SLOPE] - before[SLOPE]], dz, vz),
    ):
        c = covariance(before, block)
        gain = c[:, 0] / (c[0, 0] + variance)
        assert covariance(a, block) == pytest.approx(c - np.outer(gain, c[0]), rel=1e-6, abs=1e-12)
        for change, expected in zip(found, gain * measured, strict=True):
            assert change is None or change == pytest.approx(expected)
    c = covariance(before, TRANSVERSE)
    shift, turn = c[:2, 0] / (c[0, 0] + vt) * across
    assert a[:2] == pytest.approx(before[:2] + shift * np.array([-before[3], before[2]]))
    # The direction turns by a tangent for an angle.
    assert np.arctan2(a[3], a[2]) - np.arctan2(before[3], before[2]) == pytest.approx(np.arctan(turn), abs=1e-9)


@pytest.mark.parametrize("disc", [False, True])
def test_no_hit_is_worth_more_than_the_most(disc: bool) -> None:
    layer, random = np.zeros(1, LAYER), np.random.default_rng(5)
    layer["disc"], layer["low"], layer["high"], layer["density"] = disc, -1000, 1000, 0.01
    for a in states(200, seed=7):
        x, y = a[:2] + random.normal(0, 0.1) * np.array([-a[3], a[2]])
        new = hit(x, y, a[5] + random.normal(0, 0.3), error_r=0.1 if disc else 0.0)
        _, t, dz, st, sz, _ = residual(a, new)
        chi2 = t**2 / st + dz**2 / sz
        most = at_most(a, layer[0])
        assert take(a, new, layer[0]) <= most - 0.5 * chi2 + 1e-9


def test_scattering_by_hand() -> None:
    """At 1 GeV and right angles: 13.6 MeV / (p beta) sqrt(0.02) (1 + 0.038 ln 0.02)."""
    unit = SPEED_OF_LIGHT * 2e-3
    a = np.zeros(SIZE)
    a[BEND], a[FIELD] = unit, 1.0
    scatter(a, 0.02, False, unit)
    angle = 0.0136 * np.sqrt(1 + 0.13957**2) * np.sqrt(0.02) * (1 + 0.038 * np.log(0.02))
    assert (a[PP], a[LL], a[KK]) == pytest.approx((angle**2, angle**2, (UNEVEN * unit) ** 2))


def cloud(number: int = 4000, seed: int = 0) -> tuple[Array, Array, Array]:
    """A cylinder at 100 mm and a disc at z = 600 mm full of hits, in cells."""
    random = np.random.default_rng(seed)
    layers = np.zeros(2, LAYER)
    layers["disc"], layers["at"], layers["spread"] = [False, True], [100, 600], 2
    layers["low"], layers["high"], layers["error_t"], layers["error_w"] = [-500, 30], [500, 180], 0.02, 0.3
    hits = np.zeros(number, HIT)
    disc, phi = random.random(number) < 0.5, random.uniform(-np.pi, np.pi, number)
    hits["radius"] = np.where(disc, random.uniform(30, 180, number), random.uniform(98, 102, number))
    hits["z"] = np.where(disc, random.uniform(598, 602, number), random.uniform(-500, 500, number))
    hits["x"], hits["y"], hits["phi"] = hits["radius"] * np.cos(phi), hits["radius"] * np.sin(phi), phi
    hits["error_t"], hits["error_r"], hits["error_z"] = 0.02, np.where(disc, 0.3, 0), np.where(disc, 0, 0.3)
    hits["layer"], hits["track"] = disc, np.where(random.random(number) < 0.2, 0, -1)
    order, start = cells(layers, hits)
    return layers, rows(hits, order), start


def test_cells_hold_every_hit_once_and_the_density_is_theirs() -> None:
    layers, hits, start = cloud()
    assert (start[0], start[-1]) == (0, len(hits))
    assert (np.diff(start) >= 0).all()
    assert len(start) == 2 * BINS * SECTORS + 1
    measure_density(layers, start)
    barrel = np.histogram(hits["z"][hits["layer"] == 0], BINS, (-500, 500))[0]
    assert layers["density"][0] == pytest.approx((barrel + 1) / (2 * np.pi * 100 * 1000 / BINS))
    disc, edges = np.histogram(hits["radius"][hits["layer"] == 1], BINS, (30, 180))
    assert layers["density"][1] == pytest.approx((disc + 1) / (np.pi * np.diff(edges**2)))


@pytest.mark.parametrize("layer", [0, 1])
def test_the_search_finds_what_brute_force_finds(layer: int) -> None:
    layers, hits, start = cloud()
    whole, real = memory()
    random, total = np.random.default_rng(layer), 0
    for a in states(400, seed=4):
        phi = random.uniform(-np.pi, np.pi)
        radius, turned = (100, phi + random.uniform(-0.7, 0.7)) if layer == 0 else (random.uniform(40, 170), phi)
        a[:4] = radius * np.cos(phi), radius * np.sin(phi), np.cos(turned), np.sin(turned)
        a[5], a[TT], a[ZZ] = 600 if layer else random.uniform(-450, 450), 4.0, 25.0
        a[SLOPE] = np.copysign(max(abs(a[SLOPE]), 2), a[SLOPE]) if layer else a[SLOPE]
        expected = {}
        for row in np.flatnonzero((hits["layer"] == layer) & (hits["track"] < 0)):
            _, t, dz, st, sz, _ = residual(a, hits[row])
            close = np.hypot(hits["x"][row] - a[0], hits["y"][row] - a[1]) < 40
            if close and (value := t * t / st + dz * dz / sz) < 9:
                expected[row] = value
        number = near(a, layer, layers, hits, start, 9.0, 1.0, 8, whole, real)
        best = sorted(expected.values())[:8]
        assert sorted(real[CHI2, :number]) == pytest.approx(best)
        assert all(expected[row] == pytest.approx(c) for row, c in zip(whole[FOUND, :number], real[CHI2], strict=False))
        total += number
    assert total > 100
