"""The tables of the comparison: track finders side by side, and our own pipeline stage by stage."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bench.compare import Found
from cloudchamber.metrics import Fraction
from cloudchamber.report import Column, markdown_table, memory, plain, seconds
from cloudchamber.report.scores import stage_rows

Show = Callable[[Found, Found], str]  # a finder, and ours -> the cell


def _score(name: str) -> Show:
    def show(found: Found, ours: Found) -> str:
        mean, error = found.scores.mean(name)
        return f"{mean:.3f} ± {error:.3f}" if math.isfinite(error) else f"{mean:.3f}" if math.isfinite(mean) else "–"

    return show


def _rate(selection: str, rate: str, style: str = "double") -> Show:
    return lambda found, ours: percent(found.scores.rates[selection][style][rate])


def percent(fraction: Fraction) -> str:
    """Percent with its errors, in one digit after the point unless the errors are smaller."""
    mean, low, high = (100 * float(v) for v in (fraction.value, fraction.low, fraction.high))
    if not math.isfinite(mean):
        return "–"
    digits = 1 if max(high - mean, mean - low) >= 0.095 else 2
    up, down = f"{high - mean:.{digits}f}", f"{mean - low:.{digits}f}"
    return f"{mean:.{digits}f} ± {up}" if up == down else f"{mean:.{digits}f} +{up} −{down}"


def _time(name: str) -> Show:
    def show(found: Found, ours: Found) -> str:
        median, spread = found.cost.per_event(name)
        return seconds(median) + (f" ± {spread / median:.0%}" if spread else "")

    return show


def _ratio(found: Found, ours: Found) -> str:
    return f"{found.cost.ratio(ours.cost, 'cpu'):.3g}"


_SELECTIONS = {"pT > 1 GeV": "pT > 1", "pT > 0.5 GeV": "pT > 0.5", "all": "all"}

#: Heading of a row -> its value for one finder.
QUANTITIES: dict[str, Show] = {
    "TrackML score": _score("trackml"),
    "TrackML, primaries": _score("trackml_primaries"),
    "V-score": _score("v"),
    **{f"Efficiency {short}, %": _rate(name, "efficiency") for name, short in _SELECTIONS.items()},
    **{f"Fake rate {short}, %": _rate(name, "fake_rate") for name, short in _SELECTIONS.items()},
    "Fake rate pT > 0.5, ≥ 7 hits, %": lambda found, ours: percent(found.long_fakes),
    **{f"Duplicates {short}, %": _rate(name, "duplicate_rate", "standard") for name, short in _SELECTIONS.items()},
    "Tracks per event": lambda found, ours: plain(round(np.mean([t.rows("object") for t in found.tracks]))),
    "Time per event": _time("seconds"),
    "CPU time per event": _time("cpu"),
    "CPU time, ours = 1": _ratio,
    "Peak memory": lambda found, ours: memory(found.cost.memory),
}

#: What the rows mean, and what the Kalman filter leaves out.
LEGEND = {
    "rates": "TrackML score: over all hits and particles, mean over events. V-score: of the "
    "tracks and the particles as groups of hits, each hit alike. Efficiency: particles with |η| < 4 and at "
    "least 7 hits (all: at least 4) that a track matches by double majority: more than half of the hits of either "
    "are the other's. Fake rate: tracks of at least 4 hits (pT > 1: of fitted pT > 1 GeV, |η| < 4) that match no "
    "particle so; also of those of at least 7 hits, which every finder here looks for. Duplicates: further tracks of "
    "which at least half of the hits are those of a particle that has one already.",
    "ckf": "CKF: combinatorial Kalman filter of ACTS, one thread, greedy ambiguity resolution, given the same hits (no "
    "cells, which it has no use for). With pT > 0.5 GeV it looks neither for softer tracks nor for any of fewer "
    'than 7 hits, which bounds its TrackML score and its efficiency over all; "all pT" is pT > 0.15 GeV and at least 5 '
    "hits, in one pass or in three (stiff tracks, soft ones among the hits left over, those that begin outside the "
    "pixels). Its time is that of its algorithms alone. docs/benchmarks.md tells how it was tuned.",
    "cost": "Time: from hits in memory to tracks in memory, the finders in turns on every event; the median of the "
    "repetitions, ± half of their range. Memory: of the whole process, each finder in its own.",
}

STAGES = (
    "stage",
    Column("efficiency", "pair efficiency, %", percent),
    Column("purity", "pair purity, %", percent),
    Column("pairs", "pairs per event"),
)
TIMES = ("stage", Column("seconds", "time per event", seconds), Column("cpu", "CPU time per event", seconds))


def rows(found: Sequence[Found]) -> list[dict[str, str]]:
    """A row per quantity, a column per finder, ours the first."""
    return [{"quantity": name, **{one.name: show(one, found[0]) for one in found}} for name, show in QUANTITIES.items()]


def heads(found: Sequence[Found]) -> list[Column]:
    """The columns of ``rows``."""
    return [Column("quantity", " "), *(Column(one.name, one.name) for one in found)]


def legend(finders: Iterable[str]) -> str:
    """What the rows of these finders, by name, mean, in paragraphs."""
    with_ckf = any(name.startswith("CKF") for name in finders)
    return "\n\n".join(text for name, text in LEGEND.items() if with_ckf or name != "ckf")


def stage_table(rates: Mapping[str, Mapping[str, Fraction]], events: int) -> str:
    """Efficiency and purity stage by stage in Markdown."""
    return markdown_table(stage_rows(rates, events), STAGES)


def time_rows(times: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """A row per stage (see ``stages.stage_times``), and their sum."""
    total = {name: sum(time[name] for time in times.values()) for name in ("seconds", "cpu")}
    return [{"stage": stage, **time} for stage, time in {**times, "all": total}.items()]
