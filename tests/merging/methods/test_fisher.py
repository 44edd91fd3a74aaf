"""Fisher merging by hand, its floor and normalisation, and what it asks of the extras."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from builders.matrix_cases import NAME, delta, random_taus
from torch import Tensor

from symerge_dense.merging.methods.fisher import Fisher
from symerge_dense.merging.run import merge_state
from symerge_dense.merging.tensor_specs import specs_from_state
from symerge_dense.testing.mergers import random_extras


def test_by_hand() -> None:
    taus = [torch.tensor([[2.0, 4.0, 1.0]]), torch.tensor([[6.0, -4.0, 5.0]])]
    information = [torch.tensor([[1.0, 3.0, 0.0]]), torch.tensor([[3.0, 1.0, 2.0]])]
    merged = delta("fisher", taus, {"fisher": information}, normalise=False)
    torch.testing.assert_close(merged, torch.tensor([[5.0, 2.0, 5.0]]), rtol=1e-5, atol=0)
    weighted = delta("fisher", taus, {"fisher": information}, normalise=False, weight={"task00": 3.0, "task01": 1.0})
    torch.testing.assert_close(weighted[0, :2], torch.tensor([4.0, 3.2]))


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (4, 2, 3, 3), (7,)])
@pytest.mark.parametrize("normalise", [False, True])
def test_the_formula(shape: tuple[int, ...], normalise: bool) -> None:
    taus = random_taus(3, *shape)
    information = [torch.rand(shape, generator=torch.Generator().manual_seed(seed)).double() for seed in range(3)]
    shares = [value / value.norm() if normalise else value for value in information]
    experts = [tau + 2.5 for tau in taus]
    wanted = sum(share * expert for share, expert in zip(shares, experts, strict=True)) / sum(shares)
    base = torch.full(shape, 2.5).double()
    merged = base + delta("fisher", taus, {"fisher": information}, base, normalise=normalise, floor=1e-12)
    torch.testing.assert_close(merged, wanted)


def state(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in SHAPES.items()}


SHAPES: Mapping[str, tuple[int, ...]] = {"a.weight": (3, 4), "a.bias": (3,), "b.weight": (2, 3, 3, 3), "c": (1, 1, 6)}
BASE, EXPERTS = state(9), {task: state(number) for number, task in enumerate("abc")}
FISHER = random_extras({"fisher"}, specs_from_state(BASE), EXPERTS)


def test_normalised_the_loudness_of_an_expert_counts_over_the_whole_model() -> None:
    louder = {
        task: {name: value * (1e4 if task == "b" else 1.0) for name, value in tensors.items()}
        for task, tensors in FISHER["fisher"].items()
    }
    for normalise in (False, True):
        quiet = merge_state(Fisher(1e-30, normalise), BASE, EXPERTS, extras=FISHER)
        loud = merge_state(Fisher(1e-30, normalise), BASE, EXPERTS, extras={"fisher": louder})
        assert all(torch.allclose(quiet[name], loud[name], atol=1e-6) for name in BASE) == normalise
    norms = {
        task: torch.cat([value.flatten() for value in tensors.values()]).double().norm()
        for task, tensors in FISHER["fisher"].items()
    }
    shares = {task: FISHER["fisher"][task]["c"] / norms[task] for task in norms}
    wanted = sum(shares[task] * EXPERTS[task]["c"] for task in norms) / sum(shares.values())
    merged = merge_state(Fisher(1e-30, normalise=True), BASE, EXPERTS, extras=FISHER)
    torch.testing.assert_close(merged["c"], wanted)


def test_equal_information_and_information_below_the_floor_give_the_mean() -> None:
    taus = random_taus(3, 4, 6)
    mean = torch.stack(taus).mean(0)
    torch.testing.assert_close(delta("fisher", taus, {"fisher": [torch.full((4, 6), 0.3)] * 3}), mean)
    tiny = [torch.rand(4, 6, generator=torch.Generator().manual_seed(seed)) * 1e-7 for seed in range(3)]
    torch.testing.assert_close(delta("fisher", taus, {"fisher": tiny}), mean)
    torch.testing.assert_close(delta("fisher", taus, {"fisher": [torch.zeros(4, 6)] * 3}, normalise=True), mean)
    assert not torch.allclose(delta("fisher", taus, {"fisher": tiny}, floor=1e-12), mean, atol=1e-2)


def test_very_small_information_still_weighs() -> None:
    taus = [torch.tensor([[1.0]]), torch.tensor([[5.0]])]
    small = [torch.tensor([[3e-30]]), torch.tensor([[1e-30]])]
    for normalise in (False, True):
        merged = delta("fisher", taus, {"fisher": small}, floor=1e-40, normalise=normalise)
        assert merged.item() == pytest.approx(3.0 if normalise else 2.0)


def test_only_normalising_takes_a_statistics_pass() -> None:
    assert Fisher().passes == 1 and Fisher(normalise=False).passes == 0
    assert Fisher().needs == {"fisher"} and set(Fisher().treats.values()) == {"method"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, rf"fisher of task01 lacks '{NAME}'; collect"),
        ({NAME: torch.ones(2, 3)}, r"fisher of task01 for .* has the shape \(2, 3\), not \(3, 2\)"),
        ({NAME: torch.tensor([[1.0, 1.0], [1.0, -1.0], [0.0, 1.0]])}, "fisher of task01 .* negative"),
        ({NAME: torch.full((3, 2), float("inf"))}, "fisher of task01: tensor .* NaN or infinite"),
    ],
)
def test_information_must_fit(given: dict[str, Tensor], message: str) -> None:
    base = {NAME: torch.zeros(3, 2)}
    experts = {f"task0{number}": {NAME: torch.ones(3, 2)} for number in range(2)}
    with pytest.raises(ValueError, match=message):
        merge_state(Fisher(), base, experts, extras={"fisher": {"task00": {NAME: torch.ones(3, 2)}, "task01": given}})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"floor": 0.0}, r"fisher: floor is 0\.0; it must lie in \(0, inf\)"),
        ({"weight": -1.0}, "fisher: weight is -1.0"),
        ({"weight": {"depth": 0.0}}, "fisher: weight of depth is 0.0"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Fisher(**arguments)


def test_a_task_without_weight_is_named() -> None:
    with pytest.raises(ValueError, match="not the task 'c'"):
        merge_state(Fisher(weight={"a": 1.0, "b": 2.0}), BASE, EXPERTS, extras=FISHER)
