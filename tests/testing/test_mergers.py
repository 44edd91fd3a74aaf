"""Every contract of a static method finds the fault that it is there for."""

from __future__ import annotations

import itertools

import pytest

from symerge_dense.merging.base import Merger
from symerge_dense.merging.operands import add_task_vectors
from symerge_dense.testing import mergers
from symerge_dense.testing.contract import promise

COUNTER = itertools.count()


class Mean(Merger):
    name = "test_mean"

    def merge(self, operands):
        return add_task_vectors(operands, 1 / 3)


class NoPaper(Mean):
    pass


class NotCopied(Mean):
    def merge(self, operands):
        return operands.base


class CountsCalls(Mean):
    """What it makes depends on how often it was asked."""

    def merge(self, operands):
        return super().merge(operands) + next(COUNTER) * (operands.spec.kind == "matrix")


class Noisy(Mean):
    def merge(self, operands):
        return super().merge(operands) + 1e-3


class Remembers(Mean):
    runs = 0

    def begin(self, specs, tasks):
        self.runs += 1

    def merge(self, operands):
        return super().merge(operands) * self.runs


@pytest.mark.parametrize(
    ("check", "faulty", "told"),
    [
        (mergers.check_result_fits, NotCopied, "is the memory of an input; return a copy"),
        (mergers.check_description, NoPaper, "no https:// address"),
        (mergers.check_order_of_experts, CountsCalls, "experts in another order"),
        (mergers.check_streaming, CountsCalls, "files give other weights"),
        (mergers.check_nothing_learned, Noisy, "task vectors of zeros"),
        (mergers.check_half_precision, CountsCalls, "rounded inputs give more"),
        (mergers.check_repeated, Remembers, "forget former runs in `begin`"),
    ],
)
def test_faults_of_static_methods(check, faulty, told):
    with pytest.raises(AssertionError, match=told):
        check(faulty)


def test_every_contract_has_a_planted_fault_and_a_promise_of_its_own():
    rows = [mark.args[1] for test in (test_faults_of_static_methods,) for mark in test.pytestmark]
    assert {check for found in rows for check, _, _ in found} == set(mergers.MERGER_CHECKS)
    promises = [promise(check) for check in mergers.MERGER_CHECKS]
    assert len(set(promises)) == len(promises) and all(25 < len(text) < 120 for text in promises)
