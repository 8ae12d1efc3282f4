"""Counted fractions with their statistical errors; they add up over events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv

Mask = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

#: Probability that a normal variable lies within one standard deviation of its mean.
ONE_SIGMA = 0.6826894921370859


@dataclass(frozen=True, eq=False)
class Fraction:
    """``passed`` out of ``total`` trials: ``value = passed / total`` with a binomial interval, one per bin.

    ``passed`` and ``total`` are whole numbers of one shape, ``()`` or ``(bins,)``. Fractions of different events add by
    ``+`` (or ``sum``): the counts add, so a sum over events equals the fraction of all events together.

    Raises ``ValueError`` when the shapes differ, a number is not whole, or ``0 <= passed <= total`` does not hold.
    """

    passed: Ints
    total: Ints

    def __post_init__(self) -> None:
        passed, total = _whole("passed", self.passed), _whole("total", self.total)
        if passed.shape != total.shape:
            raise ValueError(f"Fraction: passed has shape {passed.shape}, total {total.shape}")
        if np.any(passed < 0) or np.any(passed > total):
            raise ValueError(f"Fraction: expected 0 <= passed <= total, got {passed} of {total}")
        object.__setattr__(self, "passed", passed)
        object.__setattr__(self, "total", total)

    @classmethod
    def of(cls, passed: Mask, values: ArrayLike | None = None, bins: ArrayLike | None = None) -> Fraction:
        """Count a mask of trials, shape ``(trials,)``: all together, or in ``bins`` of ``values``.

        ``bins`` holds n + 1 rising edges of n bins, closed below and open above, the last closed at both ends
        (``numpy.histogram``). A trial outside all bins, or with a value that is NaN, is counted in none.
        """
        if (values is None) != (bins is None):
            raise ValueError("Fraction: give both values and bins, or neither")
        if values is None or bins is None:
            return cls(np.asarray(np.count_nonzero(passed)), np.asarray(passed.size))
        numbers, edges = np.asarray(values, dtype=np.float64), np.asarray(bins, dtype=np.float64)
        if numbers.shape != passed.shape:
            raise ValueError(f"Fraction: values has shape {numbers.shape}, the mask {passed.shape}")
        return cls(np.histogram(numbers[passed], edges)[0], np.histogram(numbers, edges)[0])

    @property
    def value(self) -> Floats:
        """``passed / total``, NaN where ``total`` is 0."""
        return ratio(self.passed, self.total, np.nan)

    @property
    def low(self) -> Floats:
        """The lower end of the 68.3% interval; see ``interval``."""
        return self.interval()[0]

    @property
    def high(self) -> Floats:
        """The upper end of the 68.3% interval; see ``interval``."""
        return self.interval()[1]

    def interval(self, probability: float = ONE_SIGMA) -> tuple[Floats, Floats]:
        """The central Clopper-Pearson interval: it covers the true value at least with ``probability``.

        With k of n passed and tail a = (1 - probability) / 2, the ends are the a-quantile of Beta(k, n - k + 1) and the
        (1 - a)-quantile of Beta(k + 1, n - k); 0 where k = 0, 1 where k = n; (0, 1) where n = 0. Clopper and Pearson,
        Biometrika 26 (1934) 404; the default of ROOT's ``TEfficiency``.
        """
        tail = (1 - probability) / 2
        k, n = self.passed.astype(np.float64), self.total.astype(np.float64)
        none, every = k == 0, k == n
        low = np.where(none, 0.0, betaincinv(np.where(none, 1.0, k), n - k + 1, tail))
        high = np.where(every, 1.0, betaincinv(k + 1, np.where(every, 1.0, n - k), 1 - tail))
        return low, high

    def complement(self) -> Fraction:
        """The fraction that did not pass, such as the fake rate of a purity."""
        return Fraction(self.total - self.passed, self.total)

    def __add__(self, other: Fraction) -> Fraction:
        if not isinstance(other, Fraction):
            return NotImplemented
        if self.total.shape != other.total.shape:
            raise ValueError(f"Fraction: cannot add shapes {self.total.shape} and {other.total.shape}")
        return Fraction(self.passed + other.passed, self.total + other.total)

    def __radd__(self, other: int) -> Fraction:
        return self if other == 0 else NotImplemented  # the 0 that sum() starts from

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Fraction)
            and np.array_equal(self.passed, other.passed)
            and np.array_equal(self.total, other.total)
        )

    __hash__ = None  # type: ignore[assignment]  # arrays are mutable

    def __float__(self) -> float:
        return float(self.value)

    def __str__(self) -> str:
        if self.total.ndim:
            return "[" + ", ".join(str(Fraction(k, n)) for k, n in zip(self.passed, self.total, strict=True)) + "]"
        if self.total == 0:
            return "- (0/0)"
        value, low, high = float(self.value), float(self.low), float(self.high)
        return f"{value:.4f} +{high - value:.4f} -{value - low:.4f} ({self.passed}/{self.total})"


def ratio(above: ArrayLike, below: ArrayLike, none: float) -> Floats:
    """``above / below``, of one shape, and ``none`` where ``below`` is 0."""
    below = np.asarray(below)
    result: Floats = np.divide(above, below, out=np.full(below.shape, none), where=below != 0)
    return result


def sums(index: Ints, weights: Floats, number: int) -> Floats:
    """The sum of the weights of each index, shape ``(number,)``."""
    result: NDArray[Any] = np.bincount(index, weights, minlength=number)
    return result.astype(np.float64, copy=False)  # numpy counts in integers where there is nothing to weigh


def _whole(name: str, numbers: Any) -> Ints:
    array = np.asarray(numbers)
    whole = array.astype(np.int64)
    if not np.array_equal(array, whole):
        raise ValueError(f"Fraction: {name} is a count, got {numbers}")
    return whole


def edge_efficiency_purity(
    label: ArrayLike, kept: ArrayLike, true_edges: int | None = None
) -> tuple[Fraction, Fraction]:
    """Efficiency = kept true edges / all true edges, and purity = kept true edges / kept edges, of a stage.

    ``label``, shape ``(edges,)``: which candidate edges are true. ``kept``, ``(edges,)``: which the stage keeps.
    ``true_edges``: all true edges, those that are no candidates included (default: the true candidates). Raises
    ``ValueError`` when shapes differ or ``true_edges`` is less than the true edges kept.
    """
    true, keep = np.asarray(label).astype(bool), np.asarray(kept).astype(bool)
    if true.shape != keep.shape:
        raise ValueError(f"edges: label has shape {true.shape}, kept {keep.shape}")
    both = np.asarray(np.count_nonzero(true & keep))
    every = np.count_nonzero(true) if true_edges is None else true_edges
    return Fraction(both, np.asarray(every)), Fraction(both, np.asarray(np.count_nonzero(keep)))
