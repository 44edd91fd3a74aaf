"""One unified task vector and masks: TALL masks, EMR and Consensus against references on the whole vector; packing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from builders.merging_vectors import NAMES, SHAPES, SIZE, build, deltas, merge, state, vector
from torch import Tensor

from symerge_dense.merging.masked import Masked
from symerge_dense.merging.packed import pack, packed_layouts, restored, run_packed, unpack
from symerge_dense.merging.run import merge_state
from symerge_dense.merging.tensor_specs import specs_from_state
from symerge_dense.registry import MERGERS

MASKED = ("tall_masks", "emr")


@pytest.mark.parametrize("shape", [(), (1,), (7,), (8,), (9,), (3, 5, 1), (2, 3, 3, 3), (0,), (64, 33)])
def test_packing_comes_back_and_is_that_of_numpy(shape: tuple[int, ...]) -> None:
    mask = torch.rand(shape) > 0.5
    packed = pack(mask)
    assert packed.tolist() == np.packbits(mask.numpy().reshape(-1)).tolist() and packed.dtype == torch.uint8
    assert torch.equal(unpack(packed, shape), mask) and unpack(packed, shape).dtype == torch.bool
    assert torch.equal(
        unpack(pack(mask.mT if mask.ndim > 1 else mask), mask.mT.shape if mask.ndim > 1 else shape),
        mask.mT if mask.ndim > 1 else mask,
    )


@pytest.mark.parametrize(
    "packed",
    [
        torch.zeros(3, dtype=torch.uint8),
        torch.zeros(1, dtype=torch.uint8),
        torch.zeros(2),
        torch.zeros(2, 1, dtype=torch.uint8),
    ],
)
def test_a_mask_of_another_tensor_is_refused(packed: Tensor) -> None:
    with pytest.raises(ValueError, match=r"shape \(3, 3\) is uint8 of 2 bytes"):
        unpack(packed, (3, 3))


def tall(taus: Tensor, thresholds: list[float]) -> Tensor:
    unified = taus.sum(0)
    return torch.stack(
        [tau.abs() > threshold * (unified - tau).abs() for tau, threshold in zip(taus, thresholds, strict=True)]
    )


def test_tall_masks_by_hand() -> None:
    # tau: a = (4, 1, -1), b = (1, 2, 1); sum (5, 3, 0). |a| > 0.5 |b|: yes, no (1 = 0.5 * 2), yes; |b| > 0.5 |a|: no.
    base, a, b = {"w": torch.ones(3)}, {"w": torch.tensor([5.0, 2.0, 0.0])}, {"w": torch.tensor([2.0, 3.0, 2.0])}
    merger = build("tall_masks", threshold=0.5)
    merged = {task: merge_state(merger, base, {"a": a, "b": b}, task=task)["w"].tolist() for task in "ab"}
    assert merged == {"a": [6.0, 1.0, 1.0], "b": [1.0, 4.0, 1.0]}


def test_tall_masks_with_a_threshold_per_task() -> None:
    taus, thresholds = deltas(3), {"a": 0.2, "b": 0.6, "c": 1.5}
    masks = tall(taus, list(thresholds.values()))
    for row, task in enumerate(NAMES[3]):
        merged = merge("tall_masks", taus, threshold=thresholds, task=task)
        torch.testing.assert_close(merged, masks[row] * taus.sum(0))
    with pytest.raises(ValueError, match=r"threshold names \['a'\], not the task 'b'"):
        merge("tall_masks", taus, threshold={"a": 0.2}, task="b")


@pytest.mark.parametrize(("agreement", "threshold"), [(0, 0.4), (1, 2.0), (2, 2.0), (2, 1.0), (3, 0.4)])
def test_consensus_is_the_vote_of_the_masks(agreement: int, threshold: float) -> None:
    taus = deltas(3)
    enough = tall(taus, [threshold] * 3).sum(0) >= agreement
    assert agreement == 0 or 0 < int(enough.sum()) < SIZE
    merged = merge("consensus", taus, agreement=agreement, threshold=threshold)
    torch.testing.assert_close(merged, 0.3 * enough * taus.sum(0))


def test_consensus_without_a_vote_is_task_arithmetic() -> None:
    taus = deltas(3)
    torch.testing.assert_close(
        merge("consensus", taus, agreement=0, scale=0.7), merge("task_arithmetic", taus, scale=0.7)
    )
    assert torch.equal(merge("consensus", taus, agreement=9), merge("consensus", taus, agreement=3))


def test_emr_by_hand() -> None:
    # tau: a = (3, -1), b = (1, 2), c = (-2, 2): signs elected +, +; largest with them 3, 2.
    experts = {"a": [3.0, -1.0], "b": [1.0, 2.0], "c": [-2.0, 2.0]}
    states = {task: {"w": torch.tensor(values)} for task, values in experts.items()}
    merged = {task: merge_state(build("emr"), {"w": torch.zeros(2)}, states, task=task)["w"].tolist() for task in "abc"}
    # a keeps (3, 0), rescaled by 4 / 3; b (3, 2) by 3 / 5; c (0, 2) by 4 / 2.
    for task, expected in {"a": [4.0, 0.0], "b": [1.8, 1.2], "c": [0.0, 4.0]}.items():
        assert merged[task] == pytest.approx(expected)


def test_emr_factors_are_ratios_of_sums_of_means_per_tensor() -> None:
    taus = deltas(3, grid=0.5)
    sign = torch.where(taus.sum(0) > 0, 1.0, -1.0)
    unified = sign * (taus * sign).clamp(min=0).amax(0)
    for tau, task in zip(taus, NAMES[3], strict=True):
        masked = state((tau * sign > 0) * unified)
        own = sum(state(tau)[name].abs().mean() for name in SHAPES)
        factor = own / sum(masked[name].abs().mean() for name in SHAPES)
        torch.testing.assert_close(merge("emr", taus, task=task), factor * vector(masked))


def test_the_factors_do_not_depend_on_the_order_of_tensors() -> None:
    for seed in range(10):
        torch.manual_seed(seed)
        shapes = [(5,), (64, 31), (3, 2, 7), (200,), (17, 9), (1,)]
        base, a, b = (
            {f"t{number}": torch.randn(shape, dtype=torch.float64) for number, shape in enumerate(shapes)}
            for _ in range(3)
        )
        turned = {name: base[name] for name in reversed(base)}
        expected = merge_state(build("emr"), base, {"a": a, "b": b}, task="a")
        found = merge_state(build("emr"), turned, {"a": a, "b": b}, task="a")
        assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_an_expert_outvoted_everywhere_is_the_base() -> None:
    states = {task: {"w": torch.full((3,), value)} for task, value in {"a": 5.0, "b": 5.0, "c": -1.0}.items()}
    merger = build("emr")
    assert merge_state(merger, {"w": torch.zeros(3)}, states, task="c")["w"].tolist() == [0.0] * 3
    assert isinstance(merger, Masked) and merger.factor("c") == 1.0


def test_emr_masks_nothing_in_where_the_expert_is_the_base() -> None:
    merger = build("emr")
    assert isinstance(merger, Masked)
    unified = merger.unify([torch.tensor([0.0, 0.0, 2.0]), torch.tensor([0.0, 1.0, 0.0])])
    assert unified.tolist() == [0.0, 1.0, 2.0]
    assert merger.choose("a", torch.tensor([0.0, 0.0, 2.0]), unified).tolist() == [False, False, True]


@pytest.mark.parametrize("name", MASKED)
def test_one_vector_and_packed_masks_restore_every_task(name: str) -> None:
    taus = deltas(3)
    base = state(torch.randn(SIZE))
    experts = {
        task: {key: base[key] + value for key, value in state(tau).items()}
        for task, tau in zip(NAMES[3], taus, strict=True)
    }
    merger, specs = build(name), specs_from_state(base)
    assert isinstance(merger, Masked)
    packed = dict(run_packed(merger, base, experts, specs))
    assert {key: (tuple(value.shape), value.dtype) for key, value in packed.items()} == {
        key: tuple(layout) for key, layout in packed_layouts(merger, specs, NAMES[3]).items()
    }
    for task in NAMES[3]:
        merged = merge_state(merger, base, experts, task=task)
        for key, value in merged.items():
            assert torch.equal(restored(base, packed, task, key), value)


def test_what_a_method_costs_beside_the_merged_weights() -> None:
    costs = {name: (build(name).extra_bits, build(name).per_task) for name in MERGERS}
    assert {name for name, cost in costs.items() if cost == (1, True)} == set(MASKED)
    assert costs["ties"] == costs["consensus"] == costs["average"] == (0, False)
    wrapped = build("lines", method="emr")
    assert (wrapped.per_task, wrapped.extra_bits) == (True, 1)
