"""The number of threads: what is set holds, and no more than the environment allows."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SET = """
import torch
from cloudchamber.ops import segment_sum
from cloudchamber.threads import use_threads

use_threads({threads})
segment_sum(torch.ones(100_000, 8), torch.zeros(100_000, dtype=torch.int64), 1)
print(torch.get_num_threads())
"""
LEFT = """
import torch
from cloudchamber.ops import segment_sum

segment_sum(torch.ones(10, 2), torch.zeros(10, dtype=torch.int64), 1)
import numba
print(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)
"""


def printed(code: str, threads: dict[str, str]) -> str:
    others = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    command, environment = [sys.executable, "-c", code], others | threads
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)
    return run.stdout.strip()


@pytest.mark.parametrize("threads", [1, 2])
def test_kernels_do_not_change_the_threads_of_pytorch(threads: int) -> None:
    assert printed(SET.format(threads=threads), {}) == str(threads)


@pytest.mark.parametrize("threads", ["1", "1,2"])
def test_kernels_and_pytorch_start_no_more_threads_than_the_environment_says(threads: str) -> None:
    assert printed(LEFT, {"OMP_NUM_THREADS": threads}) == "1 1"


@pytest.mark.parametrize(
    ("threads", "left"),
    [({}, "None"), ({"OMP_NUM_THREADS": "many"}, "None"), ({"OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "1"}, "1")],
)
def test_an_environment_that_says_nothing_or_more_is_left_alone(threads: dict[str, str], left: str) -> None:
    assert printed("import cloudchamber, os; print(os.environ.get('NUMBA_NUM_THREADS'))", threads) == left
