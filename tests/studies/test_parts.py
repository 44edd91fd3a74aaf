"""The rule of claim 3 flips with the planted numbers."""

import pytest
from builders.studies import deltas

from symerge_dense.registry import STUDIES
from symerge_dense.studies.parts import COEFFICIENTS, CONTROL, JOINT, LAYER, NOTHING

AS_CLAIMED = {JOINT: -2.0, COEFFICIENTS: -6.0, LAYER: -9.0, CONTROL: -20.0, NOTHING: -15.0}


def judged(means, **how):
    return STUDIES["parts"]().verdict(deltas(means, **how))


def test_the_order_of_the_paper_confirms():
    verdict = judged(AS_CLAIMED)
    assert verdict.outcome == "confirmed" and len(verdict.findings) == 5
    assert verdict.findings[f"{JOINT} - {LAYER}"].mean == pytest.approx(7.0, abs=0.2)


@pytest.mark.parametrize("changed", [{COEFFICIENTS: 1.0}, {LAYER: 1.0}, {NOTHING: -3.0}, {CONTROL: 0.0}])
def test_one_part_that_beats_the_joint_or_loses_to_nothing_refutes(changed):
    assert judged(AS_CLAIMED | changed).outcome == "refuted"


@pytest.mark.parametrize("how", [{"spread": 8.0}, {"seeds": 1}])
def test_noise_or_a_single_seed_decides_nothing(how):
    assert judged(AS_CLAIMED, **how).outcome == "inconclusive"


def test_a_margin_asks_for_more():
    assert STUDIES["parts"](margin=5.0).verdict(deltas(AS_CLAIMED)).outcome == "refuted"
