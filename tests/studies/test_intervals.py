"""Intervals against tables, and what they say of a threshold."""

import math

import numpy as np
import pytest

from symerge_dense.studies.frame.intervals import (
    UNMEASURED,
    Interval,
    every,
    exceeds,
    pearson,
    spearman,
    stays_below,
    t_interval,
)


@pytest.mark.parametrize(
    "values, quantile", [([1.0, 3.0], 12.706), ([1.0, 2.0, 6.0], 4.303), ([0.0, 1, 2, 3, 4], 2.776)]
)
def test_an_interval_is_that_of_the_tables_of_student_s_t(values, quantile):
    found, half = t_interval(values), quantile * np.std(values, ddof=1) / len(values) ** 0.5
    assert found.mean == pytest.approx(np.mean(values)) and found.count == len(values)
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half), abs=2e-3)


def test_one_value_says_nothing_of_the_spread_and_an_undefined_one_nothing_at_all():
    one = t_interval([2.0])
    assert (one.mean, one.low, one.high) == (2.0, -math.inf, math.inf) and str(one) == "+2.00 (one seed)"
    assert str(t_interval([1.0, math.nan])) == "undefined" == str(UNMEASURED)
    with pytest.raises(ValueError, match="run at least one seed"):
        t_interval([])


@pytest.mark.parametrize(
    "low, high, outcome", [(0.6, 2, "confirmed"), (-2, 0.4, "refuted"), (0.4, 0.6, "inconclusive")]
)
def test_a_threshold_is_exceeded_by_the_whole_interval_or_not(low, high, outcome):
    assert exceeds(Interval((low + high) / 2, low, high, 3), 0.5) == outcome
    opposite = {"confirmed": "refuted", "refuted": "confirmed", "inconclusive": "inconclusive"}
    assert stays_below(Interval((low + high) / 2, low, high, 3), 0.5) == opposite[outcome]
    assert exceeds(UNMEASURED) == "inconclusive" == stays_below(UNMEASURED)


def test_a_claim_of_parts_needs_all_of_them():
    assert every(["confirmed", "confirmed"]) == "confirmed"
    assert every(["confirmed", "refuted", "inconclusive"]) == "refuted"
    assert every(["confirmed", "inconclusive"]) == "inconclusive" == every([])


def test_correlations_by_hand_with_ties_too():
    assert pearson([1, 2, 3], [1, 2, 6]) == pytest.approx(5 / (2 * 14) ** 0.5)
    assert spearman([1, 2, 3, 4], [10, 100, 100, 1000]) == pytest.approx(4.5 / (5 * 4.5) ** 0.5)
    assert math.isnan(pearson([1, 1, 1], [1, 2, 3])) and math.isnan(spearman([1, 2, 3], [2, 2, 2]))
