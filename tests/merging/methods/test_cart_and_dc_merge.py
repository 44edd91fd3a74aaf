"""CART and DC-Merge against their formulas in numpy, and on matrices by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from builders.matrix_cases import Array, arrays, delta, random_taus

SHAPES = [(6, 6), (7, 12), (12, 7), (4, 3, 3, 3), (9, 5, 1, 1)]


def top(matrix: Array, count: int) -> tuple[Array, Array, Array]:
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    return left[:, :count], values[:count], right[:count]


def orthogonal(matrix: Array) -> Array:
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    return left @ right


def cart(taus: Sequence[Array], scale: float, share: float) -> Array:
    mean, count = sum(taus) / len(taus), max(1, int(share * min(taus[0].shape)))
    parts = [top(tau - mean, count) for tau in taus]
    return mean + scale * sum(left @ np.diag(values) @ right for left, values, right in parts)


def dc_merge(taus: Sequence[Array], smoothing: str, scale: float) -> Array:
    each = min(taus[0].shape) // len(taus)
    parts = [top(tau, each) for tau in taus]
    shared = orthogonal(np.concatenate([part[0] for part in parts], 1))
    rows = orthogonal(np.concatenate([part[2] for part in parts]))
    mask = np.kron(np.eye(len(taus)), np.ones((each, each)))
    core = np.zeros_like(mask)
    for left, values, right in parts:
        strengths = np.full_like(values, values.mean()) if smoothing == "mean" else values
        core += shared.T @ left @ np.diag(strengths) @ right @ rows.T
    return scale * shared @ (core * mask) @ rows


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_formulas(shape: tuple[int, ...], count: int) -> None:
    taus = random_taus(count, *shape)
    for share in (0.12, 0.5, 1.0):
        merged = arrays([delta("cart", taus, scale=1.5, share=share)])[0]
        np.testing.assert_allclose(merged, cart(arrays(taus), 1.5, share), atol=1e-9)
    for smoothing in ("mean", "none"):
        merged = arrays([delta("dc_merge", taus, smoothing=smoothing, scale=0.7)])[0]
        np.testing.assert_allclose(merged, dc_merge(arrays(taus), smoothing, 0.7), atol=1e-9)


def test_cart_by_hand() -> None:
    """The mean is (3, 2); of the differences (3, -2), (-3, 4) and (0, -2) the larger parts sum to (3, 2)."""
    taus = [torch.diag(torch.tensor(values)) for values in ((6.0, 0.0), (0.0, 6.0), (3.0, 0.0))]
    torch.testing.assert_close(delta("cart", taus), torch.diag(torch.tensor([9.0, 6.0])))
    torch.testing.assert_close(delta("cart", taus, scale=0), torch.diag(torch.tensor([3.0, 2.0])))


def test_cart_of_two_experts_or_of_equal_ones_is_the_mean() -> None:
    taus = random_taus(2, 8, 9)
    torch.testing.assert_close(delta("cart", taus), torch.stack(taus).mean(0))
    base = random_taus(1, 8, 9, seed=5)[0].float()
    twins = [(base + taus[0].float()) - base] * 3  # what is left of them is rounding, and lifts nothing
    torch.testing.assert_close(delta("cart", twins, base=base, scale=100.0), twins[0], rtol=0, atol=1e-5)


def test_dc_merge_by_hand() -> None:
    """Tasks with different rows and columns keep their directions, at the mean of their singular values."""
    taus = [torch.diag(torch.tensor([5.0, 3.0, 0.0, 0.0])), torch.diag(torch.tensor([0.0, 0.0, 2.0, 4.0]))]
    torch.testing.assert_close(delta("dc_merge", taus), torch.diag(torch.tensor([4.0, 4.0, 3.0, 3.0])))
    torch.testing.assert_close(delta("dc_merge", taus, smoothing="none"), taus[0] + taus[1])


def test_dc_merge_of_low_rank_experts_spreads_no_strength_over_directions_of_rounding() -> None:
    taus = [torch.zeros(8, 8), torch.zeros(8, 8)]
    taus[0][0, 0], taus[1][1, 1], taus[1][2, 2] = 4.0, 2.0, 6.0
    base = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    merged = delta("dc_merge", taus, base=base)
    wanted = torch.zeros(8, 8)
    wanted[0, 0], wanted[1, 1], wanted[2, 2] = 4.0, 4.0, 4.0
    torch.testing.assert_close(merged, wanted, rtol=0, atol=1e-5)


def test_more_tasks_than_directions() -> None:
    numbers = random_taus(3, 1, 1)
    torch.testing.assert_close(delta("dc_merge", numbers), torch.stack(numbers).mean(0))


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("cart", {"scale": None}, "cart: scale is None"),
        ("cart", {"share": 0}, r"cart: share is 0; it must lie in \(0, 1\]: the share of directions kept"),
        ("dc_merge", {"smoothing": "means"}, "unknown smoothing of dc_merge 'means'. Did you mean 'mean'"),
        ("dc_merge", {"scale": float("inf")}, "dc_merge: scale is inf"),
    ],
)
def test_arguments_are_checked(method: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        delta(method, random_taus(1, 2, 2), **arguments)
