"""The table of the demonstration: track finders side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from cloudchamber.evaluate import Scores
from cloudchamber.event import Event
from cloudchamber.metrics import Fraction
from cloudchamber.report import Column, memory, plain, seconds


class Finding(Protocol):
    """What a row of the comparison is made of."""

    @property
    def name(self) -> str: ...
    @property
    def tracks(self) -> Sequence[Event]: ...
    @property
    def scores(self) -> Scores: ...
    @property
    def cost(self) -> dict[str, Any]: ...


def _score(name: str) -> Callable[[Finding], str]:
    def show(found: Finding) -> str:
        mean, error = found.scores.mean(name)
        return f"{mean:.3f} ± {error:.3f}" if math.isfinite(error) else f"{mean:.3f}"

    return show


def _rate(selection: str, rate: str, style: str = "double") -> Callable[[Finding], str]:
    return lambda found: percent(found.scores.rates[selection][style][rate])


def percent(fraction: Fraction) -> str:
    """Percent with its errors, in one digit after the point unless the errors are smaller."""
    mean, low, high = (100 * float(v) for v in (fraction.value, fraction.low, fraction.high))
    if not math.isfinite(mean):
        return "–"
    digits = 1 if max(high - mean, mean - low) >= 0.095 else 2
    up, down = f"{high - mean:.{digits}f}", f"{mean - low:.{digits}f}"
    return f"{mean:.{digits}f} ± {up}" if up == down else f"{mean:.{digits}f} +{up} −{down}"


def _mean(name: str) -> Callable[[Finding], str]:
    return lambda found: seconds(float(np.mean(found.cost[name])))


#: Heading of a row -> its value for one finder.
QUANTITIES: dict[str, Callable[[Finding], str]] = {
    "TrackML score": _score("trackml"),
    "TrackML, primaries": _score("trackml_primaries"),
    "Efficiency pT > 1, %": _rate("pT > 1 GeV", "efficiency"),
    "Efficiency pT > 0.5, %": _rate("pT > 0.5 GeV", "efficiency"),
    "Efficiency, all, %": _rate("all", "efficiency"),
    "Fake rate pT > 1, %": _rate("pT > 1 GeV", "fake_rate"),
    "Fake rate, all, %": _rate("all", "fake_rate"),
    "Duplicates, all, %": _rate("all", "duplicate_rate", "standard"),
    "Tracks per event": lambda found: plain(round(np.mean([t.rows("object") for t in found.tracks]))),
    "Time per event": _mean("seconds"),
    "CPU time per event": _mean("cpu"),
    "Peak memory": lambda found: memory(found.cost["memory"]),
}

#: What the rows mean, and what the Kalman filter leaves out.
LEGEND = {
    "rates": "TrackML score: over all hits and particles, mean over events. Efficiency: particles with |η| < 4 and at "
    "least 7 hits (all: at least 4) that a track matches by double majority: more than half of the hits of either "
    "are the other's. Fake rate: tracks of at least 4 hits (pT > 1: of fitted pT > 1 GeV, |η| < 4) that match no "
    "particle so. Duplicates: further tracks of which at least half of the hits are those of a particle that has one "
    "already.",
    "ckf": "CKF: combinatorial Kalman filter of ACTS, one thread, greedy ambiguity resolution, given the same hits. "
    "With pT > 0.5 GeV it looks neither for softer tracks nor for any of fewer than 7 hits, which bounds its TrackML "
    'score and its efficiency over all; "all pT" is pT > 0.15 GeV and at least 5 hits, with one seed per space point '
    "(F) or four (G: more efficient, several times slower). Its time is that of its algorithms alone.",
    "cost": "Time: from hits in memory to tracks in memory. Memory: of the whole process, each finder in its own.",
}


STAGES = (
    "stage",
    Column("efficiency", "pair efficiency, %", percent),
    Column("purity", "pair purity, %", percent),
    Column("pairs", "pairs per event"),
)


def rows(found: Iterable[Finding]) -> list[dict[str, str]]:
    """A row per quantity, a column per finder."""
    finders = list(found)
    return [{"quantity": name, **{one.name: show(one) for one in finders}} for name, show in QUANTITIES.items()]


def legend(found: Iterable[Finding]) -> str:
    """What the rows of these finders mean, in paragraphs."""
    with_ckf = any(one.name.startswith("CKF") for one in found)
    return "\n\n".join(text for name, text in LEGEND.items() if with_ckf or name != "ckf")
