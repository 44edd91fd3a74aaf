"""Every contract of a head finds the fault that it is there for."""

from __future__ import annotations

import itertools

import pytest
from torch import nn

from symerge_dense.models.heads.base import Head
from symerge_dense.models.heads.native import Linear
from symerge_dense.registry import HEADS
from symerge_dense.testing import heads
from symerge_dense.testing.contract import promise

COUNTER = itertools.count()


class Strided(Linear):
    """Half the resolution of every feature."""

    def forward(self, features):
        return super().forward(features)[..., :1, ::2]


class Consuming(Linear):
    def forward(self, features):
        return super().forward([features.pop()])


class UnusedFinal(Linear):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.other = nn.Conv2d(4, self.channels, 1)
        self.layers = {"final": ("other",)}


class ForgottenOption(Head):
    """An argument that its spec does not repeat."""

    def __init__(self, in_channels, strides, channels, gain=None):
        super().__init__(in_channels, strides, channels)
        self.gain = gain or 1 + next(COUNTER)
        self.predict = nn.Conv2d(in_channels[-1], channels, 1)
        self.layers = {"final": ("predict",), "pre_final": ()}

    def forward(self, features):
        return self.gain * self.predict(features[-1])


class BatchMean(Linear):
    def forward(self, features):
        return super().forward([*features[:-1], features[-1] - features[-1].mean(0, keepdim=True)])


@pytest.mark.parametrize(
    ("check", "faulty", "told"),
    [
        (heads.check_output, Strided, "with h, w of a feature"),
        (heads.check_features_are_left_alone, Consuming, "forward changes the features"),
        (heads.check_layers, UnusedFinal, "the output does not depend on"),
        (heads.check_spec, ForgottenOption, "must repeat every argument"),
        (heads.check_images_are_independent, BatchMean, "images of one batch mix"),
    ],
)
def test_faults_of_heads(check, faulty, told, monkeypatch):
    monkeypatch.setitem(HEADS._module_dict, faulty.__name__, faulty)  # a spec names a registered class
    with pytest.raises(AssertionError, match=told):
        check(heads.head_builder({"type": faulty.__name__}))


def test_every_contract_has_a_planted_fault_and_a_promise_of_its_own():
    rows = [mark.args[1] for test in (test_faults_of_heads,) for mark in test.pytestmark]
    assert {check for found in rows for check, _, _ in found} == set(heads.HEAD_CHECKS)
    promises = [promise(check) for check in heads.HEAD_CHECKS]
    assert len(set(promises)) == len(promises) and all(25 < len(text) < 120 for text in promises)
