"""A long-tailed set: shares by Zipf's law, targets that stay with their images, and errors with a remedy."""

import math

import numpy as np
import pytest
from builders.tiny import TinySet

from symerge_dense.datasets.long_tailed import LongTailed
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.registry import DATASETS

TASKS = {"depth": {"type": "depth"}}


@pytest.fixture(autouse=True)
def tiny_set_by_name(monkeypatch):
    DATASETS.import_from_location()
    monkeypatch.setitem(DATASETS._module_dict, "TinySet", TinySet)


def tailed(exponent, count=8, **more):
    return LongTailed({"type": "TinySet", "count": count}, exponent, **more)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_copies_follow_zipf_s_law(exponent):
    found = np.bincount(tailed(exponent, 300).numbers, minlength=300)
    shares = np.arange(1, 301.0) ** -exponent
    assert found.sum() == 300 and np.abs(found - 300 * shares / shares.sum()).max() < 1


def test_exponent_0_is_the_set_itself():
    assert tailed(0).numbers.tolist() == list(range(8))


def test_images_and_targets_are_those_of_the_same_frame():
    found, clean = tailed(1.0, tasks=TASKS), TinySet(TASKS, count=8)
    assert len(found) == 8 and found.numbers.tolist() == [0, 0, 0, 1, 2, 3, 4, 6]
    for index, number in enumerate(found.numbers):
        assert np.array_equal(found[index]["image"], clean[number]["image"])
        assert np.array_equal(found[index]["depth"], clean[number]["depth"])
        assert found.image_name(index) == clean.image_name(number)
    assert Unlabelled(tailed(1.0)).fingerprint != Unlabelled(tailed(0)).fingerprint


@pytest.mark.parametrize("exponent", [-1, math.inf, "1", None])
def test_an_exponent_that_is_no_share_is_refused(exponent):
    with pytest.raises(ValueError, match=r"exponent=.*at least 0; 0 takes every image once"):
        tailed(exponent)
