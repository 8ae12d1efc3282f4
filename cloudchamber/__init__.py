"""Learning on particle clouds."""

import os as _os

# OMP_NUM_THREADS, which batch systems set, limits compiled kernels too. They would start a thread per core, and
# PyTorch, whose threads are the same, as many from then on.
if (_threads := _os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()).isdecimal() and int(_threads) > 0:
    _os.environ.setdefault("NUMBA_NUM_THREADS", _threads)
