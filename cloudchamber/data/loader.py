"""Events in the order and grouping in which a network sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from cloudchamber.event import Event, batch

CHUNK = 1024  # events laid end to end at a time

Batches = Iterator[tuple[int, Event]]


class Prepared:
    """Events of a source after a preparation, each prepared once and kept where ``cache`` says so."""

    def __init__(self, source: Sequence[Event], prepare: Callable[[Event], Event], *, cache: bool = True) -> None:
        self.source, self.prepare, self.cache = source, prepare, cache
        self._kept: dict[int, Event] = {}

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Event:
        if index in self._kept:
            return self._kept[index]
        event = self.prepare(self.source[index])
        if self.cache:
            self._kept[index] = event
        return event

    def batches(self, order: Sequence[int], points: int) -> Batches:
        """Batches of whole events, at most ``points`` points but at least one event each, with their number."""
        pending: list[Event] = []
        total = 0
        for index in order:
            event = self[index]
            if pending and total + event.rows("point") > points:
                yield len(pending), batch(pending)
                pending, total = [], 0
            pending.append(event)
            total += event.rows("point")
        if pending:
            yield len(pending), batch(pending)


class Packed:
    """Many small events, such as jets: a batch of all in memory, of which some are taken and prepared at a time."""

    def __init__(self, event: Event, prepare: Callable[[Event], Event]) -> None:
        self.event, self.prepare = event, prepare

    def __len__(self) -> int:
        return len(self.event)

    def batches(self, order: Sequence[int], points: int) -> Batches:
        """As ``Prepared.batches``."""
        rows = self.event.count["point"].tolist()
        pending: list[int] = []
        total = 0
        for index in order:
            if pending and total + rows[index] > points:
                yield len(pending), self.prepare(self.event.take(torch.tensor(pending)))
                pending, total = [], 0
            pending.append(index)
            total += rows[index]
        if pending:
            yield len(pending), self.prepare(self.event.take(torch.tensor(pending)))


def pack(source: Sequence[Event]) -> Event:
    """All events of a source as one batch."""
    starts = range(0, len(source), CHUNK)
    return batch([batch([source[i] for i in range(first, min(first + CHUNK, len(source)))]) for first in starts])


def epoch_order(events: int, seed: int, epoch: int) -> list[int]:
    """A random order of the events that depends on nothing but the seed and the epoch."""
    return list(np.random.default_rng((seed, epoch)).permutation(events).tolist())
