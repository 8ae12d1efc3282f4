"""Scores of classifiers: accuracy, the ROC curve and its area, and how much background is rejected."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from cloudchamber.metrics.fraction import Floats, Fraction

Mask = NDArray[np.bool_]


def accuracy(probability: ArrayLike, label: ArrayLike) -> Fraction:
    """How often the most probable class is the true one: ``(events, classes)`` and ``(events,)``; -1 is unknown.

    Raises ``ValueError`` when the lengths differ or a label has no class.
    """
    found, true = np.asarray(probability), np.asarray(label)
    if found.ndim != 2 or found.shape[:1] != true.shape:
        raise ValueError(f"accuracy: expected (events, classes) and (events,), found {found.shape} and {true.shape}")
    if true.size and not -1 <= true.min() <= true.max() < found.shape[1]:
        raise ValueError(f"accuracy: a label has no class among {found.shape[1]}")
    return Fraction.of((found.argmax(1) == true)[true >= 0])


@dataclass(frozen=True)
class Measured:
    """A number with the ends of its 68.3% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g} +{self.high - self.value:.2g} -{self.value - self.low:.2g}"


def roc(score: ArrayLike, signal: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Efficiency of signal, efficiency of background and threshold, ``(points,)`` each, the efficiencies rising.

    Events with a score of at least the threshold are kept, and events of equal score together; the first point, with
    threshold infinity, keeps none. ``signal`` tells which events are. Raises ``ValueError`` for a score that is no
    number, or where one of the two is missing.
    """
    value, true = checked(score, signal)
    order = np.argsort(-value, kind="stable")
    value, true = value[order], true[order]
    last = np.append(np.flatnonzero(np.diff(value)), len(value) - 1)
    kept, wrong = np.cumsum(true)[last], np.cumsum(~true)[last]
    efficiency = np.concatenate([[0.0], kept / kept[-1]])
    mistaken = np.concatenate([[0.0], wrong / wrong[-1]])
    return efficiency, mistaken, np.concatenate([[np.inf], value[last]])


def auc(score: ArrayLike, signal: ArrayLike) -> Measured:
    """The area under the ROC curve: the probability that an event of signal has a higher score than one of background.

    Equal scores count one half (Mann and Whitney). The variance is DeLong's (Biometrics 44 (1988) 837): with V_i the
    fraction of background below event i of signal, and W_j the fraction of signal above event j of background,
    ``var(V) / n_signal + var(W) / n_background``.
    """
    value, true = checked(score, signal)
    above, below = value[true], value[~true]
    rank = rankdata(value)
    placed = (rank[true] - rankdata(above)) / len(below)
    passed = 1 - (rank[~true] - rankdata(below)) / len(above)
    area = float(placed.mean())
    spread = math.sqrt(_variance(placed) / len(above) + _variance(passed) / len(below))
    return Measured(area, max(area - spread, 0.0), min(area + spread, 1.0))


def threshold(score: ArrayLike, signal: ArrayLike, efficiency: float) -> float:
    """The score of an event of signal, its ceil(efficiency n)-th from above: at least that fraction passes."""
    if not 0 < efficiency <= 1:
        raise ValueError(f"rejection: expected an efficiency in (0, 1], found {efficiency}")
    value, true = checked(score, signal)
    above = np.sort(value[true])[::-1]
    return float(above[math.ceil(round(efficiency * len(above), 9)) - 1])  # 0.3 * 10 is 3


def rejection(score: ArrayLike, signal: ArrayLike, efficiency: float) -> Measured:
    """``1 / background efficiency`` at the ``threshold`` that keeps at least a fraction ``efficiency`` of the signal.

    The interval is the one of Clopper and Pearson for the events of background that are kept (``Fraction``), the
    threshold taken as known; where none is kept the value is infinite and only ``low`` is measured.
    """
    value, true = checked(score, signal)
    kept = Fraction.of(value[~true] >= threshold(value, true, efficiency))
    return Measured(*(1 / number if number else math.inf for number in map(float, (kept.value, kept.high, kept.low))))


def _variance(values: Floats) -> float:
    return float(values.var(ddof=1)) if len(values) > 1 else 0.0


def checked(score: ArrayLike, signal: ArrayLike) -> tuple[Floats, Mask]:
    """Scores and which events are signal, ``(events,)`` each; raises ``ValueError`` as ``roc`` says."""
    value, true = np.asarray(score, dtype=np.float64), np.asarray(signal).astype(bool)
    if value.ndim != 1 or value.shape != true.shape:
        raise ValueError(f"scores: expected two columns of one length, found {value.shape} and {true.shape}")
    if np.isnan(value).any():
        raise ValueError(f"scores: event {int(np.isnan(value).argmax())} has none (NaN)")
    if true.all() or not true.any():
        raise ValueError("scores: expected events of both signal and background")
    return value, true
