"""Threads: no more than the environment allows."""

import os
import subprocess
import sys

import pytest

CODE = """
import cloudchamber, torch
from cloudchamber.ops import segment_sum
segment_sum(torch.ones(10, 2), torch.zeros(10, dtype=torch.int64), 1)
import numba
print(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)
"""


CASES = [({"OMP_NUM_THREADS": "1"}, "1 1"), ({"OMP_NUM_THREADS": "1,2"}, "1 1")]


def printed(code: str, threads: dict[str, str]) -> str:
    others = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    run = subprocess.run([sys.executable, "-c", code], env=others | threads, capture_output=True, text=True, check=True)
    return run.stdout.strip()


@pytest.mark.parametrize(("threads", "found"), CASES)
def test_kernels_and_pytorch_start_no_more_threads_than_the_environment_says(threads, found):
    assert printed(CODE, threads) == found


@pytest.mark.parametrize(
    ("threads", "left"),
    [({}, "None"), ({"OMP_NUM_THREADS": "many"}, "None"), ({"OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "1"}, "1")],
)
def test_an_environment_that_says_nothing_or_more_is_left_alone(threads, left):
    assert printed("import cloudchamber, os; print(os.environ.get('NUMBA_NUM_THREADS'))", threads) == left
