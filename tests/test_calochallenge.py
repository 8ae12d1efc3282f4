"""Showers of the CaloChallenge: the layout of its files, and the resolution of ours beside it."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from cloudchamber.data import convert, open_events
from cloudchamber.errors import UserError

SHIPPED = Path(os.environ.get("CLOUDCHAMBER_DATA", "")) / "calo" / "showers_1_10GeV.hdf5"


def _write(path: Path, voxels: np.ndarray, energies: list[float]) -> Path:
    with h5py.File(path, "w") as file:
        file["incident_energies"] = np.array(energies, np.float32)[:, None]
        file["showers"] = voxels.astype(np.float32)
    return path


@pytest.mark.parametrize(("sectors", "rings", "width"), [(16, 9, 4.65), (50, 18, 2.325)])
def test_voxels_become_points(tmp_path: Path, sectors: int, rings: int, width: float):
    voxels = np.zeros((2, 45, sectors, rings))
    voxels[1, 3, 2, 4], voxels[1, 44, 0, 0] = 2500.0, 7.0
    path = _write(tmp_path / "showers.hdf5", voxels.reshape(2, -1), [1000.0, 65000.0])
    source = open_events(path)
    assert source.names == ["showers-000000", "showers-000001"]
    assert source[0].rows("point") == 0
    event = source[1]
    assert event.object["energy"].tolist() == [65.0]
    assert event.point["layer"].tolist() == [3, 44]
    np.testing.assert_allclose(event.point["energy"], [2.5, 0.007])
    np.testing.assert_allclose(torch.hypot(event.point["x"], event.point["y"]), [4.5 * width, 0.5 * width], rtol=1e-5)
    np.testing.assert_allclose(event.point["z"], [11.9, 151.3], rtol=1e-5)
    angle = torch.atan2(event.point["y"], event.point["x"])
    np.testing.assert_allclose(angle, [2.5 * 2 * np.pi / sectors, np.pi / sectors], rtol=1e-5)
    convert(source, tmp_path / "out")
    assert torch.equal(open_events(tmp_path / "out")[1].point["x"], event.point["x"])


def test_other_files_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match="expected 6480 or 40500 voxels, found 368"):
        open_events(_write(tmp_path / "photons.hdf5", np.zeros((1, 368)), [256.0]))[0]
    bad = np.zeros((1, 6480))
    bad[0, 17] = -1.0
    with pytest.raises(UserError, match=r"row 0, showers\[17\]: expected an energy, found -1"):
        open_events(_write(tmp_path / "bad.hdf5", bad, [256.0]))[0]
    with h5py.File(tmp_path / "jets.hdf5", "w") as file:
        file["table"] = np.zeros(3)
    with pytest.raises(UserError, match="no events"):
        open_events(tmp_path / "jets.hdf5")


@pytest.mark.skipif(not SHIPPED.exists(), reason="needs the showers in the folder CLOUDCHAMBER_DATA")
def test_geant4_showers_of_that_layout_have_the_resolution_of_the_calorimeter():
    """13 to 15% over the root of the energy, as ours: tests/test_showers.py."""
    source = open_events(SHIPPED)
    share = np.array([
        (float(event.point["energy"].sum() / event.object["energy"]) - 0.968) * float(event.object["energy"]) ** 0.5
        for event in source[:200]
    ])  # fmt: skip
    assert 0.11 < share.std() < 0.17
