"""Intervals against SciPy, and what they say of a threshold."""

import math

import numpy as np
import pytest
from scipy import stats

from symerge_dense.studies.frame.intervals import (
    UNDEFINED,
    Interval,
    every,
    exceeds,
    pearson,
    spearman,
    t_interval,
    t_quantile,
)


@pytest.mark.parametrize("freedom", [1, 2, 4, 30])
def test_quantiles_of_t_are_scipy_s(freedom):
    assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-5)


def test_an_interval_is_scipy_s():
    values = np.random.default_rng(0).normal(3, 2, 5)
    found = t_interval(values)
    low, high = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-5) and found.count == 5


def test_one_value_says_nothing_of_the_spread_and_an_undefined_one_nothing_at_all():
    one = t_interval([2.0])
    assert (one.mean, one.low, one.high) == (2.0, -math.inf, math.inf) and str(one) == "+2.00 (one seed)"
    assert str(t_interval([1.0, math.nan])) == "undefined" == str(UNDEFINED)
    with pytest.raises(ValueError, match="run at least one seed"):
        t_interval([])


@pytest.mark.parametrize(
    "low, high, outcome", [(0.6, 2, "confirmed"), (-2, 0.4, "refuted"), (0.4, 0.6, "inconclusive")]
)
def test_a_threshold_is_exceeded_by_the_whole_interval_or_not(low, high, outcome):
    assert exceeds(Interval((low + high) / 2, low, high, 3), 0.5) == outcome
    assert exceeds(UNDEFINED) == "inconclusive"


def test_a_claim_of_parts_needs_all_of_them():
    assert every(["confirmed", "confirmed"]) == "confirmed"
    assert every(["confirmed", "refuted", "inconclusive"]) == "refuted"
    assert every(["confirmed", "inconclusive"]) == "inconclusive" == every([])


def test_correlations_are_scipy_s_with_ties_too():
    rng = np.random.default_rng(1)
    x = rng.integers(0, 6, 40).astype(float)
    y = x + rng.normal(0, 2, 40).round()
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert math.isnan(pearson([1, 1, 1], [1, 2, 3]))
