"""Measurement errors of hits: the axes of modules, the table that ships, and how it is measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cloudchamber.data import detector, resolution
from cloudchamber.data.resolution import hit_errors, measure
from cloudchamber.event import Event

MODULES = detector.load()


def at_modules(rows: np.ndarray, local: np.ndarray) -> dict[str, np.ndarray]:
    x, y, z = MODULES.to_global(rows, local).T
    return {"x": x, "y": y, "z": z} | {n: getattr(MODULES, n)[rows] for n in ("volume", "layer", "module")}


def test_axes_and_errors_of_every_module() -> None:
    rows = np.arange(len(MODULES))
    local = (
        np.random.default_rng(0).uniform(-1, 1, (len(rows), 3))
        * np.stack([MODULES.half_u, MODULES.half_v], 1)[:, [0, 1, 1]]
    )
    local[:, 2] = 0
    point = at_modules(rows, local)
    found = hit_errors(point)
    axis = np.arctan2(point["y"], point["x"]) + np.pi / 2 + found["angle"]
    u = MODULES.rotation[:, :2, 0]
    np.testing.assert_allclose(np.cos(axis) * u[:, 1] - np.sin(axis) * u[:, 0], 0, atol=1e-6)
    barrel = np.isin(point["volume"], (8, 13, 17))
    np.testing.assert_array_equal(found["sigma_r"] == 0, barrel)
    np.testing.assert_array_equal(found["sigma_z"] == 0, ~barrel)
    assert (found["sigma_rphi"] < 1.1 * MODULES.pitch_u / np.sqrt(12)).all()
    assert (np.maximum(found["sigma_r"], found["sigma_z"]) < 3 * MODULES.pitch_v / np.sqrt(12)).all()


def test_other_detectors_have_no_axes() -> None:
    point = at_modules(np.arange(3), np.zeros((3, 3)))
    assert hit_errors({name: point[name] for name in "xyz"}) == {}
    assert hit_errors(point | {"module": point["module"] + 100_000}) == {}
    assert hit_errors({name: torch.from_numpy(c)[:0] for name, c in point.items()})["angle"].shape == (0,)


def test_the_table_is_measured_from_true_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolution, "_FEWEST", 50)
    rng = np.random.default_rng(1)
    rows = np.repeat(np.flatnonzero((MODULES.volume == 13) & (MODULES.layer == 4))[:200], 20)
    wrong = rng.normal(size=(len(rows), 3)) * [0.03, 0.5, 0]
    wrong[::100] *= 50  # hits at the ends of modules
    true = np.zeros((len(rows), 3))
    point = at_modules(rows, true + wrong)
    point |= dict(zip(("tx", "ty", "tz"), MODULES.to_global(rows, true).T, strict=True))
    point["object"] = np.where(np.arange(len(rows)) % 7 == 0, -1, 0)
    event = Event(
        point={name: torch.from_numpy(c) for name, c in point.items()}, object={"hits": torch.tensor([len(rows)])}
    )
    errors = measure([event])
    layer = resolution._layers()[rows[0]]
    assert errors[layer, :, 0] == pytest.approx(0.03, rel=0.1)
    assert errors[layer, :, 1] == pytest.approx(0.5, rel=0.1)
    assert errors[layer + 1, 0] == pytest.approx(np.array([0.08, 1.2]) / np.sqrt(12), rel=1e-3)  # no hits: the pitch
