"""Intervals over seeds, and what they say of a claim.

A rule never looks at a mean alone: a difference counts where its 95 % interval lies on one side of a threshold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev
from typing import Literal

import numpy as np

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


UNDEFINED = Interval(math.nan, -math.inf, math.inf, 0)
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
    half = t_quantile(len(numbers) - 1) * stdev(numbers) / math.sqrt(len(numbers))
    return Interval(mean, mean - half, mean + half, len(numbers))


@cache
def t_quantile(freedom: int, level: float = LEVEL) -> float:
    """The value that Student's t exceeds in magnitude with probability ``1 - level``.

    With t = sqrt(n) tan(a), its density is proportional to cos(a)^(n-1): a smooth integral over a bounded interval.

    Args:
        freedom: degrees of freedom n, at least 1.
        level: in (0, 1).
    """
    angle = np.linspace(0, math.pi / 2, 200_001)
    density = np.cos(angle) ** (freedom - 1)
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return float(math.sqrt(freedom) * math.tan(np.interp(level, mass / mass[-1], angle)))


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
    x, y = np.asarray(first, float), np.asarray(second, float)
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale > 0 else math.nan


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation; equal values share the mean of their ranks.

    Args:
        first: values.
        second: as many values.
    """
    return pearson(_ranks(first), _ranks(second))


def _ranks(values: Sequence[float]) -> list[float]:
    array = np.asarray(values, float)
    return [float((array < value).sum() + ((array == value).sum() - 1) / 2) for value in array]
