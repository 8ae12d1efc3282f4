"""Events in the order and grouping in which a network sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from cloudchamber.event import Event, batch


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


def epoch_order(events: int, seed: int, epoch: int) -> list[int]:
    """A random order of the events that depends on nothing but the seed and the epoch."""
    return list(np.random.default_rng((seed, epoch)).permutation(events).tolist())


def batches(events: Prepared, order: Sequence[int], points: int) -> Iterator[tuple[int, Event]]:
    """Batches of whole events, at most ``points`` points but at least one event each, with their number of events."""
    pending: list[Event] = []
    total = 0
    for index in order:
        event = events[index]
        if pending and total + event.rows("point") > points:
            yield len(pending), batch(pending)
            pending, total = [], 0
        pending.append(event)
        total += event.rows("point")
    if pending:
        yield len(pending), batch(pending)
