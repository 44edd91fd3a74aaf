"""Intervals over seeds, and what they say of a claim.

A rule never looks at a mean alone: a difference counts where its 95 % interval lies on one side of a threshold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Literal

from symerge_dense.fileio import optional_import

Outcome = Literal["confirmed", "refuted", "inconclusive"]
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean and the interval that holds it with 95 % confidence.

    Args:
        mean: of the values; NaN where one is undefined.
        low: lower end; minus infinity where a single value says nothing of the spread.
        high: upper end.
        count: number of values.
    """

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        if not math.isfinite(self.mean):
            return "undefined"
        if not math.isfinite(self.high - self.low):
            return f"{self.mean:+.2f} (one seed)"
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


UNMEASURED = Interval(math.nan, -math.inf, math.inf, 0)
"""Of what no run has measured."""


def t_interval(values: Iterable[float]) -> Interval:
    """Mean and 95 % interval of Student's t distribution.

    Args:
        values: one per seed.

    Raises:
        ValueError: there is none.

    >>> str(t_interval([1.0, 2.0, 3.0]))
    '+2.00 [-0.48, +4.48]'
    """
    numbers = list(values)
    if not numbers:
        raise ValueError("an interval of no value is undefined; run at least one seed.")
    mean = fmean(numbers)
    if not math.isfinite(mean):
        return Interval(math.nan, -math.inf, math.inf, len(numbers))
    if len(numbers) == 1:
        return Interval(mean, -math.inf, math.inf, 1)
    half = float(_stats().t.ppf((1 + LEVEL) / 2, len(numbers) - 1)) * stdev(numbers) / math.sqrt(len(numbers))
    return Interval(mean, mean - half, mean + half, len(numbers))


def exceeds(interval: Interval, threshold: float = 0.0) -> Outcome:
    """Whether a quantity lies above a threshold.

    Args:
        interval: of the quantity.
        threshold: that it is compared with.

    Returns:
        'confirmed' if the whole interval lies above it, 'refuted' if it lies below, else 'inconclusive'.
    """
    if interval.low > threshold:
        return "confirmed"
    return "refuted" if interval.high < threshold else "inconclusive"


def stays_below(interval: Interval, threshold: float = 0.0) -> Outcome:
    """Whether a quantity lies below a threshold: the opposite of ``exceeds``.

    Args:
        interval: of the quantity.
        threshold: that it is compared with.
    """
    return exceeds(Interval(-interval.mean, -interval.high, -interval.low, interval.count), -threshold)


def every(outcomes: Iterable[Outcome]) -> Outcome:
    """Outcome of a claim that has several parts.

    Args:
        outcomes: of the parts.

    Returns:
        'refuted' if one part is, 'confirmed' if all are, else 'inconclusive'.
    """
    found = list(outcomes)
    if "refuted" in found:
        return "refuted"
    return "confirmed" if found and all(one == "confirmed" for one in found) else "inconclusive"


# -- correlations -----------------------------------------------------------------------------------------------------
def pearson(first: Sequence[float], second: Sequence[float]) -> float:
    """Pearson's correlation; NaN where one side is constant.

    Args:
        first: values.
        second: as many values.
    """
    return _correlation("pearsonr", first, second)


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation; equal values share the mean of their ranks.

    Args:
        first: values.
        second: as many values.
    """
    return _correlation("spearmanr", first, second)


def _correlation(name: str, first: Sequence[float], second: Sequence[float]) -> float:
    if len(set(first)) < 2 or len(set(second)) < 2:
        return math.nan
    return float(getattr(_stats(), name)(first, second).statistic)


def _stats() -> Any:
    return optional_import("scipy.stats", "the intervals of a study")
