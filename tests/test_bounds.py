"""Kernels of the finder read within their arrays: what lies behind an array seldom crashes, but may be anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cloudchamber.follow.cloud import SECTORS, span

CODE = """
from conftest import toy_event
from test_shape import with_cells
from cloudchamber.tasks.follow import Follow, FollowConfig

finder = Follow(FollowConfig())
finder.fit([with_cells(toy_event(seed, tracks=60, noise=40), seed) for seed in range(4)])
for seed in (7, 8):
    print(finder.find(with_cells(toy_event(seed, tracks=150, noise=150), seed)).rows("object"))
"""


@pytest.mark.parametrize(
    ("first", "last", "parts"),
    [
        (3, 5, [(3, 6), (0, 0)]),
        (-2, 1, [(0, 2), (SECTORS - 2, SECTORS)]),
        (SECTORS - 1, SECTORS, [(SECTORS - 1, SECTORS), (0, 1)]),
        (-3, -2, [(0, 0), (SECTORS - 3, SECTORS)]),
        (SECTORS + 1, SECTORS + 2, [(0, 0), (0, 3)]),
    ],
)
def test_places_of_sectors_that_reach_around(first: int, last: int, parts: list[tuple[int, int]]) -> None:
    """A hit in each cell of one row; sectors all on the other side are in the second part, with some more."""
    start = np.arange(SECTORS + 1, dtype=np.int32)
    assert [span(start, 0, first, last, part) for part in (0, 1)] == parts


def test_no_kernel_of_the_finder_reads_out_of_bounds(tmp_path: Path) -> None:
    """Compiled anew with checks, elsewhere: what the other tests use has none."""
    checked = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=Path(__file__).parent, env=checked, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert all(int(tracks) > 130 for tracks in done.stdout.split())
