"""Track following: how tracks are found hit by hit, layer by layer, in compiled code; linear in hits and seeds.

A pair of hits in two layers and the beam line give a helix, if the shapes of their clusters allow it; each hit of a
third layer near it makes a seed; a Kalman filter takes it on from layer to layer, to the likeliest hit at each, then
back to the first and further inwards. The best are taken; at the end of a pass its tracks are completed with free hits
beside, before and behind them.

A function in one file calls those of others: numba does not see when they change. Remove ``__pycache__`` then.
"""

from cloudchamber.follow.best import TRACKS, complete_all, take_best
from cloudchamber.follow.cloud import BINS, HIT, LAYER, NEXT, cells, measure_density, memory, rows
from cloudchamber.follow.field import NODES, field_at, measure_field, radial
from cloudchamber.follow.seed import PATHS, Pass, follow_pairs
from cloudchamber.follow.shape import DIRECTIONS, LENGTHS, cluster_sizes, fits, ways
from cloudchamber.follow.state import FIELD

__all__ = [
    "BINS", "DIRECTIONS", "FIELD", "HIT", "LAYER", "LENGTHS", "NEXT", "NODES", "PATHS", "TRACKS", "Pass",
    "cells", "cluster_sizes", "complete_all", "field_at", "fits", "follow_pairs", "measure_density", "measure_field",
    "memory", "radial", "rows", "take_best", "ways",
]  # fmt: skip
