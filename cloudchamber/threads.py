"""How many processor cores this process computes with."""

from __future__ import annotations

import numba
import torch


def use_threads(threads: int) -> None:
    """So many threads for PyTorch and for compiled kernels; no more of these than the process was started with.

    In this order: kernels that start their threads also set the number that PyTorch would use from then on, and one
    that is too large makes its small operations wait for each other.
    """
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    torch.set_num_threads(threads)
