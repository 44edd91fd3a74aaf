"""WUDI against gradient descent done step by step, its closed form, and the published use of Adam."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from builders.matrix_cases import Array, arrays, delta, random_taus
from torch import Tensor

SHAPES = [(6, 6), (12, 7), (7, 12), (3, 40), (5, 2, 3, 3)]


def objective(merged: Tensor, taus: Sequence[Tensor]) -> float:
    terms = [((merged - tau) @ tau.T).square().sum() / tau.square().sum() for tau in taus]
    return float(torch.stack(terms).sum())


def grams(taus: Sequence[Array]) -> list[Array]:
    return [tau.T @ tau / np.square(tau).sum() for tau in taus]


def descend(taus: Sequence[Array], steps: int) -> Array:
    """Gradient descent on half the objective with step 1 / largest eigenvalue, from the sum."""
    each = grams(taus)
    length = 1 / np.linalg.eigvalsh(sum(each))[-1]
    merged = sum(taus)
    for _ in range(steps):
        merged = merged - length * sum((merged - tau) @ gram for tau, gram in zip(taus, each, strict=True))
    return merged


def adam(taus: Sequence[Tensor], steps: int = 300, rate: float = 1e-5) -> Tensor:
    merged = torch.nn.Parameter(torch.stack(list(taus)).sum(0))
    optimizer = torch.optim.Adam([merged], rate)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = torch.stack([((merged - tau) @ tau.T).square().sum() / tau.square().sum() for tau in taus]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return merged.detach()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", [1, 2, 30, 500])
def test_it_is_gradient_descent(shape: tuple[int, ...], steps: int) -> None:
    taus = random_taus(3, *shape, decay=0.5)
    merged = arrays([delta("wudi", taus, iterations=steps)])[0]
    np.testing.assert_allclose(merged, descend(arrays(taus), steps), atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_without_end_it_is_the_minimiser_on_the_row_space_and_the_sum_off_it(shape: tuple[int, ...]) -> None:
    taus = random_taus(3, *shape)
    merged, each = arrays([delta("wudi", taus, iterations=None)])[0], grams(arrays(taus))
    wanted = sum(tau @ gram for tau, gram in zip(arrays(taus), each, strict=True)) @ np.linalg.pinv(sum(each))
    rows = np.linalg.svd(np.concatenate(arrays(taus)), full_matrices=False)
    basis = rows[2][rows[1] > 1e-9]
    np.testing.assert_allclose(merged @ basis.T, wanted @ basis.T, atol=1e-7)
    off = np.eye(len(basis.T)) - basis.T @ basis
    np.testing.assert_allclose(merged @ off, sum(arrays(taus)) @ off, atol=1e-7)


def test_rows_that_do_not_meet_keep_the_sum() -> None:
    one, other = torch.zeros(3, 8), torch.zeros(3, 8)
    one[:, :4], other[:, 4:] = random_taus(1, 3, 4)[0].float(), random_taus(1, 3, 4, seed=1)[0].float()
    for iterations in (1, 3000, None):
        torch.testing.assert_close(delta("wudi", [one, other], iterations=iterations), one + other)


def test_equal_task_vectors_are_merged_into_one() -> None:
    (tau,) = random_taus(1, 5, 9)
    torch.testing.assert_close(delta("wudi", [tau, tau, tau], iterations=None), tau)
    torch.testing.assert_close(delta("wudi", [tau, tau, tau], iterations=30000), tau)


def test_single_numbers_give_their_mean_by_hand() -> None:
    """sum_t (D - tau_t)^2 tau_t^2 / tau_t^2 has its least value at the mean."""
    taus = [torch.tensor([[value]]) for value in (1.0, -4.0, 6.0)]
    assert delta("wudi", taus).item() == pytest.approx(1.0)


@pytest.mark.parametrize("shape", [(32, 128), (64, 64), (128, 32)])
@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_it_comes_as_far_as_adam_does_on_task_vectors_of_the_size_adam_likes(
    shape: tuple[int, int], count: int, decay: float
) -> None:
    taus = [2e-4 * tau * tau.numel() ** 0.5 / tau.norm() for tau in random_taus(count, *shape, decay=decay)]
    ours, theirs = objective(delta("wudi", taus), taus), objective(adam(taus), taus)
    assert ours <= theirs * (1 + 1e-6) < objective(torch.stack(taus).sum(0), taus)


@pytest.mark.parametrize("size", [1e-10, 1e-3, 1e6])
@pytest.mark.parametrize("iterations", [10, None])
def test_the_size_of_task_vectors_does_not_matter(size: float, iterations: int | None) -> None:
    taus = random_taus(3, 6, 9)
    merged = delta("wudi", [tau * size for tau in taus], iterations=iterations) / size
    torch.testing.assert_close(merged, delta("wudi", taus, iterations=iterations))


def test_more_iterations_interfere_less_and_stay_bounded_where_the_minimiser_explodes() -> None:
    """As many rows as columns: the row spaces nearly coincide, and the minimiser follows every noise."""
    taus = random_taus(4, 32, 128)
    values = [objective(delta("wudi", taus, iterations=count), taus) for count in (1, 30, 3000, None)]
    assert values == sorted(values, reverse=True)
    start = torch.stack(taus).sum(0).norm()
    assert delta("wudi", taus, iterations=None).norm() > 5 * start > delta("wudi", taus).norm()


@pytest.mark.parametrize("shape", [(6, 6), (2, 40)])
def test_an_expert_that_changed_nothing_does_not_count(shape: tuple[int, int]) -> None:
    taus = random_taus(2, *shape)
    assert torch.equal(delta("wudi", [taus[0], torch.zeros(shape).double(), taus[1]]), delta("wudi", taus))


@pytest.mark.parametrize("iterations", [0, -3, 2.5, True, "300"])
def test_iterations_must_be_a_count(iterations: Any) -> None:
    with pytest.raises(ValueError, match=r"wudi: iterations is .* at least 1"):
        delta("wudi", random_taus(1, 2, 2), iterations=iterations)
