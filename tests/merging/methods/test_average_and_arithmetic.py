"""The contract of every registered static merger, formulas by hand, and the run around them."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import pytest
import torch

import symerge_dense.merging
from symerge_dense.merging.base import Merger
from symerge_dense.merging.methods.average import Average
from symerge_dense.merging.methods.task_arithmetic import TaskArithmetic
from symerge_dense.merging.run import merge_state
from symerge_dense.registry import MERGERS
from symerge_dense.testing.contract import Check
from symerge_dense.testing.mergers import BASE, EXPERTS, MERGER_CHECKS, SPECS, example_state, merge, same

for _module in pkgutil.iter_modules(symerge_dense.merging.__path__):
    importlib.import_module(f"symerge_dense.merging.{_module.name}")
NAMES = list(MERGERS)
# Arguments under which one expert comes back bit for bit, for the methods whose formula says so.
RECOVERS_ONE = {
    "average": {},
    "task_arithmetic": {"scale": 1.0},
    "ties": {"density": 1.0},
    "dare": {"drop": 0.0, "scale": 1.0},
    "dare_ties": {"drop": 0.0, "density": 1.0, "scale": 1.0},
    "breadcrumbs": {"density": 1.0, "gamma": 0.0, "scale": 1.0},
    "magmax": {"scale": 1.0},
    "consensus": {"scale": 1.0},
    "tall_masks": {},
    "emr": {},
    "model_stock": {},
    "lines": {"alpha": 1.0, "beta": 0.0},
    "tsv_m": {},
    "wudi": {},
    "actmat": {},
    "cart": {},
    "fisher": {},
    "regmean": {},
    "regmean_pp": {},
}


def build(name: str, **arguments: Any) -> Merger:
    merger: Merger = MERGERS.build({"type": name, **arguments})
    return merger


def test_the_registry_knows_the_first_two() -> None:
    assert {"average", "task_arithmetic"} <= set(NAMES)


@pytest.mark.parametrize("check", MERGER_CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("name", NAMES)
def test_contract(name: str, check: Check) -> None:
    check(lambda: build(name))


@pytest.mark.parametrize("name", RECOVERS_ONE)
@pytest.mark.parametrize("spread", [1e-8, 1.0, 1e4])
def test_one_expert_comes_back_bit_for_bit(name: str, spread: float) -> None:
    expert = example_state(3, spread)
    merged = merge(build(name, **RECOVERS_ONE[name]), BASE, {"a": expert})
    expert["bn.num_batches_tracked"] = BASE["bn.num_batches_tracked"]
    assert same(merged, expert)


def test_average_and_task_arithmetic_by_hand() -> None:
    base = {"w": torch.tensor([[1.0, 2.0]])}
    experts = {"a": {"w": torch.tensor([[2.0, 2.0]])}, "b": {"w": torch.tensor([[4.0, 0.0]])}}
    assert merge_state(Average(), base, experts)["w"].tolist() == [[3.0, 1.0]]
    assert merge_state(TaskArithmetic(scale=0.5), base, experts)["w"].tolist() == [[3.0, 1.0]]
    assert merge_state(TaskArithmetic(scale=2), base, experts)["w"].tolist() == [[9.0, -2.0]]
    torch.testing.assert_close(merge_state(TaskArithmetic(), base, experts)["w"], torch.tensor([[2.2, 1.4]]))


def test_average_is_the_mean_of_the_experts() -> None:
    merged = merge(Average(), BASE, EXPERTS)
    for spec in SPECS:
        if spec.kind != "counter":
            mean = torch.stack([state[spec.name] for state in EXPERTS.values()]).mean(0)
            torch.testing.assert_close(merged[spec.name], mean)
