"""DOGE task arithmetic: normalised shares, the global mask, and the shift that keeps off the common space."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from builders.matrix_cases import Array, arrays, delta, random_taus

from symerge_dense.merging.methods.doge_ta import DogeTA, common_space
from symerge_dense.merging.run import merge_state
from symerge_dense.merging.tensor_specs import TensorSpec

SHAPES = [(12, 12), (14, 20), (20, 14), (12, 2, 3, 3)]


def space(taus: list[Array], subspace: int) -> Array:
    rank = min(taus[0].shape)
    leading = [np.linalg.svd(tau, full_matrices=False)[0][:, : rank // len(taus)] for tau in taus]
    return np.linalg.svd(np.concatenate(leading, 1), full_matrices=False)[0][:, : rank // subspace]


def loss(shift: Array, taus: list[Array], shares: list[float]) -> float:
    merged = sum(share * (tau + shift) for share, tau in zip(shares, taus, strict=True))
    return sum(float(np.square((tau * (tau - merged)).sum(1)).sum()) for tau in taus)


def fitted(taus: list[Array], shares: list[float], subspace: int, steps: int, rate: float) -> Array:
    """Projected Adam by hand, with derivatives of the loss by central differences: it is quadratic, so exact."""
    basis = space(taus, subspace)
    off = np.eye(len(basis)) - basis @ basis.T
    shift, first, second = np.zeros_like(taus[0]), np.zeros_like(taus[0]), np.zeros_like(taus[0])
    for step in range(1, steps + 1):
        slope = np.zeros_like(shift)
        for place in np.ndindex(*shift.shape):
            nudge = np.zeros_like(shift)
            nudge[place] = 0.5
            slope[place] = loss(shift + nudge, taus, shares) - loss(shift - nudge, taus, shares)
        slope = off @ slope
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        move = first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        shift = off @ (shift - rate * move)
    return shift


@pytest.mark.parametrize("shape", SHAPES)
def test_the_method_written_out(shape: tuple[int, ...]) -> None:
    taus = random_taus(3, *shape, decay=0.5)
    matrices = arrays(taus)
    shares = [0.07 / float(np.linalg.norm(tau)) for tau in matrices]
    shift = fitted(matrices, shares, subspace=4, steps=4, rate=0.01)
    sizes = [np.abs(tau).astype(np.float32) for tau in matrices]  # the precision in which magnitudes are ranked
    masks = [size >= np.sort(size.ravel())[-round(0.3 * size.size)] for size in sizes]
    wanted = sum(share * (tau + shift) * mask for share, tau, mask in zip(shares, matrices, masks, strict=True))
    merged = delta("doge_ta", taus, subspace=4, iterations=4, learning_rate=0.01)
    np.testing.assert_allclose(arrays([merged])[0], wanted, atol=1e-9)


@pytest.mark.parametrize("shape", [(12, 12), (14, 20), (20, 14)])
@pytest.mark.parametrize("iterations", [1, 7, 60])
def test_the_shift_never_leaves_the_complement_of_the_common_space(shape: tuple[int, int], iterations: int) -> None:
    taus = random_taus(2, *shape, decay=0.5)
    shares = torch.tensor([0.3, 0.2]).double()
    merger = DogeTA(subspace=3, iterations=iterations, learning_rate=0.01)
    shift = merger.shift(torch.stack(taus, 1), shares).numpy()
    basis = space(arrays(taus), 3)
    assert basis.shape[1] == min(shape) // 3
    assert np.abs(basis.T @ shift).max() < 1e-9 < 1e-3 < np.abs(shift).max()
    assert loss(shift, arrays(taus), shares.tolist()) < loss(0 * shift, arrays(taus), shares.tolist())


def test_the_common_space_is_the_one_the_tasks_share() -> None:
    """Two tasks agree in one column direction and differ in the others."""
    axes = torch.eye(6).double()
    taus = [torch.stack([3 * axes[0], 2 * axes[1]], 1), torch.stack([5 * axes[0], 4 * axes[3]], 1)]
    wide = [torch.cat([tau, torch.zeros(6, 4).double()], 1) for tau in taus]
    torch.testing.assert_close(common_space(wide, 6).abs(), axes[:, :1])
    assert common_space(wide, 7).shape == (6, 0)  # r / subspace < 1: nothing is held fast
    assert common_space([torch.zeros(6, 6)] * 2, 2).shape == (6, 0)


def test_without_shift_and_mask_every_task_has_the_same_norm() -> None:
    (tau,) = random_taus(1, 5, 7)
    merged = delta("doge_ta", [tau], norm=0.5, density=1.0, iterations=0)
    torch.testing.assert_close(merged, 0.5 * tau / tau.norm())
    taus = random_taus(2, 5, 7)
    wanted = sum(0.07 * tau / tau.norm() for tau in taus)
    torch.testing.assert_close(delta("doge_ta", taus, density=1.0, iterations=0), wanted)


def test_the_mask_counts_the_weights_of_all_matrices_together() -> None:
    tau = {
        "a.weight": torch.tensor([[1.0, 5.0], [2.0, 3.0]]),
        "b.weight": torch.tensor([[10.0, 9.0, 0.5, 4.0]]),
        "c.weight": torch.full((1, 2, 1, 1), 100.0),
    }
    base = {name: torch.zeros_like(value) for name, value in tau.items()}
    merger = DogeTA(density=0.5, norm=1.0, iterations=0, conv="mean")
    kept = {name: (value != 0).tolist() for name, value in merge_state(merger, base, {"t": tau}).items()}
    assert kept["a.weight"] == [[False, True], [False, False]]
    assert kept["b.weight"] == [[True, True, False, True]]
    assert kept["c.weight"] == [[[[True]], [[True]]]]
    counted = [TensorSpec("a.weight", (2, 2), torch.float32, "matrix")]
    assert merger.passes > 0 and merger.treats[counted[0].kind] == "method" and merger.treats["conv"] == "mean"


def test_where_all_weights_are_kept_the_shift_reaches_zeros_of_a_task_vector() -> None:
    taus = random_taus(2, 12, 12, decay=0.5)
    for number, tau in enumerate(taus):
        tau[:, 3 * number : 3 * number + 3] = 0
    matrices = arrays(taus)
    shares = [0.07 / float(np.linalg.norm(tau)) for tau in matrices]
    shift = fitted(matrices, shares, subspace=4, steps=3, rate=0.01)
    merged = delta("doge_ta", taus, subspace=4, iterations=3, learning_rate=0.01, density=1.0)
    wanted = sum(share * (tau + shift) for share, tau in zip(shares, matrices, strict=True))
    np.testing.assert_allclose(arrays([merged])[0], wanted, atol=1e-9)


def test_an_expert_that_changed_nothing_has_no_share() -> None:
    taus = random_taus(2, 6, 6)
    zero = torch.zeros(6, 6).double()
    assert torch.equal(delta("doge_ta", [zero, zero]), zero)
    merged = delta("doge_ta", [*taus, zero], iterations=0, density=1.0)
    torch.testing.assert_close(merged, delta("doge_ta", taus, iterations=0, density=1.0))
    assert delta("doge_ta", [*taus, zero]).isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": 0.0}, r"norm is 0\.0; it must lie in \(0, inf\)"),
        ({"density": 0.0}, "density is 0.0"),
        ({"density": 1.5}, "share of weights kept"),
        ({"subspace": 0}, "subspace is 0; it must be an integer of at least 1"),
        ({"iterations": -1}, "iterations is -1"),
        ({"learning_rate": -1e-4}, "learning_rate is -0.0001"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"doge_ta: .*{message}|{message}"):
        DogeTA(**arguments)
