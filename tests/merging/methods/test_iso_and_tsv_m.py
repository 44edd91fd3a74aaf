"""Iso-C, Iso-CTS and TSV-Merge against the formulas written with numpy, and by their defining properties."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from builders.matrix_cases import Array, arrays, delta, random_taus

from symerge_dense.merging.methods.iso import own_directions

RANK_ONE = [([1.0, 2, 3, 4], [3.0, 1, -2, 5]), ([2.0, -1, 4, -3], [1.0, 1, 1, 7])]
SHAPES = [(6, 6), (7, 12), (12, 7), (4, 3, 3, 3), (9, 5, 1, 1)]


def orthogonal(matrix: Array) -> Array:
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    return left @ right


def iso_c(taus: list[Array], scale: float = 1.0) -> Array:
    left, values, right = np.linalg.svd(sum(taus), full_matrices=False)
    return scale * values.mean() * left @ right


def iso_cts(taus: list[Array], own: int, scale: float = 1.0) -> Array:
    rank = min(taus[0].shape)
    shared = rank - own * len(taus)
    left, values, right = np.linalg.svd(sum(taus), full_matrices=False)
    lefts, all_values, rights = [left[:, :shared]], [values[:shared]], [right[:shared]]
    outside = np.eye(len(left)) - left[:, :shared] @ left[:, :shared].T
    for tau in taus:
        own_left, own_values, own_right = np.linalg.svd(outside @ tau, full_matrices=False)
        lefts.append(own_left[:, :own])
        all_values.append(own_values[:own])
        rights.append(own_right[:own])
    mean = np.concatenate(all_values).mean()
    return scale * mean * orthogonal(np.concatenate(lefts, 1)) @ orthogonal(np.concatenate(rights))


def tsv_m(taus: list[Array], scale: float = 1.0) -> Array:
    each = min(taus[0].shape) // len(taus)
    parts = [np.linalg.svd(tau, full_matrices=False) for tau in taus]
    left = orthogonal(np.concatenate([part[0][:, :each] for part in parts], 1))
    right = orthogonal(np.concatenate([part[2][:each] for part in parts]))
    return scale * left @ np.diag(np.concatenate([part[1][:each] for part in parts])) @ right


def close(merged: torch.Tensor, wanted: Array) -> None:
    np.testing.assert_allclose(merged.reshape(len(merged), -1).numpy(), wanted, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_formulas(shape: tuple[int, ...], count: int) -> None:
    taus = random_taus(count, *shape)
    close(delta("iso_c", taus, scale=1.5), iso_c(arrays(taus), 1.5))
    close(delta("tsv_m", taus, scale=0.7), tsv_m(arrays(taus), 0.7))
    rank = min(arrays(taus)[0].shape)
    own = round((rank - int(0.8 * rank)) / count)
    close(delta("iso_cts", taus, scale=1.5), iso_cts(arrays(taus), own, 1.5))


@pytest.mark.parametrize(("count", "common", "own"), [(2, 0.5, 2), (3, 0.0, 2), (5, 0.4, 1), (2, 1.0, 0)])
def test_common_and_own_directions(count: int, common: float, own: int) -> None:
    taus = random_taus(count, 7, 12, seed=3)
    assert own_directions(7, count, common) == own
    close(delta("iso_cts", taus, common=common), iso_cts(arrays(taus), own))


@pytest.mark.parametrize(
    ("rank", "tasks", "common", "own"),
    [(768, 8, 0.8, 19), (10, 3, 0.8, 1), (2, 3, 0.0, 0), (1, 3, 0.8, 0), (5, 3, 0.0, 1)],
)
def test_own_directions_are_never_more_than_there_are(rank: int, tasks: int, common: float, own: int) -> None:
    assert own_directions(rank, tasks, common) == own


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", ["iso_c", "iso_cts"])
def test_the_isotropic_spectrum_is_flat(method: str, shape: tuple[int, ...]) -> None:
    taus = random_taus(3, *shape, decay=1.0)
    values = np.linalg.svd(arrays([delta(method, taus)])[0], compute_uv=False)
    np.testing.assert_allclose(values, values.mean(), rtol=1e-6)
    if method == "iso_c":
        whole = np.linalg.svd(sum(arrays(taus)), compute_uv=False)
        np.testing.assert_allclose(values.mean(), whole.mean(), rtol=1e-9)


def test_iso_c_by_hand() -> None:
    taus = [torch.tensor([[3.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, -1.0]])]
    torch.testing.assert_close(delta("iso_c", taus), torch.diag(torch.tensor([2.0, -2.0])))


def test_tsv_m_by_hand() -> None:
    """Tasks with different rows and columns do not meet: their leading triplets add, the others are gone."""
    taus = [torch.diag(torch.tensor([5.0, 3.0, 0.0, 0.0])), torch.diag(torch.tensor([0.0, 0.0, 2.0, 4.0]))]
    torch.testing.assert_close(delta("tsv_m", taus), taus[0] + taus[1])
    taus = [torch.diag(torch.tensor([5.0, 1.0])), torch.diag(torch.tensor([0.0, 4.0]))]
    torch.testing.assert_close(delta("tsv_m", taus), torch.diag(torch.tensor([5.0, 4.0])))


def test_tsv_m_of_one_expert_twice_is_the_top_of_it() -> None:
    (tau,) = random_taus(1, 6, 8)
    left, values, right = np.linalg.svd(tau.numpy(), full_matrices=False)
    close(delta("tsv_m", [tau, tau]), left[:, :3] * values[:3] @ right[:3])


@pytest.mark.parametrize("method", ["iso_c", "iso_cts", "tsv_m"])
def test_more_tasks_than_directions(method: str) -> None:
    """One row, four tasks: Iso-C and Iso-CTS keep the sum, whose one singular value is flat already."""
    taus = random_taus(4, 1, 5)
    merged = delta(method, taus)
    if method == "tsv_m":
        assert 0 < merged.norm() <= torch.stack(taus).norm(dim=(1, 2)).max()
        numbers = random_taus(3, 1, 1)
        torch.testing.assert_close(delta(method, numbers), torch.stack(numbers).mean(0))
    else:
        torch.testing.assert_close(merged, torch.stack(taus).sum(0))


@pytest.mark.parametrize("method", ["iso_c", "iso_cts", "tsv_m"])
def test_directions_without_task_vectors_stay_zero(method: str) -> None:
    taus = [torch.zeros(8, 10) for _ in range(2)]
    for number, tau in enumerate(taus):
        tau[:4, :5] = random_taus(1, 4, 5, seed=number)[0].float()
    merged = delta(method, taus)
    assert merged[:4, :5].norm() > 0.1
    assert merged[4:].abs().max() < 1e-6 and merged[:, 5:].abs().max() < 1e-6


def test_iso_cts_leaves_out_what_the_common_directions_have() -> None:
    """Two experts of rank one: the common directions are all there is, and the tasks add rounding alone."""
    ones = [torch.outer(torch.tensor(left), torch.tensor(right)) for left, right in RANK_ONE]
    values = np.linalg.svd(arrays([delta("iso_cts", ones, common=0.5)])[0], compute_uv=False)
    whole = np.linalg.svd(sum(arrays(ones)), compute_uv=False)
    np.testing.assert_allclose(values, [whole.sum() / 4] * 2 + [0, 0], atol=1e-4)
    assert values[0] == pytest.approx(16.34, abs=5e-3)


@pytest.mark.parametrize("method", ["iso_c", "iso_cts", "tsv_m"])
def test_scale_reaches_the_weights_that_are_no_matrix(method: str) -> None:
    taus = random_taus(3, 7)
    torch.testing.assert_close(delta(method, taus, scale=0.5), 0.5 * torch.stack(taus).mean(0))


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("iso_c", {"scale": float("nan")}, "iso_c: scale is nan"),
        ("tsv_m", {"scale": "1"}, "tsv_m: scale is '1'"),
        ("iso_cts", {"common": 1.2}, r"iso_cts: common is 1\.2; it must lie in \[0, 1\]"),
        ("iso_cts", {"common": -0.1}, "share of common directions"),
    ],
)
def test_arguments_are_checked(method: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        delta(method, random_taus(1, 2, 2), **arguments)
