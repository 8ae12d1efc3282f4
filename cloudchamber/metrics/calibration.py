"""Whether probabilities are what they say, and whether a cut on a score changes the mass of the background."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cloudchamber.metrics.curve import checked, rejection, threshold
from cloudchamber.metrics.fraction import Floats, Fraction, ratio

DRAWS = 100


@dataclass(frozen=True)
class Reliability:
    """Events in bins of the probability that they were given: ``edges`` (bins + 1,), ``predicted`` (bins,), its mean,
    NaN in an empty bin, and ``observed``, the fraction that is of the class, with binomial errors."""

    edges: Floats
    predicted: Floats
    observed: Fraction

    @property
    def error(self) -> float:
        """The expected calibration error, ``sum_b n_b / n |observed_b - predicted_b|``, NaN without events.

        Naeini, Cooper and Hauskrecht, AAAI 2015; Guo et al., arXiv:1706.04599, eq. 3. It is never negative: of few
        events it is above 0 for the best of probabilities, too.
        """
        count = self.observed.total
        off = np.abs(self.observed.value - self.predicted)
        return float(np.sum(count * np.nan_to_num(off)) / count.sum()) if count.sum() else float("nan")


def reliability(probability: ArrayLike, true: ArrayLike, bins: int = 10) -> Reliability:
    """Probabilities of a class in equal bins from 0 to 1, beside how many events are of it; both ``(events,)``.

    Raises ``ValueError`` for lengths that differ or a probability outside [0, 1].
    """
    value, is_class = np.asarray(probability, dtype=np.float64), np.asarray(true).astype(bool)
    if value.ndim != 1 or value.shape != is_class.shape:
        raise ValueError(f"reliability: expected two columns of one length, found {value.shape} and {is_class.shape}")
    if not np.all((value >= 0) & (value <= 1)):
        raise ValueError("reliability: expected probabilities from 0 to 1")
    edges = np.linspace(0.0, 1.0, bins + 1)
    observed = Fraction.of(is_class, value, edges)
    return Reliability(edges, ratio(np.histogram(value, edges, weights=value)[0], observed.total, np.nan), observed)


def binned_rejection(
    score: ArrayLike, signal: ArrayLike, values: ArrayLike, edges: ArrayLike, efficiency: float
) -> tuple[Floats, Floats, Floats]:
    """``rejection`` in bins of a variable, each bin with its own threshold: value, low and high, ``(bins,)``.

    NaN where a bin has no signal or no background. Bins are those of ``Fraction.of``.
    """
    scores, true = checked(score, signal)
    place, bounds = np.asarray(values, np.float64), np.asarray(edges, np.float64)
    found = np.full((3, len(bounds) - 1), np.nan)
    for i in range(len(bounds) - 1):
        last = i == len(bounds) - 2
        inside = (place >= bounds[i]) & ((place <= bounds[i + 1]) if last else (place < bounds[i + 1]))
        if true[inside].any() and not true[inside].all():
            here = rejection(scores[inside], true[inside], efficiency)
            found[:, i] = here.value, here.low, here.high
    return found[0], found[1], found[2]


def jensen_shannon(one: ArrayLike, other: ArrayLike) -> float:
    """The divergence of two histograms: 0 if they have the same shape, 1 if they have no bin in common; in bits.

    ``(KL(p, m) + KL(q, m)) / 2`` with ``m = (p + q) / 2`` and ``KL(p, m) = sum p log2(p / m)``: Lin, IEEE Trans. Inf.
    Theory 37 (1991) 145. NaN where one is empty.
    """
    counts = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if not all(c.sum() > 0 for c in counts):
        return float("nan")
    p, q = (c / c.sum() for c in counts)
    middle = (p + q) / 2
    logs = (np.log2(np.where(x > 0, x, 1.0) / np.where(x > 0, middle, 1.0)) for x in (p, q))
    return float(sum(np.sum(x * log) for x, log in zip((p, q), logs, strict=True)) / 2)


@dataclass(frozen=True)
class Sculpting:
    """The mass of the background before and after a cut: ``edges`` (bins + 1,), counts ``before`` and ``after``.

    ``divergence``: ``jensen_shannon`` of the two. ``chance``: what it is on average for as many events that are drawn
    at random, which have the shape of all.
    """

    edges: Floats
    before: Floats
    after: Floats
    divergence: float
    chance: float


def sculpting(
    score: ArrayLike, signal: ArrayLike, mass: ArrayLike, edges: ArrayLike, efficiency: float, seed: int = 0
) -> Sculpting:
    """What the cut that keeps a fraction ``efficiency`` of the signal does to the mass of the background.

    ``mass`` (events,) in any unit, that of ``edges``; events outside all bins are not counted.
    """
    value, true = checked(score, signal)
    bins, heavy = np.asarray(edges, np.float64), np.asarray(mass, np.float64)[~true]
    kept = value[~true] >= threshold(value, true, efficiency)
    before, after = (np.histogram(rows, bins)[0].astype(np.float64) for rows in (heavy, heavy[kept]))
    number, random = int(after.sum()), np.random.default_rng(seed)
    drawn = [random.multivariate_hypergeometric(before.astype(int), number) for _ in range(DRAWS)] if number else []
    chance = float(np.mean([jensen_shannon(before, rows) for rows in drawn])) if drawn else float("nan")
    return Sculpting(bins, before, after, jensen_shannon(before, after), chance)
