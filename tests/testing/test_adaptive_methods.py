"""Every contract of an adaptive method finds the fault that it is there for."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch

from symerge_dense.adaptation.methods.symerge import SyMerge
from symerge_dense.adaptation.options import make_options
from symerge_dense.adaptation.symerge_model import SyMergeModel
from symerge_dense.testing import adaptive_methods
from symerge_dense.testing.contract import promise

COUNTER = itertools.count()


class NoTitle(SyMerge):
    """Its docstring."""

    title = ""


class OwnRounds(SyMerge):
    def options(self, context):
        return dataclasses.replace(super().options(context), rounds=3)


class OwnLabels(SyMerge):
    def student(self, context):
        options = make_options(**{name: getattr(context.options, name) for name in adaptive_methods.KEPT})
        return SyMergeModel(context.base, context.experts, options)


class Peeks(SyMerge):
    def run(self, context):
        context.pool._source[0]
        return super().run(context)


class Undecided(SyMerge):
    def run(self, context):
        adapted = super().run(context)
        with torch.no_grad():
            next(adapted.model.parameters()).add_(next(COUNTER))
        return adapted


class Training(SyMerge):
    def run(self, context):
        adapted = super().run(context)
        adapted.model.train()
        return adapted


@pytest.mark.parametrize(
    ("check", "faulty", "told"),
    [
        (adaptive_methods.check_description, NoTitle, "title is ''"),
        (adaptive_methods.check_options, OwnRounds, "rounds is 3 instead of 6"),
        (adaptive_methods.check_options, OwnLabels, "granularity is '.+' instead of 'block'"),
        (adaptive_methods.check_result, Training, "in training mode"),
        (adaptive_methods.check_repeatable, Peeks, "it reads targets"),
        (adaptive_methods.check_repeatable, Undecided, "the same seed gives another network"),
    ],
)
def test_faults_of_adaptive_methods(check, faulty, told):
    with pytest.raises(AssertionError, match=told):
        check(adaptive_methods.TinyRuns(faulty))


def test_a_varied_option_has_another_value_than_the_config():
    given = adaptive_methods.shared_context().options
    assert [name for name, value in adaptive_methods.VARIED.items() if getattr(given, name) == value] == []


def test_every_contract_has_a_planted_fault_and_a_promise_of_its_own():
    rows = [mark.args[1] for test in (test_faults_of_adaptive_methods,) for mark in test.pytestmark]
    assert {check for found in rows for check, _, _ in found} == set(adaptive_methods.ADAPTIVE_CHECKS)
    promises = [promise(check) for check in adaptive_methods.ADAPTIVE_CHECKS]
    assert len(set(promises)) == len(promises) and all(25 < len(text) < 120 for text in promises)
