"""N-subjettiness: by hand, its symmetries, and beside FastJet contrib."""

from __future__ import annotations

import numpy as np
import pytest

from cloudchamber.physics import n_subjettiness


def momenta(pt: object, rapidity: object, phi: object, mass: float = 0.0) -> np.ndarray:
    pt, y, phi = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (pt, rapidity, phi)))
    transverse = np.hypot(pt, mass)
    return np.stack([pt * np.cos(phi), pt * np.sin(phi), transverse * np.sinh(y), transverse * np.cosh(y)], axis=1)


def drawn(sizes: list[int], seed: int = 1) -> np.ndarray:
    random, points = np.random.default_rng(seed), sum(sizes)
    pt = random.exponential(10, points) + 0.5
    return momenta(pt, random.normal(1, 0.3, points), np.pi + random.normal(0, 0.3, points), 0.14)


def test_by_hand() -> None:
    # kT joins 1 and 2 GeV at 0.1 first: the axes are at 0 and 0.5, and the 1 GeV is 0.1 away from the nearest
    jet = momenta([5, 2, 1], [0.0, 0.5, 0.6], [0.0, 0.0, 0.0])
    found = n_subjettiness(jet, [3], 4, radius=1.0)
    assert found[0] == pytest.approx([(2 * 0.5 + 1 * 0.6) / 8, 0.1 / 8, 0, 0])
    assert n_subjettiness(jet, [3], 2, radius=0.5)[0] == pytest.approx(2 * found[0, :2])


def test_across_the_edge_of_azimuth() -> None:
    found = n_subjettiness(momenta([2, 1], [0, 0], [np.pi - 0.1, -np.pi + 0.2]), [2], 1, radius=1.0)
    assert found[0, 0] == pytest.approx(0.3 / 3)


def test_jets_do_not_mix_and_order_does_not_matter() -> None:
    sizes = [30, 0, 1, 2, 12]
    rows = drawn(sizes)
    found = n_subjettiness(rows, sizes)
    assert found.shape == (5, 3)
    assert found[1].tolist() == found[2].tolist() == [0, 0, 0]
    assert (np.diff(found[[0, 4]], axis=1) < 0).all()
    parts = np.split(rows, np.cumsum(sizes)[:-1])
    random = np.random.default_rng(2)
    for jet, expected in zip(parts, found, strict=True):
        assert n_subjettiness(random.permutation(jet), [len(jet)])[0] == pytest.approx(expected, abs=1e-12)
        assert n_subjettiness(3 * jet, [len(jet)])[0] == pytest.approx(expected, abs=1e-12)


def test_soft_and_collinear_radiation_do_not_move_it() -> None:
    jet = drawn([20])
    split = np.concatenate([jet[1:], 0.3 * jet[:1], 0.7 * jet[:1], momenta([1e-9], [1.4], [3.0])])
    assert n_subjettiness(split, [22]) == pytest.approx(n_subjettiness(jet, [20]), abs=1e-8)


def test_shapes_must_fit() -> None:
    with pytest.raises(ValueError, match="expected"):
        n_subjettiness(np.ones((3, 4)), [2])


def test_is_that_of_fastjet_contrib() -> None:
    fastjet = pytest.importorskip("fastjet", reason="needs cloudchamber[simulate]")
    awkward = pytest.importorskip("awkward")
    fastjet._swig.ClusterSequence.set_fastjet_banner_stream(None)
    rows = drawn([60, 25])
    for jet, found in zip(np.split(rows, [60]), n_subjettiness(rows, [60, 25], 4), strict=True):
        columns = dict(zip(("px", "py", "pz", "E"), jet.T, strict=True))
        array = awkward.zip(columns, with_name="Momentum4D")
        sequence = fastjet.ClusterSequence(array, fastjet.JetDefinition(fastjet.antikt_algorithm, 0.8))
        theirs = sequence.njettiness(axes_definition="WTA_KT_Axes", njets=[1, 2, 3, 4], R0=0.8)
        assert found == pytest.approx(np.ravel(awkward.to_numpy(theirs)), rel=1e-9)
