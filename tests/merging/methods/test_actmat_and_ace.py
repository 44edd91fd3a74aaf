"""ACTMat and ACE-Merging: least squares on what the task vectors themselves say of the inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from builders.matrix_cases import Array, arrays, delta, random_taus

SHAPES = [(6, 6), (7, 12), (12, 7), (3, 40), (4, 3, 3, 3)]


def actmat(taus: Sequence[Array]) -> Array:
    grams = [tau.T @ tau for tau in taus]
    inverse = np.linalg.pinv(sum(grams), rcond=1e-10, hermitian=True)
    return sum(tau @ gram for tau, gram in zip(taus, grams, strict=True)) @ inverse


def ace(taus: Sequence[Array], differ: bool, epsilon: float = 0.01, share: float = 0.3) -> Array:
    """Equations (7) to (19) of the paper, with every matrix written out."""
    size, energies = taus[0].shape[1], [np.square(tau).sum() for tau in taus]
    logs = np.log(energies)
    assert (logs.var(ddof=1) / logs.mean() ** 2 > 0.3) == differ
    centred = [tau - tau.mean(0) for tau in taus]
    scaled = [c.T @ c / (np.trace(c.T @ c) if differ else 1) for c in centred]
    ridges = [epsilon / (np.trace(c.T @ c) if differ else 1) for c in centred]
    regular = [one + ridge * np.eye(size) for one, ridge in zip(scaled, ridges, strict=True)]
    prior = np.outer(np.ones(size), np.ones(size) / size @ sum(scaled)) / (np.mean(energies) if differ else 1)
    merged = sum(c @ one for c, one in zip(centred, regular, strict=True)) @ np.linalg.inv(sum(regular) + prior)
    if differ:
        mean = sum(regular) / len(taus)
        fused = merged + sum(tau @ (one - mean) for tau, one in zip(taus, scaled, strict=True))
        left, values, right = np.linalg.svd(fused, full_matrices=False)
        top = int(share * len(values))
        merged = merged + values[:top].sum() / max(top, 1) * left[:, :top] @ right[:top]
    return merged


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [1, 2, 4])
def test_actmat_is_its_formula(shape: tuple[int, ...], count: int) -> None:
    taus = random_taus(count, *shape)
    np.testing.assert_allclose(arrays([delta("actmat", taus)])[0], actmat(arrays(taus)), atol=1e-8)


def test_actmat_by_hand() -> None:
    """Single numbers weigh by their squares; columns of one task alone are that task's."""
    numbers = [torch.tensor([[1.0]]), torch.tensor([[2.0]])]
    assert delta("actmat", numbers).item() == pytest.approx(9 / 5)
    taus = [torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[3.0, 0.0], [0.0, 5.0]])]
    torch.testing.assert_close(delta("actmat", taus), torch.tensor([[2.8, 0.0], [0.0, 5.0]]))


def test_actmat_is_wudi_without_end_where_task_vectors_are_of_one_size() -> None:
    taus = [tau / tau.norm() for tau in random_taus(3, 5, 30)]
    torch.testing.assert_close(delta("actmat", taus), delta("wudi", taus, iterations=None), rtol=0, atol=1e-9)


@pytest.mark.parametrize("size", [1e-8, 1e6])
def test_actmat_does_not_depend_on_the_size_of_all_task_vectors(size: float) -> None:
    taus = random_taus(3, 6, 9)
    torch.testing.assert_close(delta("actmat", [tau * size for tau in taus]) / size, delta("actmat", taus))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("differ", [False, True])
def test_ace_is_its_formula(shape: tuple[int, ...], differ: bool) -> None:
    sizes = (0.5, 0.5, 0.4) if not differ else (1.0, 0.1, 0.02)
    taus = [tau * size / tau.norm() for tau, size in zip(random_taus(3, *shape), sizes, strict=True)]
    for options in ({}, {"epsilon": 1.0, "share": 0.8}):
        wanted = ace(arrays(taus), differ, **options)
        np.testing.assert_allclose(arrays([delta("ace", taus, **options)])[0], wanted, atol=1e-9)


def test_ace_by_hand() -> None:
    """Rows +-1: covariance 2 + epsilon = 3, prior 2; and the mean row is taken away."""
    tau = torch.tensor([[1.0], [-1.0]])
    torch.testing.assert_close(delta("ace", [tau], epsilon=1.0), 0.6 * tau)
    torch.testing.assert_close(delta("ace", [tau + 5], epsilon=1.0), 0.6 * tau)


def test_ace_merges_a_matrix_of_one_row_to_the_mean() -> None:
    taus = random_taus(3, 1, 5)
    torch.testing.assert_close(delta("ace", taus), torch.stack(taus).mean(0))


def test_ace_refines_nothing_below_its_limit_or_with_no_share() -> None:
    taus = [tau * size for tau, size in zip(random_taus(2, 5, 6), (1.0, 0.01), strict=True)]
    plain = delta("ace", taus, share=0)
    assert torch.equal(delta("ace", taus, share=0.1), plain)  # less than one direction
    assert not torch.allclose(delta("ace", taus), plain)
    assert not torch.allclose(delta("ace", taus, heterogeneity=1e6), plain)


def test_an_expert_that_changed_nothing_does_not_count() -> None:
    taus = random_taus(2, 5, 6)
    for method in ("actmat", "ace"):
        assert torch.allclose(delta(method, [*taus, torch.zeros(5, 6).double()]), delta(method, taus), atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epsilon": 0}, r"ace: epsilon is 0; it must lie in \[1e-8, inf\)"),
        ({"heterogeneity": -1}, r"ace: heterogeneity is -1; it must lie in \[0, inf\)"),
        ({"share": 1.1}, r"ace: share is 1\.1; it must lie in \[0, 1\]: the share of directions refined"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        delta("ace", random_taus(1, 2, 2), **arguments)
