"""The TrackML hit weight, by hand, and against the official weights of a real event."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from pyarrow import csv

from cloudchamber.data.weights import ALONG_TRACK, hit_weights, track_order

DATA = Path(os.environ.get("CLOUDCHAMBER_DATA", Path(__file__).parents[2] / "shared" / "data"))


def test_track_order() -> None:
    particle = [1, 0, -1, 1, 0, 1, -1]
    time = [5.0, 2.0, 0.0, 1.0, 1.0, 5.0, 3.0]
    assert_array_equal(track_order(particle, time), [1, 1, -1, 0, 0, 2, -1])
    assert_array_equal(track_order(torch.tensor(particle), torch.tensor(time)), [1, 1, -1, 0, 0, 2, -1])
    assert track_order([], []).shape == (0,)
    with pytest.raises(ValueError, match="particle has shape"):
        track_order([0, 1], [1.0])


def test_nine_hits_carry_the_published_weights() -> None:
    order = np.random.default_rng(0).permutation(9)
    weight = hit_weights(np.zeros(9), [1.0], order=order)
    assert_allclose(weight, np.array(ALONG_TRACK)[order] / 49, rtol=1e-12)


def test_by_hand() -> None:
    # Particle 0: pT 1.75 GeV, weight 0.6, four hits at 0, 8/3, 16/3, 8 of the published steps: 10, 16/3, 3, 6.
    # Particle 1: pT 0.1 GeV, weight 0.2, five hits at 0, 2, 4, 6, 8: 10, 6, 3, 3, 6. Particle 2 has three hits only.
    particle = [0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, -1]
    radius = [1, 2, 3, 4, 5, 4, 3, 2, 1, 1, 2, 3, 9]
    position = np.stack([np.zeros(13), radius, np.zeros(13)], axis=1)
    weight = hit_weights(particle, [1.75, 0.1, 50.0], position=position, vertex=np.zeros((3, 3)))
    first = np.array([10, 16 / 3, 3, 6]) / (10 + 16 / 3 + 3 + 6) * 0.6
    second = np.array([6, 3, 3, 6, 10]) / 28 * 0.2
    assert_allclose(weight, np.concatenate([first, second, np.zeros(4)]) / 0.8, rtol=1e-12)
    assert weight.dtype == np.float64


def test_pt_weight() -> None:
    pt = np.array([0.01, 0.5, 1.0, 3.0, 100.0])
    particle = np.repeat(np.arange(5), 4)
    weight = hit_weights(particle, pt, order=np.tile(np.arange(4), 5))
    share = np.bincount(particle, weight)
    assert_allclose(share / share[-1], [0.2, 0.2, 0.36, 1.0, 1.0])
    assert_allclose(weight.sum(), 1.0)


def test_distance_is_from_the_vertex() -> None:
    position = torch.tensor([[10.0, 0, 0], [11.0, 0, 0], [12.0, 0, 0], [13.0, 0, 0]])
    particle = torch.zeros(4, dtype=torch.int64)
    inward = hit_weights(particle, torch.ones(1), position=position, vertex=torch.tensor([[20.0, 0, 0]]))
    assert_allclose(inward, hit_weights(particle, [1.0], order=[3, 2, 1, 0]))


def test_only_scored_particles() -> None:
    particle = np.repeat([0, 1], 5)
    weight = hit_weights(particle, [1.0, 2.0], order=np.arange(10), scored=[True, False])
    assert_allclose(weight[:5].sum(), 1.0)
    assert_array_equal(weight[5:], 0.0)


@pytest.mark.parametrize(("particle", "pt"), [([], []), ([-1, -1], []), ([0, 0, 0], [1.0])])
def test_nothing_to_score(particle: list[int], pt: list[float]) -> None:
    assert_array_equal(hit_weights(particle, pt, order=np.arange(len(particle))), np.zeros(len(particle)))


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="names particle 1, but pt has only 1 rows"):
        hit_weights([0, 1], [1.0], order=[0, 1])
    with pytest.raises(ValueError, match="either order, or position and vertex"):
        hit_weights([0], [1.0])


def test_official_weights() -> None:
    folder = DATA / "trackml" / "thin_event"
    if not folder.exists():
        pytest.skip(f"no {folder}: set CLOUDCHAMBER_DATA")
    truth, particles = (
        csv.read_csv(folder / f"event000000001-{name}.csv.gz").to_pandas() for name in ("truth", "particles")
    )
    row = {identity: i for i, identity in enumerate(particles.particle_id)}
    owner = np.array([row.get(identity, -1) for identity in truth.particle_id])
    pt = np.hypot(particles.px, particles.py).to_numpy()
    primary = (particles.particle_id.to_numpy().astype(np.int64) >> 24) & 0xFFF == 0
    weight = hit_weights(
        owner,
        pt,
        position=truth[["tx", "ty", "tz"]].to_numpy(),
        vertex=particles[["vx", "vy", "vz"]].to_numpy(),
        scored=primary,
    )
    official = truth.weight.to_numpy()
    assert_array_equal(weight > 0, official > 0)
    some = official > 0  # the event is thinned: official weights add up to less than one
    ratio = official[some] / weight[some] / official.sum()
    assert (np.abs(ratio - 1) < 1e-3).mean() > 0.99  # a few tracks curl back, and distance is not their order
