"""Events that are read in ranges, and what can be read of them where some are malformed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

from cloudchamber.errors import UserError
from cloudchamber.event import Event

#: So many faults of a range are told; what is left of it is then given up as it stands.
FAULTS = 20


class Ranges(Sequence[Event], ABC):
    """The events of ``path``, of which ``range`` reads some as one batch: ``ranges[i]`` is one, a slice a list."""

    path: Path

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def range(self, first: int, last: int) -> Event:
        """Events ``first`` to ``last - 1`` as one batch; ``0 <= first <= last <= len(self)``."""

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> list[Event]: ...
    def __getitem__(self, index: int | slice) -> Event | list[Event]:
        """One event, or a list of those of a slice; ``range`` is much faster for many."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"{self.path}: event {index} of {len(self)}")
        return self.range(place, place + 1)

    def check(self, first: int, last: int) -> None:
        """Raise ``IndexError`` unless ``0 <= first <= last <= len(self)``."""
        if not 0 <= first <= last <= len(self):
            raise IndexError(f"{self.path}: events {first} to {last} of {len(self)}")


def readable(events: Ranges, first: int, last: int, faults: list[str]) -> Iterator[tuple[int, Event]]:
    """What can be read of events ``first`` to ``last - 1``: batches, each with the number of its first event.

    A range that cannot be read is halved until single events are left out, each with a line in ``faults``; after
    ``FAULTS`` of them in one call, ranges are left out as they are.
    """
    try:
        event = events.range(first, last)
    except UserError as error:
        if last - first == 1 or len(faults) >= FAULTS:
            faults.append(str(error))
            return
        middle = (first + last) // 2
        yield from readable(events, first, middle, faults)
        yield from readable(events, middle, last, faults)
        return
    yield first, event
