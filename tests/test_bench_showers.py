"""The clusterings of the bench of showers, on showers made by hand."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import showers
from bench.clusterings import PEERS, clue, hdbscan, topological
from cloudchamber import checkpoint
from cloudchamber.config import parse
from cloudchamber.data.sampling import CELL, DEPTH, PITCH
from cloudchamber.event import Event
from cloudchamber.metrics import Showers

CLUSTERINGS = {
    "CLUE": partial(clue, radius=6.0, density=0.3, apart=12.0, stretch=0.2),
    "topological": partial(topological, grow=0.0, peak=0.3, reach=2),
    "HDBSCAN": partial(hdbscan, size=6, core=2, leaf=False, stretch=1.0),
}


def _event(centres: list[int], energy: float = 8.0) -> Event:
    """Showers whose axes cross cells (ix, 0), each of 5 x 5 x 4 cells, the energy halved from cell to cell."""
    ix, iy, layer = (
        grid.ravel() for grid in np.meshgrid(np.arange(-2, 3), np.arange(-2, 3), np.arange(4), indexing="ij")
    )
    share = 0.5 ** (np.abs(ix) + np.abs(iy) + np.abs(layer - 1))
    share = energy * share / share.sum()
    place = np.stack([np.concatenate([ix + centre for centre in centres]), np.tile(iy, len(centres))])
    values = {"x": place[0] * CELL + CELL / 2, "y": place[1] * CELL + CELL / 2}
    values |= {"z": (np.tile(layer, len(centres)) + 0.5) * PITCH, "energy": np.tile(share, len(centres))}
    truth = {"energy": [energy] * len(centres), "x": [c * CELL for c in centres], "y": [0.0] * len(centres)}
    return Event(
        point={name: torch.from_numpy(column.astype(np.float32)) for name, column in values.items()}
        | {"object": torch.arange(len(centres)).repeat_interleave(len(ix))},
        object={name: torch.tensor(column, dtype=torch.float32) for name, column in truth.items()}
        | {"seen": torch.full((len(centres),), energy)},
    )


def test_every_clustering_of_the_bench_is_tested():
    assert set(CLUSTERINGS) == set(PEERS)


@pytest.mark.parametrize("name", CLUSTERINGS)
def test_showers_far_apart_are_found(name: str):
    event = _event([-20, 0, 20])
    found = showers.score(partial(showers.apply, CLUSTERINGS[name]), [event])
    assert found.found.all()
    assert not found.fake.any()
    assert not found.split.any()
    np.testing.assert_allclose(found.measured, 8.0, rtol=0.05)


@pytest.mark.parametrize("name", ["CLUE", "topological"])
def test_maxima_three_cells_apart_are_two_showers(name: str):
    label = CLUSTERINGS[name](_event([0, 6]))
    assert len(np.unique(label[label >= 0])) == 2


@pytest.mark.parametrize("name", CLUSTERINGS)
def test_no_cells_give_no_clusters(name: str):
    nothing = Event(point={name: torch.zeros(0) for name in ("x", "y", "z", "energy")})
    assert len(CLUSTERINGS[name](nothing)) == 0


def test_small_clusters_are_left_out_and_energies_scaled():
    event = Event(point={"energy": torch.tensor([0.4, 0.3, 0.1, 1.0, 2.0])})
    found = showers.to_event(event, np.array([0, 0, 1, -1, 2]), scale=2.0)
    assert found.point["object"].tolist() == [0, 0, -1, -1, 1]
    np.testing.assert_allclose(found.object["energy"], [1.4, 4.0], rtol=1e-6)


def test_calibration_and_the_full_sum():
    events = [_event([0, 30], energy) for energy in (4.0, 9.0)]
    for event in events:
        event.point["energy"].mul_(0.8)
    find = showers.calibrated(lambda event: event.point["object"].numpy(), events)
    found = showers.score(find, events)
    np.testing.assert_allclose(found.measured, found.energy, rtol=1e-5)
    assert isinstance(found, Showers)
    np.testing.assert_allclose(showers.full(events, found).measured, found.energy)
    assert showers.aim(found) == pytest.approx(1.0)  # no pairs


def test_cells_go_to_the_nearest_axis():
    """One axis rises with slope 1 through x = 0 at the plane where places are given, the other stands at x = 30 mm."""
    x, z = torch.tensor([20.0, 20.0, 200.0]), torch.tensor([20.0, 0.0, 20.0]) + DEPTH
    axis = {"x": [0.0, 30.0], "dx": [1.0, 0.0], "y": [0.0, 0.0], "dy": [0.0, 0.0]}
    points = Event(point={"x": x, "y": torch.zeros(3), "z": z})
    event = Event(point=points.point, object={name: torch.tensor(values) for name, values in axis.items()})
    assert showers.axes(event).tolist() == [0, 1, -1]
    assert showers.axes(points).tolist() == [-1, -1, -1]


def test_condensation_is_tuned_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    good = {"threshold": 0.1, "radius": 0.8}
    monkeypatch.setattr(showers, "DECODING", [{**good, "threshold": 0.99}, good, {**good, "radius": 1e-3}])
    task = {"kind": "condense", "columns": ["energy"], "start": ["x", "y"], "unit": 0.02, "spread": 1e-3}
    task |= {"payload": ["energy"], "ratio": ["energy"]}
    run, model = checkpoint.start(parse({"model": {"kind": "mlp", "width": 4}, "task": task}, "test"))
    event = _event([-20, 0, 20])
    model.fit([event])
    weights = {f"weights/{name}": tensor for name, tensor in model.state_dict().items()}
    checkpoint.save(tmp_path / "model.safetensors", weights, run)
    find, best = showers.condensation(tmp_path / "model.safetensors", [event])
    assert best == good
    assert showers.score(find, [event]).found.all()
