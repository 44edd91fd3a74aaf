"""RegMean: the least squares it stands for, on inputs of layers and convolutions, and what it asks of the extras."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from builders.matrix_cases import NAME, arrays, delta, random_taus
from torch import Tensor

from symerge_dense.merging.methods.regmean import RegMean
from symerge_dense.merging.run import merge_state


def inputs(count: int, samples: int, size: int) -> list[Tensor]:
    """Inputs (samples, size) of a layer, one batch per expert, each with its own scale of features."""
    generator = torch.Generator().manual_seed(7)
    return [
        torch.randn(samples, size, generator=generator).double() * torch.rand(size, generator=generator)
        for _ in range(count)
    ]


def grams(batches: list[Tensor]) -> list[Tensor]:
    return [batch.T @ batch / len(batch) for batch in batches]


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (1, 5), (3, 1), (1, 1)])
@pytest.mark.parametrize("count", [2, 3])
def test_it_is_the_least_squares_fit_to_the_experts_outputs(shape: tuple[int, int], count: int) -> None:
    taus, batches = random_taus(count, *shape), inputs(count, 50, shape[1])
    merged = delta("regmean", taus, {"gram": grams(batches)}, rho=1.0, ridge=1e-12)
    outputs = [(batch @ tau.T).numpy() for batch, tau in zip(batches, taus, strict=True)]
    fit = np.linalg.lstsq(torch.cat(batches).numpy(), np.concatenate(outputs), rcond=None)[0]
    np.testing.assert_allclose(merged.numpy(), fit.T, atol=1e-7)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.95])
def test_the_formula(rho: float) -> None:
    taus, given = random_taus(3, 5, 8), grams(inputs(3, 40, 8))
    scaled = [gram.numpy() * np.where(np.eye(8), 1.0, rho) for gram in given]
    base = random_taus(1, 5, 8, seed=5)[0]
    experts = [base.numpy() + tau for tau in arrays(taus)]
    wanted = sum(w @ g for w, g in zip(experts, scaled, strict=True)) @ np.linalg.inv(sum(scaled))
    merged = base + delta("regmean", taus, {"gram": given}, base, rho=rho, ridge=1e-12)
    np.testing.assert_allclose(merged.numpy(), wanted, atol=1e-8)


def test_a_convolution_is_fitted_on_its_unfolded_inputs() -> None:
    taus = random_taus(2, 4, 3, 3, 3)
    images = [torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(seed)).double() for seed in range(2)]
    patches = [torch.nn.functional.unfold(image, 3).transpose(1, 2).reshape(-1, 27) for image in images]
    merged = delta("regmean", taus, {"gram": grams(patches)}, rho=1.0, ridge=1e-12).requires_grad_()
    conv, pairs = torch.nn.functional.conv2d, zip(images, taus, strict=True)
    error = sum((conv(image, merged) - conv(image, tau)).square().mean() for image, tau in pairs)
    (slope,) = torch.autograd.grad(torch.as_tensor(error), merged)
    assert slope.abs().max() < 1e-9  # no kernel is nearer to both experts' outputs


def test_directions_follow_the_expert_that_sees_them() -> None:
    taus = [torch.full((2, 4), 1.0), torch.full((2, 4), 3.0)]
    given = [torch.diag(torch.tensor([1.0, 0.0, 0.0, 3.0])), torch.diag(torch.tensor([0.0, 1.0, 0.0, 1.0]))]
    merged = delta("regmean", taus, {"gram": given})
    torch.testing.assert_close(merged, torch.tensor([[1.0, 3.0, 2.0, 1.5]] * 2), rtol=1e-5, atol=0)


@pytest.mark.parametrize("shape", [(3, 5), (3, 2, 3, 3), (3, 6, 1, 1)])
def test_where_nothing_tells_the_experts_apart_it_is_the_mean(shape: tuple[int, ...]) -> None:
    taus = random_taus(3, *shape)
    size, mean = taus[0][0].numel(), torch.stack(taus).mean(0)
    torch.testing.assert_close(delta("regmean", taus, {"gram": [torch.eye(size)] * 3}), mean)
    torch.testing.assert_close(delta("regmean", taus, {"gram": [torch.zeros(size, size)] * 3}), mean)


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
def test_fewer_samples_than_inputs_are_no_trouble_at_any_scale(size: float) -> None:
    taus, batches = random_taus(3, 4, 30), inputs(3, 5, 30)
    merged = delta("regmean", taus, {"gram": [gram * size for gram in grams(batches)]}, rho=1.0)
    assert merged.isfinite().all() and merged.norm() < 3 * torch.stack(taus).norm()
    for batch, tau in zip(batches, taus, strict=True):  # 15 samples, 30 inputs: all outputs can be met
        torch.testing.assert_close(batch @ merged.T, batch @ tau.T, rtol=0, atol=1e-2)


def test_rounding_of_a_gram_matrix_is_no_fault() -> None:
    """One sample seen by two experts, and an eigenvalue that float32 left below zero: the mean stands in for it."""
    gram = torch.diag(torch.tensor([1.0, 0.0, -5e-8]))
    taus = random_taus(2, 2, 3)
    merged = delta("regmean", taus, {"gram": [gram, gram]}, rho=1.0, ridge=1e-12)
    torch.testing.assert_close(merged, (taus[0] + taus[1]) / 2, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="not positive semidefinite; collect them again, or use a larger ridge"):
        delta("regmean", taus, {"gram": [gram * torch.tensor([1.0, 1.0, 1e3])] * 2}, rho=1.0, ridge=1e-12)


def test_weights_without_gram_are_averaged() -> None:
    tau = {"a.weight": random_taus(1, 3, 4)[0], "b.weight": random_taus(1, 3, 4)[0], "c": random_taus(1, 1, 1, 4)[0]}
    base = {name: torch.zeros_like(value) for name, value in tau.items()}
    gram = {
        "gram": {"x": {"a.weight": torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0]))}, "y": {"a.weight": torch.eye(4)}}
    }
    merged = merge_state(RegMean(ridge=1e-12), base, {"x": tau, "y": base}, extras=gram)
    torch.testing.assert_close(merged["b.weight"], tau["b.weight"] / 2)
    torch.testing.assert_close(merged["c"], tau["c"] / 2)
    torch.testing.assert_close(merged["a.weight"], tau["a.weight"] * torch.tensor([1 / 2, 2 / 3, 3 / 4, 4 / 5]))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, rf"gram of task01 lacks '{NAME}', which other experts have"),
        ({NAME: torch.eye(3)}, r"gram of task01 for .* has the shape \(3, 3\), not \(2, 2\)"),
        ({NAME: -2 * torch.eye(2)}, "not positive semidefinite"),
    ],
)
def test_grams_must_fit(given: dict[str, Tensor], message: str) -> None:
    experts = {f"task0{number}": {NAME: torch.ones(3, 2)} for number in range(2)}
    extras = {"gram": {"task00": {NAME: torch.eye(2)}, "task01": given}}
    with pytest.raises(ValueError, match=message):
        merge_state(RegMean(), {NAME: torch.zeros(3, 2)}, experts, extras=extras)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rho": 1.1}, r"regmean: rho is 1\.1; it must lie in \[0, 1\]"),
        ({"ridge": 0.0}, "regmean: ridge is 0.0"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RegMean(**arguments)
