"""What all matrix methods have in common: which weights are matrices, what the others get, and awkward shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from builders.matrix_cases import NAME, arrays, delta, random_taus
from torch import Tensor

from symerge_dense.merging.methods._matrix import MatrixMerger
from symerge_dense.merging.operands import Operands
from symerge_dense.merging.run import merge_state
from symerge_dense.merging.tensor_specs import specs_from_state
from symerge_dense.registry import MERGERS
from symerge_dense.testing.mergers import random_extras

METHODS = ["iso_c", "iso_cts", "tsv_m", "wudi", "actmat", "ace", "cart", "dc_merge", "doge_ta", "regmean", "regmean_pp"]
EXACT_ALONE = ["tsv_m", "wudi", "actmat", "cart", "regmean", "regmean_pp"]
MEAN_OF_NUMBERS = ["tsv_m", "wudi", "ace", "cart", "dc_merge"]
SHAPES = {
    "fc.weight": (5, 8),
    "conv3.weight": (4, 2, 3, 3),
    "conv1.weight": (6, 5, 1, 1),
    "last.weight": (1, 1, 1, 1),
    "norm.weight": (6,),
    "norm.bias": (6,),
    "token": (1, 1, 6),
}


def state(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


BASE = state(50)
SPECS = specs_from_state(BASE)


def experts(count: int) -> dict[str, dict[str, Tensor]]:
    return {f"task{number}": state(number) for number in range(count)}


def merge(method: str, given: Mapping[str, Mapping[str, Tensor]], **arguments: Any) -> dict[str, Tensor]:
    merger = MERGERS[method](**arguments)
    return merge_state(merger, BASE, given, SPECS, extras=random_extras(merger.needs, SPECS, given))


def grams(method: str, given: list[Tensor]) -> dict[str, list[Tensor]]:
    """The statistic of the inputs that the method needs, one tensor per expert."""
    return dict.fromkeys(MERGERS[method].needs, given)


def test_the_methods_are_those_of_the_family() -> None:
    assert [name for name in MERGERS if issubclass(MERGERS[name], MatrixMerger)] == sorted(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_no_matrix_gets_the_mean(method: str) -> None:
    given = experts(3)
    for conv in ("reshape", "mean"):
        merger = MERGERS[method](conv=conv)
        merged = merge(method, given, conv=conv)
        for spec in SPECS:
            mean = torch.stack([expert[spec.name] for expert in given.values()]).mean(0)
            expected = spec.kind not in ("matrix", "conv") or (spec.kind == "conv" and conv == "mean")
            assert (merger.treats[spec.kind] == "mean") == expected
            single = spec.numel == 1 and method in MEAN_OF_NUMBERS
            assert torch.allclose(merged[spec.name], mean, atol=1e-5) == (expected or single), spec.name


@pytest.mark.parametrize("method", METHODS)
def test_a_kernel_is_merged_as_its_matrix(method: str) -> None:
    for shape in ((6, 2, 3, 3), (6, 18, 1, 1)):
        kernels = random_taus(3, *shape)
        needs = grams(method, [torch.eye(18) * number for number in (1, 2, 3)])
        as_kernel = delta(method, kernels, needs)
        as_matrix = delta(method, [kernel.flatten(1) for kernel in kernels], needs)
        assert torch.equal(as_kernel, as_matrix.reshape(shape))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 1, 1), (1, 9), (9, 1), (2, 3, 3, 3), (1, 4, 1, 1)])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_awkward_shapes_and_more_tasks_than_directions(method: str, shape: tuple[int, ...], count: int) -> None:
    taus = random_taus(count, *shape)
    size = taus[0][0].numel()
    needs = grams(method, [torch.eye(size)] * count)
    merged = delta(method, taus, needs)
    assert merged.shape == shape and merged.isfinite().all() and merged.norm() > 0
    if method in EXACT_ALONE and count == 1:
        assert torch.equal(merged, taus[0])


@pytest.mark.parametrize("method", METHODS)
def test_an_expert_that_is_the_base_and_a_frozen_matrix(method: str) -> None:
    given = {**experts(2), "idle": BASE}
    for expert in given.values():
        expert["conv3.weight"] = BASE["conv3.weight"].clone()
    merged = merge(method, given)
    assert torch.equal(merged["conv3.weight"], BASE["conv3.weight"])
    assert all(bool(value.isfinite().all()) for value in merged.values())


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_weight_stays_empty(method: str) -> None:
    empty = {NAME: torch.zeros(0, 4)}
    extras = {what: {task: {NAME: torch.eye(4)} for task in "ab"} for what in MERGERS[method].needs}
    assert merge_state(MERGERS[method](), empty, {"a": empty, "b": empty}, extras=extras)[NAME].shape == (0, 4)


@pytest.mark.parametrize("method", METHODS)
def test_the_rows_and_columns_have_no_order(method: str) -> None:
    """Channels permuted in all experts are permuted in the result."""
    taus = random_taus(2, 7, 10, decay=0.3)
    rows, columns = torch.randperm(7, generator=torch.Generator().manual_seed(1)), torch.arange(9, -1, -1)
    gram = [torch.diag(torch.arange(1.0, 11.0)), torch.eye(10)]
    plain = delta(method, taus, grams(method, gram))
    turned = [tau[rows][:, columns] for tau in taus]
    turned = delta(method, turned, grams(method, [g[columns][:, columns] for g in gram]))
    torch.testing.assert_close(turned, plain[rows][:, columns], rtol=0, atol=1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_float32_checkpoints_give_what_float64_ones_do(method: str) -> None:
    taus = random_taus(3, 12, 20, decay=1.0)
    needs = grams(method, [torch.diag(torch.rand(20, generator=torch.Generator().manual_seed(s))) for s in range(3)])
    narrow = delta(method, [tau.float() for tau in taus], needs).double()
    torch.testing.assert_close(narrow, delta(method, [tau.float().double() for tau in taus], needs), rtol=0, atol=3e-5)


@pytest.mark.parametrize("method", METHODS)
def test_an_unknown_rule_for_convolutions_is_refused(method: str) -> None:
    with pytest.raises(ValueError, match=f"unknown conv of {method} 'reshaped'.*reshape"):
        MERGERS[method](conv="reshaped")


@pytest.mark.parametrize("method", ["iso_c", "iso_cts", "tsv_m", "wudi", "actmat", "ace", "cart", "dc_merge"])
@pytest.mark.parametrize("rank", [1, 4])
@pytest.mark.parametrize("opposed", [False, True], ids=["", "opposed"])
def test_low_rank_experts_give_no_direction_of_rounding(method: str, rank: int, opposed: bool) -> None:
    """Experts as LoRA leaves them: float32 weights, updates of low rank; opposed ones cancel but for a tenth."""
    generator = torch.Generator().manual_seed(rank)
    base = torch.randn(24, 40, generator=generator)
    low = [torch.randn(24, rank, generator=generator) @ torch.randn(rank, 40, generator=generator) for _ in range(3)]
    if opposed:
        low = [100 * low[0], -100 * low[0] + low[1], low[2]]
    taus = [(base + tau) - base for tau in low]  # with the rounding of float32 weights
    merged = arrays([delta(method, taus, base=base)])[0]
    spanned = torch.cat([*low, torch.ones(24, 1)] if method == "ace" else low, 1)  # it takes away mean rows
    columns = np.linalg.svd(arrays([spanned])[0], full_matrices=False)[0][:, : 3 * rank + (method == "ace")]
    outside = merged - columns @ (columns.T @ merged)
    assert np.linalg.norm(outside, 2) < 1e-3 * np.linalg.norm(merged, 2)


@pytest.mark.parametrize("method", ["iso_c", "iso_cts", "tsv_m", "wudi", "actmat", "cart", "dc_merge"])
@pytest.mark.parametrize(
    "dtype, share",
    [(torch.float32, 1e-2), (torch.float32, 1e-3), (torch.bfloat16, 1e-1), (torch.bfloat16, 1e-2)],
)
def test_small_updates_of_low_rank_give_no_direction_of_rounding(method: str, dtype: torch.dtype, share: float) -> None:
    """Updates that are a small share of the stored weights, whose rounding then has every direction."""
    generator = torch.Generator().manual_seed(5)
    base = torch.randn(96, 128, generator=generator).to(dtype)
    low = [torch.randn(96, 4, generator=generator) @ torch.randn(4, 128, generator=generator) / 2 for _ in range(3)]
    stored = {task: {NAME: (base + share * tau).to(dtype)} for task, tau in zip("abc", low, strict=True)}
    spec = specs_from_state({NAME: base})[0]
    merged = arrays([MERGERS[method]().delta(Operands(spec, base.float(), stored))])[0]
    columns = np.linalg.svd(arrays([torch.cat(low, 1)])[0], full_matrices=False)[0][:, :12]
    outside = merged - columns @ (columns.T @ merged)
    assert np.linalg.norm(outside, 2) < 0.2 * np.linalg.norm(merged, 2)
    assert np.linalg.matrix_rank(merged, tol=0.2 * np.linalg.norm(merged, 2)) >= 4
