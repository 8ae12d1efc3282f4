"""Graphs of jets: who is joined, how graphs are rewired, and places in them, against matrices of each jet alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cloudchamber.data.constituents import DISPLACED, ENCODINGS, KINEMATIC, constituent_columns, example_jets
from cloudchamber.data.neighbours import Neighbours, NeighboursConfig
from cloudchamber.event import Event, unbatch
from cloudchamber.physics import perigee

Maker = Callable[..., Event]


def graph(event: Event, **settings: Any) -> Event:
    found: Event = Neighbours(NeighboursConfig(**settings))(constituent_columns(event))
    return found


def matrix(event: Event) -> Tensor:
    """The edges of one jet: row receives from column."""
    points = event.rows("point")
    found = torch.zeros(points, points, dtype=torch.float64)
    found[event.edge["receiver"], event.edge["sender"]] = 1
    return found


@pytest.mark.parametrize("join", ["nearest", "all", "random"])
def test_who_is_joined(join: str, jets: Maker) -> None:
    event = graph(jets(10, 1, 1), join=join, k=3)
    assert torch.equal(event.edge["receiver"], event.edge["receiver"].sort().values)
    for jet in unbatch(event):
        points, edges = jet.rows("point"), matrix(jet)
        wanted = points - 1 if join == "all" else min(3, points - 1)
        assert edges.sum(1).tolist() == [wanted] * points
        assert edges.diagonal().sum() == 0
        if join == "nearest":
            place = torch.stack([jet.point["deta"], jet.point["dphi"]], dim=1).double()
            distance = torch.cdist(place, place).fill_diagonal_(torch.inf)
            expected = torch.zeros_like(edges).scatter(1, distance.argsort()[:, :wanted], 1)
            assert torch.equal(edges, expected)


def test_several_hops_are_powers_of_the_matrix(jets: Maker) -> None:
    event = jets(6, 2, 3)
    one, many = graph(event, join="nearest", k=2), graph(event, join="nearest", k=2, rewire="hops", hops=3)
    for before, after in zip(unbatch(one), unbatch(many), strict=True):
        a = matrix(before)
        reached = ((a + a @ a + a @ a @ a) > 0).double().fill_diagonal_(0)
        assert torch.equal(matrix(after), reached)


def test_diffusion_is_the_inverse_of_a_matrix(jets: Maker) -> None:
    event = jets(6, 3, 12)
    settings: dict[str, Any] = {"join": "nearest", "k": 4}
    one, many = graph(event, **settings), graph(event, **settings, rewire="diffusion", restart=0.5)
    for before, after in zip(unbatch(one), unbatch(many), strict=True):
        step = matrix(before)
        step = step / step.sum(1, keepdim=True)
        rank = 0.5 * torch.linalg.inv(torch.eye(len(step)) - 0.5 * step)
        rank.fill_diagonal_(0)
        least = rank.sort(1, descending=True).values[:, 3:4]
        assert torch.equal(matrix(after) > 0, rank > least * (1 - 1e-3))
        assert (matrix(after).sum(1) >= 4).all()


def test_places_are_probabilities_of_return(jets: Maker) -> None:
    event = graph(jets(6, 4, 2), join="nearest", k=3, rewire="hops", places=True)
    for jet in unbatch(event):
        step = matrix(jet)
        torch.testing.assert_close(jet.point["degree"].double(), step.sum(1).log1p(), check_dtype=False)
        step = step / step.sum(1, keepdim=True)
        for power, name in ((2, "return2"), (3, "return3"), (4, "return4")):
            expected = torch.linalg.matrix_power(step, power).diagonal()
            torch.testing.assert_close(jet.point[name].double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rewire", ["none", "hops", "diffusion"])
def test_empty_jets_have_no_edges(rewire: str) -> None:
    for sizes in ((0, 1, 0), (0,), (4, 0, 2)):
        event = graph(example_jets(sizes), join="nearest", k=5, rewire=rewire, places=True)
        assert event.count["edge"].tolist() == [size * (size - 1) for size in sizes]
        assert all(torch.isfinite(event.point[name]).all() for name in ENCODINGS)


def test_features_by_hand() -> None:
    """Two massless particles of 30 and 10 GeV on both sides of phi = pi."""
    p = torch.tensor([[-30.0, 0.0, 0.0, 30.0], [-10 * 0.8, -10 * 0.6, 10.0, 10 * 2**0.5]], dtype=torch.float64)
    event = Event(point=dict(zip(("px", "py", "pz", "energy"), p.unbind(1), strict=True)))
    found = constituent_columns(event).point
    jet = p.sum(0)
    pt, eta, phi = (
        torch.hypot(jet[0], jet[1]),
        torch.asinh(jet[2] / torch.hypot(jet[0], jet[1])),
        torch.atan2(jet[1], jet[0]),
    )
    assert found["pt"].tolist() == pytest.approx([30, 10])
    assert found["deta"].tolist() == pytest.approx([-float(eta), float(torch.asinh(torch.tensor(1.0)) - eta)], abs=1e-6)
    away = float(torch.atan2(torch.tensor(-0.6), torch.tensor(-0.8)) - phi)
    assert found["dphi"].tolist() == pytest.approx([-float(torch.pi + phi), away], abs=1e-6)
    assert found["lnptrel"].tolist() == pytest.approx([float((30 / pt).log()), float((10 / pt).log())], abs=1e-6)
    assert found["lnerel"].exp().sum() == pytest.approx(1)
    assert found["lne"][0] == found["lnpt"][0] == pytest.approx(float(torch.tensor(30.0).log()))
    assert found["deltar"].tolist() == pytest.approx(torch.hypot(found["deta"], found["dphi"]).tolist())
    assert set(KINEMATIC) <= found.keys()
    assert all(column.dtype == torch.float32 for name, column in found.items() if name in KINEMATIC)
    assert not DISPLACED.keys() & found.keys()


def test_impact_parameters_have_the_sign_of_the_decay() -> None:
    """Tracks from a point on the axis of a jet, and from one behind; signs of d0 by ``physics.perigee``."""
    angle, steep = torch.tensor([-0.1, 0.1, 0.05, 0.3]), torch.tensor([0.2, -0.2, 0.1, 0.4])
    place = torch.tensor([2.0, 2.0, -2.0, 0.0])  # mm from the beam, along x
    px, py, pz = 500 * angle.cos(), 500 * angle.sin(), 500 * steep
    ones = torch.ones(4)
    true = perigee(*(x.numpy() for x in (place, 0 * ones, 0 * ones, px, py, pz, ones)))
    point = {"px": px, "py": py, "pz": pz, "energy": (px**2 + py**2 + pz**2).sqrt()}
    point |= {"d0": torch.tensor(true.d0), "sigma_d0": torch.tensor([0.1, 0.1, 0.1, 0.0])}
    axis = {"px": 1e6, "energy": 1e6}  # what the axis of the jet follows
    heavy = {name: torch.cat([column, column.new_tensor([axis.get(name, 0.0)])]) for name, column in point.items()}
    event = constituent_columns(Event(point=heavy, count={"point": torch.tensor([5]), "scene": torch.tensor([1])}))
    significance = [2 * math.sin(0.1) / 0.1, 2 * math.sin(0.1) / 0.1, -2 * math.sin(0.05) / 0.1]
    expected = [math.copysign(math.log1p(abs(s)), s) for s in significance]
    assert event.point["signif_d0"].tolist() == pytest.approx([*expected, 0, 0], rel=1e-3)
    assert "signif_z0" not in event.point
