"""Candidate edges between hits: windows of geometry per pair of detector layers, learned from true tracks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cloudchamber.data.features import PAIR_COLUMNS, hit_columns, layer_key, pair_features, pair_values, true_pairs
from cloudchamber.data.shapes import agree, directions
from cloudchamber.event import Event, batch, unbatch
from cloudchamber.follow import LENGTHS
from cloudchamber.ops import group

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class WindowsConfig:
    """Settings of ``Windows``.

    ``worth``: true pairs that the widening of a window must bring per candidate that it adds; a smaller number gives
    more candidates and a higher efficiency. ``levels``: fractions of the true pairs left outside a window at each end
    that are tried, rising. ``shape``: share of the tracks, at either end of the directions that the shape of a cluster
    tells, that is given up in events with cells; 0 for none.
    """

    kind: Literal["windows"] = "windows"
    worth: float = 0.004
    levels: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.1)
    shape: float = 0.001


class Windows(nn.Module):
    """Edges from learned windows on dphi, dr, dz, dphi/dr and the extrapolated z, one set per pair of layers.

    The layer pairs that follow one another on true tracks are read off the training events, as in the module map of
    GNN4ITk (arXiv:2103.16701), here by layer. Within a layer hits are sorted by phi; the search is linear in the hits
    and candidates. An edge points away from the origin. What the shape of a cluster tells of the direction of its track
    is learned, too: where events have cells, edges that it speaks against are left out.
    """

    layers: Tensor  # keys of the layers, sorted
    pairs: Tensor  # (pairs, 2), rows of ``layers``
    low: Tensor  # (pairs, windows)
    high: Tensor
    disc: Tensor  # (layers,)
    directions: Tensor  # (layers, 4, LENGTHS), see ``fits``

    def __init__(self, config: WindowsConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("layers", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("pairs", torch.zeros((0, 2), dtype=torch.int64))
        self.register_buffer("low", torch.zeros((0, len(PAIR_COLUMNS))))
        self.register_buffer("high", torch.zeros((0, len(PAIR_COLUMNS))))
        self.register_buffer("disc", torch.zeros(0, dtype=torch.bool))
        self.register_buffer("directions", torch.zeros((0, 4, LENGTHS), dtype=torch.float64))

    def fit(self, events: Sequence[Event]) -> None:
        """Learn layer pairs and windows from events with truth.

        A true pair weighs as its hits do in the TrackML score, in units of the mean. For each pair of layers the five
        windows are chosen that bring the largest weight less ``worth`` per candidate, counted on the first event; none
        if that is negative.
        """
        found = [self._true(event) for event in events]
        key, values, weight = (np.concatenate(part) for part in zip(*found, strict=True))
        weight = weight / weight.mean() / len(events)
        pairs, which, count = np.unique(key, axis=0, return_inverse=True, return_counts=True)
        frequent = np.flatnonzero(count > len(events) // 2)
        self.layers = torch.from_numpy(np.unique(pairs[frequent]))
        self.pairs = torch.from_numpy(np.searchsorted(self.layers.numpy(), pairs[frequent]))
        of_pair = [np.flatnonzero(which.ravel() == pair) for pair in frequent]
        same = (self.pairs[:, 0] == self.pairs[:, 1]).tolist()
        # (pairs, 2, levels, columns): lower and upper ends, the loosest level first
        ends = np.stack(
            [_ends(values[rows], weight[rows], self.config.levels, s) for rows, s in zip(of_pair, same, strict=True)]
        )
        self.low, self.high = torch.from_numpy(ends[:, 0, 0]), torch.from_numpy(ends[:, 1, 0])
        event = hit_columns(events[0])
        sender, receiver, counted = self._candidates(event)
        radius, phi, z = (event.point[name].numpy() for name in ("radius", "phi", "z"))
        stop = np.cumsum(counted)
        kept = []
        for pair, rows in enumerate(of_pair):
            part = slice(stop[pair] - counted[pair], stop[pair])
            candidates = pair_values(radius, phi, z, sender[part], receiver[part])
            sides = (_tightest(values[rows], *ends[pair]), _tightest(candidates, *ends[pair]))
            level, gain = _choose(*sides, weight[rows], self.config.worth, len(self.config.levels))
            columns = np.arange(len(level))
            self.low[pair] = torch.from_numpy(ends[pair, 0, level, columns])
            self.high[pair] = torch.from_numpy(ends[pair, 1, level, columns])
            kept.append(gain > 0)
        self.pairs, self.low, self.high = self.pairs[kept], self.low[kept], self.high[kept]
        self._fit_shapes(events)

    def _fit_shapes(self, events: Sequence[Event]) -> None:
        """Learn what shapes tell; a layer thinner along z than along r is a disc."""
        where = [self._places(event) for event in events]
        layer = np.concatenate(where)
        x, y, z = (np.concatenate([event.point[name].numpy() for event in events]) for name in "xyz")
        r = np.hypot(x, y)
        disc = np.array([np.ptp(z[layer == row]) < np.ptp(r[layer == row]) for row in range(len(self.layers))])
        pairs = [tuple(ends.numpy() for ends in true_pairs(event)) for event in events]
        self.disc = torch.from_numpy(disc)
        self.directions = torch.from_numpy(directions(events, where, pairs, disc, self.config.shape))

    def _true(self, event: Event) -> tuple[Array, Array, Array]:
        event = hit_columns(event)
        inner, outer = true_pairs(event)
        weight = event.point["weight"][inner] + event.point["weight"][outer]
        inner, outer, weight = inner[weight > 0], outer[weight > 0], weight[weight > 0]
        key = layer_key(event)
        radius, phi, z = (event.point[name].numpy() for name in ("radius", "phi", "z"))
        values = pair_values(radius, phi, z, inner.numpy(), outer.numpy())
        return torch.stack([key[inner], key[outer]], dim=1).numpy(), values, weight.numpy()

    def forward(self, event: Event) -> Event:
        """The event with edges (sender, receiver) and the columns of ``hit_columns``."""
        if len(event) != 1:
            return batch([self(part) for part in unbatch(event)])
        event = hit_columns(event)
        sender, receiver, _ = self._candidates(event)
        if event.cell:
            known = self.disc.cpu().numpy(), self.directions.cpu().numpy()
            kept = agree(event, self._places(event), *known, sender, receiver)
            sender, receiver = sender[kept], receiver[kept]
        return event.with_level("edge", {"sender": torch.from_numpy(sender), "receiver": torch.from_numpy(receiver)})

    def _places(self, event: Event) -> Array:
        """The layer of each hit, a row of ``layers``, their number where it is not known."""
        key, layers = layer_key(event), self.layers.cpu()  # the search is on the CPU wherever the task is
        place = torch.searchsorted(layers, key).clamp(max=max(len(layers) - 1, 0))
        known = layers[place] == key if len(layers) else torch.zeros_like(key, dtype=torch.bool)
        return torch.where(known, place, len(layers)).numpy()

    def _candidates(self, event: Event) -> tuple[Array, Array, Array]:
        """Of an event with ``hit_columns``: senders and receivers, and the number of edges of each layer pair."""
        layer = self._places(event)
        radius, phi, z = (event.point[name].numpy() for name in ("radius", "phi", "z"))
        by_phi = np.argsort(phi, kind="stable")
        offset, order = group(layer[by_phi], len(self.layers) + 1)
        windows = (self.pairs.cpu().numpy(), self.low.cpu().numpy(), self.high.cpu().numpy())
        found: tuple[Array, Array, Array] = _search(radius, phi, z, offset, by_phi[order], *windows)
        return found


def _ends(values: Array, weight: Array, levels: Sequence[float], same: bool) -> Array:
    """Lower and upper ends of the window at each level, ``(2, levels, columns)``: quantiles of the weighted values.

    Within a layer (``same``) a slope over no distance says nothing: those windows are open.
    """
    ends = np.empty((2, len(levels), values.shape[1]), np.float32)
    for column in range(values.shape[1]):
        order = np.argsort(values[:, column])
        below = np.cumsum(weight[order]) / weight.sum()
        for row, level in enumerate(levels):
            first, last = np.searchsorted(below, (level, 1 - level))
            ends[:, row, column] = values[order[[first, min(last, len(order) - 1)]], column]
    if same:
        ends[0, :, 3:], ends[1, :, 3:] = -np.inf, np.inf
    return ends


@numba.njit(cache=True)
def _tightest(values: Array, low: Array, high: Array) -> Array:
    """For every value the number of levels, from the loosest on, whose window holds it: ``(rows, columns)``."""
    level = np.zeros(values.shape, np.int8)
    for row in range(values.shape[0]):
        for column in range(values.shape[1]):
            value = values[row, column]
            while level[row, column] < len(low) and (
                low[level[row, column], column] <= value <= high[level[row, column], column]
            ):
                level[row, column] += 1
    return level


def _choose(true: Array, candidate: Array, weight: Array, worth: float, levels: int) -> tuple[Array, float]:
    """The level per column of the largest gain, by coordinate ascent from the loosest, and that gain."""

    def gain(level: Array) -> float:
        return float(weight[(true > level).all(1)].sum() - worth * np.count_nonzero((candidate > level).all(1)))

    level = np.zeros(true.shape[1], np.int64)
    best, before = gain(level), -np.inf
    while best > before:
        before = best
        for column in range(len(level)):
            for trial in range(levels):
                changed = level.copy()
                changed[column] = trial
                if (found := gain(changed)) > best:
                    best, level = found, changed
    return level, best


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
def _partners(
    a: int, outer: Array, radius: Array, phi: Array, z: Array, least: Array, most: Array, found: Array, write: bool
) -> int:
    """The hits of ``outer`` (sorted by phi) inside the windows of hit a: how many, and which if ``write``."""
    number = 0
    for turn in (-2 * np.pi, 0.0, 2 * np.pi):  # the window may reach around the circle
        start, end = phi[a] + turn + least[0], phi[a] + turn + most[0]
        if end < -np.pi or start > np.pi:
            continue
        for place in range(_first(phi, outer, start), len(outer)):
            b = outer[place]
            if phi[b] > end:
                break
            dz, dr = z[b] - z[a], radius[b] - radius[a]
            if dz < least[2] or dz > most[2] or dr < least[1] or dr > most[1] or a == b:
                continue
            _, _, _, slope, z0 = pair_features(radius[a], phi[a], z[a], radius[b], phi[b], z[b])
            if slope < least[3] or slope > most[3] or z0 < least[4] or z0 > most[4]:
                continue
            if radius[a] ** 2 + z[a] ** 2 > radius[b] ** 2 + z[b] ** 2:
                continue
            if write:
                found[number] = b
            number += 1
    return number


@numba.njit(cache=True, parallel=True)
def _search(
    radius: Array, phi: Array, z: Array, offset: Array, order: Array, pairs: Array, low: Array, high: Array
) -> tuple[Array, Array, Array]:
    """Candidates of every pair of layers: senders, receivers, and how many each pair of layers has.

    They are counted first and written then, so that threads need not wait for each other and the order is always the
    same: by pair of layers, sender in order of phi, receiver in order of phi.
    """
    size = np.array([offset[p + 1] - offset[p] for p in pairs[:, 0]])
    first = np.zeros(len(pairs) + 1, np.int64)
    first[1:] = np.cumsum(size)
    nothing = np.empty(0, np.int64)
    stop = np.zeros(first[-1] + 1, np.int64)
    for pair in numba.prange(len(pairs)):
        outer = order[offset[pairs[pair, 1]] : offset[pairs[pair, 1] + 1]]
        for i in range(size[pair]):
            a = order[offset[pairs[pair, 0]] + i]
            stop[first[pair] + i + 1] = _partners(a, outer, radius, phi, z, low[pair], high[pair], nothing, False)
    stop = np.cumsum(stop)
    sender, receiver = np.empty(stop[-1], np.int64), np.empty(stop[-1], np.int64)
    for pair in numba.prange(len(pairs)):
        outer = order[offset[pairs[pair, 1]] : offset[pairs[pair, 1] + 1]]
        for i in range(size[pair]):
            a = order[offset[pairs[pair, 0]] + i]
            part = slice(stop[first[pair] + i], stop[first[pair] + i + 1])
            sender[part] = a
            _partners(a, outer, radius, phi, z, low[pair], high[pair], receiver[part], True)
    return sender, receiver, stop[first[1:]] - stop[first[:-1]]
