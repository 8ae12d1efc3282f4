"""Candidate edges between hits: windows of geometry per pair of detector layers, learned from true tracks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cloudchamber.data.features import PAIR_COLUMNS, hit_columns, layer_key, pair_features, pair_values, true_pairs
from cloudchamber.event import Event, batch, unbatch
from cloudchamber.ops import group

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class WindowsConfig:
    """Settings of ``Windows``.

    ``outside``: fraction of the true pairs cut off at each end of each window. ``rare``: layer pairs with a smaller
    fraction of the true pairs are left out. ``min_hits``: particles with fewer hits are not learned from.
    """

    kind: Literal["windows"] = "windows"
    outside: float = 0.001
    rare: float = 3e-5
    min_hits: int = 3


class Windows(nn.Module):
    """Edges from learned windows on dphi, dr, dz, dphi/dr and the extrapolated z, one set per pair of layers.

    The layer pairs that follow one another on true tracks are read off the training events, as in the module map of
    GNN4ITk (arXiv:2103.16701), here by layer. Within a layer hits are sorted by phi; the search is linear in the hits
    and candidates. An edge points away from the origin.
    """

    layers: Tensor  # keys of the layers, sorted
    pairs: Tensor  # (pairs, 2), rows of ``layers``
    low: Tensor  # (pairs, windows)
    high: Tensor

    def __init__(self, config: WindowsConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("layers", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("pairs", torch.zeros((0, 2), dtype=torch.int64))
        self.register_buffer("low", torch.zeros((0, len(PAIR_COLUMNS))))
        self.register_buffer("high", torch.zeros((0, len(PAIR_COLUMNS))))

    def fit(self, events: Iterable[Event]) -> None:
        """Learn layer pairs and windows from events with truth."""
        found = [self._true(event) for event in events]
        key = np.concatenate([k for k, _ in found])
        values = np.concatenate([v for _, v in found])
        pairs, which, count = np.unique(key, axis=0, return_inverse=True, return_counts=True)
        kept = np.flatnonzero(count > max(self.config.rare * len(key), 1))
        layers = np.unique(pairs[kept])
        low, high = np.empty((2, len(kept), len(PAIR_COLUMNS)), np.float32)
        for row, pair in enumerate(kept):
            sample = values[which.ravel() == pair]
            outside = max(self.config.outside, 0.5 / len(sample))
            low[row], high[row] = np.quantile(sample, (outside, 1 - outside), axis=0)
            if (
                pairs[pair, 0] == pairs[pair, 1]
            ):  # overlapping modules of a layer: a slope over no distance says nothing
                low[row, 3:], high[row, 3:] = -np.inf, np.inf
        self.layers = torch.from_numpy(layers)
        self.pairs = torch.from_numpy(np.searchsorted(layers, pairs[kept]))
        self.low, self.high = torch.from_numpy(low), torch.from_numpy(high)

    def _true(self, event: Event) -> tuple[Array, Array]:
        event = hit_columns(event)
        inner, outer = true_pairs(event)
        hits = torch.bincount(event.point["object"] + 1, minlength=1)
        kept = hits[event.point["object"][inner] + 1] >= self.config.min_hits
        inner, outer = inner[kept], outer[kept]
        key = layer_key(event)
        radius, phi, z = (event.point[name].numpy() for name in ("radius", "phi", "z"))
        values = pair_values(radius, phi, z, inner.numpy(), outer.numpy())
        return torch.stack([key[inner], key[outer]], dim=1).numpy(), values

    def forward(self, event: Event) -> Event:
        """The event with edges (sender, receiver) and the columns of ``hit_columns``."""
        if len(event) != 1:
            return batch([self(part) for part in unbatch(event)])
        event = hit_columns(event)
        key = layer_key(event)
        layer = torch.searchsorted(self.layers, key).clamp(max=max(len(self.layers) - 1, 0))
        known = self.layers[layer] == key if len(self.layers) else torch.zeros_like(key, dtype=torch.bool)
        layer = torch.where(known, layer, len(self.layers)).numpy()
        radius, phi, z = (event.point[name].numpy() for name in ("radius", "phi", "z"))
        by_phi = np.argsort(phi, kind="stable")
        offset, order = group(layer[by_phi], len(self.layers) + 1)
        windows = (self.pairs.numpy(), self.low.numpy(), self.high.numpy())
        sender, receiver = _search(radius, phi, z, offset, by_phi[order], *windows)
        return event.with_level("edge", {"sender": torch.from_numpy(sender), "receiver": torch.from_numpy(receiver)})


@numba.njit(cache=True)
def _first(phi: Array, rows: Array, least: float) -> int:
    """Place in ``rows`` (sorted by phi) of the first hit with phi >= least."""
    start, stop = 0, len(rows)
    while start < stop:
        middle = (start + stop) // 2
        if phi[rows[middle]] < least:
            start = middle + 1
        else:
            stop = middle
    return start


@numba.njit(cache=True)
def _double(array: Array) -> Array:
    larger = np.empty(2 * len(array), array.dtype)
    larger[: len(array)] = array
    return larger


@numba.njit(cache=True)
def _search(
    radius: Array, phi: Array, z: Array, offset: Array, order: Array, pairs: Array, low: Array, high: Array
) -> tuple[Array, Array]:
    sender, receiver, found = np.empty(1 << 16, np.int64), np.empty(1 << 16, np.int64), 0
    for pair in range(len(pairs)):
        inner = order[offset[pairs[pair, 0]] : offset[pairs[pair, 0] + 1]]
        outer = order[offset[pairs[pair, 1]] : offset[pairs[pair, 1] + 1]]
        least, most = low[pair], high[pair]
        for a in inner:
            for turn in (-2 * np.pi, 0.0, 2 * np.pi):  # the window may reach around the circle
                if phi[a] + turn + most[0] < -np.pi or phi[a] + turn + least[0] > np.pi:
                    continue
                for b in outer[_first(phi, outer, phi[a] + turn + least[0]) :]:
                    if phi[b] > phi[a] + turn + most[0]:
                        break
                    values = pair_features(radius[a], phi[a], z[a], radius[b], phi[b], z[b])
                    inside = a != b and radius[a] ** 2 + z[a] ** 2 <= radius[b] ** 2 + z[b] ** 2
                    for k in range(1, 5):
                        inside &= least[k] <= values[k] <= most[k]
                    if inside:
                        if found == len(sender):
                            sender, receiver = _double(sender), _double(receiver)
                        sender[found], receiver[found] = a, b
                        found += 1
    return sender[:found].copy(), receiver[:found].copy()
