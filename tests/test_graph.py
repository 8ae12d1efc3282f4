"""Candidate edges and their inputs, on toy events."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from cloudchamber.data.features import (
    PAIR_COLUMNS,
    PAIR_INPUTS,
    edge_columns,
    hit_columns,
    label_edges,
    layer_key,
    true_pairs,
)
from cloudchamber.data.graph import Windows, WindowsConfig
from cloudchamber.data.scale import Scale
from cloudchamber.data.triplet import CURVATURE_GEV_MM, NO_TRIPLET, RADIATION_LENGTHS, triplet_features
from cloudchamber.event import LEVELS, Event, batch, unbatch

Maker = Callable[..., Event]
Pairs = set[tuple[int, int]]


def fitted(events: list[Event], **settings: float) -> Windows:
    windows = Windows(WindowsConfig(**settings))  # type: ignore[arg-type]
    windows.fit(events)
    return windows


@pytest.fixture(scope="module")
def windows(toys: list[Event]) -> Windows:
    return fitted(toys, worth=1e-6)


def pairs(event: Event) -> Pairs:
    return set(zip(event.edge["sender"].tolist(), event.edge["receiver"].tolist(), strict=True))


def true(event: Event) -> Pairs:
    return set(zip(*(rows.tolist() for rows in true_pairs(event)), strict=True))


def turned(event: Event, angle: float) -> Event:
    """The event turned about z."""
    x, y = event.point["x"].double(), event.point["y"].double()
    c, s = math.cos(angle), math.sin(angle)
    return event.with_columns("point", x=(c * x - s * y).float(), y=(s * x + c * y).float())


def test_true_pairs_follow_the_track_outwards(toys: list[Event]) -> None:
    event = toys[0]
    found = true(event)
    assert len(found) == 7 * 25
    radius = torch.hypot(event.point["x"], event.point["y"])
    for inner, outer in found:
        assert event.point["object"][inner] == event.point["object"][outer] >= 0
        assert radius[inner] < radius[outer]


def test_true_pairs_of_the_fitted_events_are_found(windows: Windows, toys: list[Event]) -> None:
    known = {tuple(pair) for pair in windows.layers[windows.pairs].tolist()}
    assert known == {(a, b) for a, b in known if a < b}
    assert len(known) == 7
    for event in toys:
        assert true(event) <= pairs(windows(event))


def test_most_true_pairs_of_another_event_are_found_few_of_all(windows: Windows, toy: Maker) -> None:
    event = toy(99)
    found = pairs(windows(event))
    assert len(true(event) & found) > 0.75 * len(true(event))
    assert len(found) < 220 * 219 / 2 / 4
    across = [
        (a, b)
        for a, b in found
        if abs(
            math.atan2(event.point["y"][a], event.point["x"][a]) - math.atan2(event.point["y"][b], event.point["x"][b])
        )
        > math.pi
    ]
    assert across  # windows reach over phi = pi


@pytest.mark.parametrize("angle", [0.0, 1.0, math.pi])
def test_candidates_are_all_the_pairs_inside_the_windows(windows: Windows, toy: Maker, angle: float) -> None:
    event = hit_columns(turned(toy(7), angle))
    key, p = layer_key(event).numpy(), {n: event.point[n].numpy().astype(np.float64) for n in ("radius", "phi", "z")}
    inside: Pairs = set()
    border: Pairs = set()
    for (inner, outer), low, high in zip(
        windows.layers[windows.pairs].tolist(), windows.low, windows.high, strict=True
    ):
        for a in np.flatnonzero(key == inner):
            b = np.flatnonzero(key == outer)
            dphi = np.remainder(p["phi"][b] - p["phi"][a] + np.pi, 2 * np.pi) - np.pi
            dr, dz = p["radius"][b] - p["radius"][a], p["z"][b] - p["z"][a]
            values = np.stack([dphi, dr, dz, dphi / dr, p["z"][a] - p["radius"][a] * dz / dr], axis=1)
            width = (high - low).numpy()
            outward = p["radius"][a] ** 2 + p["z"][a] ** 2 <= p["radius"][b] ** 2 + p["z"][b] ** 2
            margin = np.minimum(values - low.numpy(), high.numpy() - values) / np.maximum(width, 1e-3)
            least = np.where(outward, margin.min(1), -1)
            inside |= {(int(a), int(i)) for i in b[least >= 0]}
            border |= {(int(a), int(i)) for i in b[np.abs(margin).min(1) < 1e-3]}
    found = pairs(windows(event))
    assert found - border == inside - border
    assert len(found & border) < 0.2 * len(found)


def test_edges_point_away_from_the_origin_once(windows: Windows, toys: list[Event]) -> None:
    event = windows(toys[1])
    distance = event.point["radius"] ** 2 + event.point["z"] ** 2
    assert (distance[event.edge["sender"]] <= distance[event.edge["receiver"]]).all()
    assert len(pairs(event)) == event.rows("edge")


def test_a_smaller_worth_gives_more_candidates(toys: list[Event]) -> None:
    graphs = [fitted(toys, worth=worth) for worth in (1e-6, 0.01, 0.1, 0.5)]
    count = [sum(graph(event).rows("edge") for event in toys) for graph in graphs]
    assert count == sorted(count, reverse=True)
    assert count[0] > count[-1]
    assert pairs(graphs[-1](toys[0])) <= pairs(graphs[0](toys[0]))


def test_a_batch_gives_what_its_events_give(windows: Windows, toys: list[Event], toy: Maker) -> None:
    parts = [toys[0], toy(1, 0, 0), toys[2], toy(3, 0, 1)]
    alone = [edge_columns(windows(part)) for part in parts]
    together = unbatch(edge_columns(windows(batch(parts))))
    for one, two in zip(alone, together, strict=True):
        for level in LEVELS:
            assert torch.equal(one.count[level], two.count[level])
            for name, column in getattr(one, level).items():
                assert torch.equal(column, getattr(two, level)[name]), (level, name)


@pytest.mark.parametrize("noise", [0, 1])
def test_events_of_no_hit_and_of_one(windows: Windows, toy: Maker, noise: int) -> None:
    event = label_edges(edge_columns(windows(toy(0, 0, noise))))
    assert event.rows("point") == noise
    for name in (*PAIR_INPUTS, "sender", "receiver", "hits"):
        assert event.edge[name].shape == (0,)


def test_hits_of_layers_never_seen_have_no_edges(windows: Windows, toys: list[Event]) -> None:
    event = toys[0]
    strange = event.with_columns("point", volume=torch.where(event.point["volume"] == 8, 7, event.point["volume"]))
    found = windows(strange)
    assert found.rows("edge") > 0
    assert (found.point["volume"][found.edge["sender"]] == 13).all()
    assert Windows(WindowsConfig())(event).rows("edge") == 0  # nothing learned, nothing found


def test_edge_inputs_do_not_change_when_the_event_is_turned(windows: Windows, toys: list[Event]) -> None:
    event = windows(toys[0])
    before = edge_columns(event)
    after = edge_columns(hit_columns(turned(event, 2.0)))
    for name in PAIR_INPUTS:
        one, two = before.edge[name], after.edge[name]
        scale = one.abs().median().clamp(min=1e-6)
        near = (one - two).abs() < 2e-3 * scale + 1e-2 * one.abs()
        assert near.float().mean() > 0.98, name  # rounding may exchange two equally good continuations


def test_pair_columns_by_hand() -> None:
    x, y, z = torch.tensor([[-100.0, -200.0, 0.0], [1.0, -1.0, 50.0], [10.0, 30.0, 0.0]])
    event = hit_columns(
        Event(point={"x": x, "y": y, "z": z}, edge={"sender": torch.tensor([0]), "receiver": torch.tensor([1])})
    )
    found = edge_columns(event).edge
    expected = (0.015, 100.0, 20.0, 1.5e-4, -10.0)
    for name, value in zip(PAIR_COLUMNS, expected, strict=True):
        assert float(found[name]) == pytest.approx(value, rel=1e-3), name
    assert float(found["cost_in"]) == float(found["cost_out"]) == NO_TRIPLET


def reference(hit: dict[str, np.ndarray], a: int, b: int, c: int) -> tuple[float, float, float, float] | None:
    """Cost, curvature, impact and straightness of three hits, by complex numbers and the circle's centre."""
    p, q, r = (complex(hit["x"][i], hit["y"][i]) for i in (a, b, c))
    ab, bc, ac = abs(q - p), abs(r - q), abs(r - p)
    w = (r - p) / (q - p)
    centre = (q - p) * (w - abs(w) ** 2) / (w - w.conjugate()) + p
    radius = abs(p - centre)
    curvature = math.copysign(1 / radius, ((q - p).conjugate() * (r - q)).imag)
    blur = 2 * (hit["sigma_t"][b] + (bc * hit["sigma_t"][a] + ab * hit["sigma_t"][c]) / ac) / (ab * bc)
    if abs(curvature) - 3 * blur > CURVATURE_GEV_MM / 0.08:
        return None
    s1, s2 = (chord * (1 + min(chord / 2 / radius, 1.0) ** 2 / 6) for chord in (ab, bc))  # about the arc
    dz1, dz2 = (float(hit["z"][j] - hit["z"][i]) for i, j in ((a, b), (b, c)))
    length = math.hypot(s1 + s2, dz1 + dz2)
    sine, cosine = (s1 + s2) / length, (dz1 + dz2) / length
    share = {a: s2 / (s1 + s2), b: 1.0, c: s1 / (s1 + s2)}
    variance = sum(
        f**2 * ((hit["sigma_z"][i] * sine) ** 2 + (hit["sigma_r"][i] * cosine) ** 2) for i, f in share.items()
    )
    pt = min(max(CURVATURE_GEV_MM * radius, 0.05), 20.0)
    pt = max(pt, 0.3) if abs(curvature) <= 3 * blur else pt
    angle = 0.0136 * sine / pt * math.sqrt(RADIATION_LENGTHS)
    variance += (angle * share[c] * s2 / sine) ** 2
    straight = (dz1 * sine - s1 * cosine) ** 2 / variance
    impact = abs(abs(centre) - radius)
    doubt = impact / (0.3 + abs(p) * (0.5 * blur * abs(q) + angle))
    return straight + min(doubt**2, 6.0), curvature, impact, straight


def test_triplets_equal_a_slow_reference(toy: Maker) -> None:
    event = hit_columns(toy(5, 9, 5))
    order = torch.argsort(event.point["radius"])
    ends = torch.combinations(order, 2).T
    apart = layer_key(event)[ends[0]] != layer_key(event)[ends[1]]
    near = (event.point["radius"][ends[1]] - event.point["radius"][ends[0]] < 170) & apart
    dphi = event.point["phi"][ends[1]] - event.point["phi"][ends[0]]
    near &= dphi.cos() > 0.9  # no triplet turns by half a circle
    sender, receiver = ends[0][near].numpy(), ends[1][near].numpy()
    hit = {name: event.point[name].numpy() for name in ("x", "y", "z", "sigma_t", "sigma_z", "sigma_r")}
    found = triplet_features(hit, sender, receiver)
    wide = {name: column.astype(np.float64) for name, column in hit.items()}
    linked = 0
    for i in range(len(sender)):
        ways = {
            "in": [
                (j, reference(wide, sender[j], sender[i], receiver[i])) for j in np.flatnonzero(receiver == sender[i])
            ],
            "out": [
                (j, reference(wide, sender[i], receiver[i], receiver[j])) for j in np.flatnonzero(sender == receiver[i])
            ],
        }
        for way, tried in ways.items():
            judged = [result for _, result in tried if result is not None]
            best = min(judged, default=None)
            if best is None or best[0] > 99:
                assert found[f"cost_{way}"][i] > 98
                continue
            linked += 1
            assert found[f"cost_{way}"][i] == pytest.approx(best[0], rel=0.02, abs=0.02)
            assert found[f"curvature_{way}"][i] == pytest.approx(best[1], rel=0.01, abs=2e-6)
            assert found[f"impact_{way}"][i] == pytest.approx(best[2], rel=0.01, abs=0.3)
            assert abs(found[f"ways_{way}"][i] - sum(result[3] < 9 for result in judged)) <= 1
    assert linked > 50


def test_labels_are_the_hits_of_the_common_particle(windows: Windows, toys: list[Event]) -> None:
    event = label_edges(windows(toys[0]))
    particle = event.point["object"]
    for a, b, hits in zip(event.edge["sender"], event.edge["receiver"], event.edge["hits"], strict=True):
        assert hits == (8 if particle[a] == particle[b] >= 0 else 0)


def test_scale_brings_columns_to_order_one() -> None:
    x = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1e-4, 1.0, 1e4])
    scale = Scale(3)
    scale.fit(x)
    torch.testing.assert_close(scale(x).mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(scale(x).std(0), torch.ones(3))
    for rows in (0, 1, 2):
        odd = Scale(3)
        odd.fit(x[:rows] * 0)
        assert torch.isfinite(odd(x)).all()
