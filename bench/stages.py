"""Where the time of the pipeline goes: its functions, timed one by one while an event is reconstructed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from typing import Any

import numpy as np

from cloudchamber.errors import UserError
from cloudchamber.event import Event
from cloudchamber.reconstruct import Reconstructor

#: Function, where it is looked up -> stage; None for the method of a task, whose settings name the stage.
FUNCTIONS: dict[str, str | None] = {
    "cloudchamber.tasks.follow:Follow.find": "following",
    "cloudchamber.data.graph:Windows.forward": "candidate edges",
    "cloudchamber.tasks.edges:edge_columns": "triplets",
    "cloudchamber.tasks.edges:Edges.forward": None,
    "cloudchamber.tasks.edges:components": "track building",
    "cloudchamber.tasks.edges:walk": "track building",
    "cloudchamber.tasks.edges:link": "track building",
    "cloudchamber.tasks.edges:attach": "track building",
    "cloudchamber.tasks.edges:fitted_tracks": "fit",
    "cloudchamber.reconstruct:without_outliers": "fit",
    "cloudchamber.tasks.edges:evidence": "judgement",
    "cloudchamber.tasks.quality:Quality.decode": "judgement",
}
REST = "rest"


class Stopwatch:
    """Wall and CPU seconds per stage; the time of a stage that another one calls counts for the inner one alone."""

    def __init__(self) -> None:
        self.spent: dict[str, Any] = {}
        self.stage, self.since = REST, self._now()

    def _now(self) -> Any:
        return np.array([time.perf_counter(), time.process_time()])

    def switch(self, stage: str) -> str:
        """Go over to another stage; returns the one before."""
        now, before = self._now(), self.stage
        self.spent[before] = self.spent.get(before, 0.0) + now - self.since
        self.stage, self.since = stage, now
        return before

    def timed(self, function: Callable[..., Any], stage: str | None) -> Callable[..., Any]:
        """The function, its time counted for ``stage``; of None, for ``config.stage`` of the object it belongs to."""

        @wraps(function)
        def call(*args: Any, **named: Any) -> Any:
            before = self.switch(args[0].config.stage if stage is None else stage)
            try:
                return function(*args, **named)
            finally:
                self.switch(before)

        return call


def find(target: str) -> tuple[Any, str]:
    """The owner and the name of the function ``module:name``; raises ``UserError`` when it does not exist."""
    module, _, path = target.partition(":")
    owner: Any = import_module(module)
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part, None)
    if not hasattr(owner, name):
        raise UserError(f"bench/stages.py: the pipeline has no function {target}: FUNCTIONS is out of date")
    return owner, name


@contextmanager
def _watched() -> Iterator[Stopwatch]:
    """Time all of ``FUNCTIONS`` for a while."""
    watch = Stopwatch()
    found = [(*find(target), stage) for target, stage in FUNCTIONS.items()]
    originals = [getattr(owner, name) for owner, name, _ in found]
    try:
        for (owner, name, stage), original in zip(found, originals, strict=True):
            setattr(owner, name, watch.timed(original, stage))
        watch.since = watch._now()
        yield watch
        watch.switch(REST)
    finally:
        for (owner, name, _), original in zip(found, originals, strict=True):
            setattr(owner, name, original)


def stage_times(finder: Reconstructor, events: Sequence[Event]) -> dict[str, dict[str, float]]:
    """``seconds`` and ``cpu`` (seconds) per event of every stage in the order in which they begin, last the rest.

    One pass over the events after one that compiles.
    """
    finder(events[0])
    with _watched() as watch:
        for event in events:
            finder(event)
    rest = watch.spent.pop(REST)
    found = {**watch.spent, REST: rest}
    return {name: dict(zip(("seconds", "cpu"), (t / len(events)).tolist(), strict=True)) for name, t in found.items()}
