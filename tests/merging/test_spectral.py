"""Truncated SVD and polar factor, against numpy and by their defining properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from symerge_dense.merging import spectral
from symerge_dense.merging.spectral import as_matrix, polar, svd

SHAPES = [(1, 1), (1, 7), (7, 1), (5, 5), (4, 9), (9, 4), (40, 300)]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_values(rows: int, columns: int, values: list[float], seed: int = 0) -> Tensor:
    """A float64 matrix with these singular values."""
    left = torch.linalg.qr(random(rows, len(values), seed=seed).double())[0]
    right = torch.linalg.qr(random(columns, len(values), seed=seed + 1).double())[0]
    return left * torch.tensor(values, dtype=torch.float64) @ right.T


def assert_orthonormal(columns: Tensor) -> None:
    torch.testing.assert_close(columns.T @ columns, torch.eye(columns.shape[1], dtype=torch.float64), rtol=0, atol=1e-6)


def test_a_kernel_is_a_matrix_in_the_order_of_unfold() -> None:
    kernel, image = random(4, 3, 3, 3), random(2, 3, 5, 6, seed=1)
    columns = torch.nn.functional.unfold(image, 3)
    by_hand = (as_matrix(kernel) @ columns).reshape(2, 4, 3, 4)
    torch.testing.assert_close(by_hand, torch.nn.functional.conv2d(image, kernel))
    assert as_matrix(random(0, 3, 3, 3)).shape == (0, 27) and as_matrix(random(4, 5)).shape == (4, 5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1e-30, 1e-6, 1.0, 1e30])
def test_the_whole_decomposition(shape: tuple[int, int], size: float) -> None:
    matrix = random(*shape) * size
    left, values, right = svd(matrix)
    assert left.dtype == values.dtype == right.dtype == torch.float64
    np.testing.assert_allclose(values, np.linalg.svd(matrix.double().numpy(), compute_uv=False), rtol=1e-9)
    torch.testing.assert_close(left * values @ right, matrix.double(), rtol=1e-6, atol=1e-9 * size)
    assert_orthonormal(left)
    assert_orthonormal(right.T)


@pytest.mark.parametrize("shape", SHAPES)
def test_truncation_is_the_best_approximation_of_its_rank(shape: tuple[int, int]) -> None:
    matrix = random(*shape)
    tail = np.linalg.svd(matrix.double().numpy(), compute_uv=False)
    for rank in (1, 2, 4, 100):
        left, values, right = svd(matrix, rank)
        assert len(values) == min(rank, *shape)
        error = (matrix.double() - left * values @ right).norm()
        np.testing.assert_allclose(error, np.linalg.norm(tail[rank:]), atol=1e-6)


@pytest.mark.parametrize(("rows", "columns"), [(20, 50), (50, 20), (30, 30)])
@pytest.mark.parametrize("least", [1e-3, 2e-5, 3e-6])
def test_small_values_and_their_vectors_are_exact(rows: int, columns: int, least: float) -> None:
    wanted = [1.0, 0.5, 0.5, 10 * least, 2 * least, least]
    left, values, right = svd(with_values(rows, columns, wanted))
    np.testing.assert_allclose(values, wanted, rtol=1e-5)
    assert_orthonormal(left)
    assert_orthonormal(right.T)


@pytest.mark.parametrize(("rows", "columns"), [(20, 50), (50, 20), (30, 30)])
def test_rounding_is_no_direction(rows: int, columns: int) -> None:
    in_float32 = with_values(rows, columns, [3.0, 2.0, 1e-2]).float()
    left, values, right = svd(in_float32)
    assert left.shape == (rows, 3) and right.shape == (3, columns)
    np.testing.assert_allclose(values, [3.0, 2.0, 1e-2], rtol=1e-4)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (3, 5), (5, 3)])
def test_a_zero_matrix_has_no_directions(shape: tuple[int, int]) -> None:
    left, values, right = svd(torch.zeros(shape))
    assert left.shape == (shape[0], 0) and values.shape == (0,) and right.shape == (0, shape[1])
    assert torch.equal(polar(torch.zeros(shape)), torch.zeros(shape, dtype=torch.float64))
    assert svd(torch.ones(3, 5), 0).values.shape == (0,)


def test_where_lapack_does_not_converge_the_certain_directions_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise torch.linalg.LinAlgError("no convergence")

    matrix = with_values(20, 50, [1.0, 0.1, 3e-6])
    assert len(svd(matrix).values) == 3
    monkeypatch.setattr(spectral.torch.linalg, "svd", refuse)
    np.testing.assert_allclose(svd(matrix).values, [1.0, 0.1], rtol=1e-9)


def test_the_same_matrix_gives_the_same_bits() -> None:
    matrix = random(40, 300)
    assert all(torch.equal(a, b) for a, b in zip(svd(matrix), svd(matrix.clone()), strict=True))


@pytest.mark.parametrize("shape", SHAPES)
def test_polar_factor_is_orthogonal_and_the_rest_is_positive(shape: tuple[int, int]) -> None:
    matrix = random(*shape).double()
    factor = polar(matrix)
    assert_orthonormal(factor if shape[0] >= shape[1] else factor.T)
    stretch = factor.T @ matrix if shape[0] >= shape[1] else matrix @ factor.T
    torch.testing.assert_close(stretch, stretch.T)
    assert torch.linalg.eigvalsh(stretch).min() > 0


def test_polar_factor_by_hand_and_of_an_isometry() -> None:
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    torch.testing.assert_close(polar(turn @ torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=torch.float64)), turn)
    torch.testing.assert_close(polar(turn), turn)


def test_polar_factor_without_full_rank_is_a_partial_isometry() -> None:
    column = torch.tensor([[3.0], [4.0]]).double()
    shared = polar(torch.cat([column, column], 1))
    torch.testing.assert_close(shared, torch.tensor([[0.6, 0.6], [0.8, 0.8]], dtype=torch.float64) / 2**0.5)
    torch.testing.assert_close(shared @ shared.T @ shared, shared)
