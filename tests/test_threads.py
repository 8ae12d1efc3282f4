"""The number of threads."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import torch
from cloudchamber.ops import segment_sum
from cloudchamber.threads import use_threads

use_threads({threads})
segment_sum(torch.ones(100_000, 8), torch.zeros(100_000, dtype=torch.int64), 1)
print(torch.get_num_threads())
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_kernels_do_not_change_the_threads_of_pytorch(threads: int) -> None:
    command = [sys.executable, "-c", CODE.format(threads=threads)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.split() == [str(threads)]
