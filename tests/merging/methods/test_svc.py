"""SVC: the singular values of any method's merge, calibrated by what the tasks have along its directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from builders.matrix_cases import NAME, Array, arrays, delta, random_taus
from torch import Tensor

from symerge_dense.merging.methods.svc import SVC
from symerge_dense.merging.run import merge_state

ONES = {"type": "task_arithmetic", "scale": 1.0}


def svc(taus: Sequence[Tensor], inner: Any, base: Tensor | None = None, **arguments: Any) -> Tensor:
    """What the method adds to ``base`` (zeros) for experts base + tau."""
    origin = torch.zeros_like(taus[0]) if base is None else base
    experts = {f"task{number}": {NAME: origin + tau} for number, tau in enumerate(taus)}
    return merge_state(SVC(inner, **arguments), {NAME: origin}, experts)[NAME] - origin


def calibrated(merged: Array, taus: Sequence[Array], alpha: float) -> Array:
    left, values, right = np.linalg.svd(merged, full_matrices=False)
    for number in range(len(values)):
        ours = left[:, number] @ merged
        shares = []
        for tau in taus:
            theirs = left[:, number] @ tau
            shares.append(max(alpha, ours @ theirs / (theirs @ theirs)))
        values[number] *= len(taus) / sum(shares)
    return left * values @ right


@pytest.mark.parametrize("shape", [(6, 6), (5, 9), (9, 5), (4, 3, 3, 3)])
@pytest.mark.parametrize("inner", ["task_arithmetic", "ties", "cart", {"type": "tsv_m", "scale": 0.5}])
@pytest.mark.parametrize("alpha", [None, 0.1, 1.0])
def test_the_formula_on_any_method(shape: tuple[int, ...], inner: Any, alpha: float | None) -> None:
    taus = random_taus(3, *shape)
    named = inner if isinstance(inner, dict) else {"type": inner}
    plain = delta(named["type"], taus, **{key: value for key, value in named.items() if key != "type"})
    wanted = calibrated(arrays([plain])[0], arrays(taus), alpha or 1 / 3)
    np.testing.assert_allclose(arrays([svc(taus, inner, alpha=alpha)])[0], wanted, atol=1e-9)


def test_by_hand() -> None:
    """A direction that two tasks share was added up twice; one of a single task has s = 1 and, for the other, alpha."""
    taus = [torch.diag(torch.tensor([2.0, 0.0])), torch.diag(torch.tensor([2.0, 6.0]))]
    torch.testing.assert_close(svc(taus, ONES), torch.diag(torch.tensor([2.0, 8.0])))
    torch.testing.assert_close(svc(taus, ONES, alpha=1), torch.diag(torch.tensor([2.0, 6.0])))


def test_equal_experts_and_a_single_one_come_back() -> None:
    (tau,) = random_taus(1, 5, 7)
    for count in (1, 3):
        torch.testing.assert_close(svc([tau] * count, ONES, alpha=0.01), tau)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_the_scale_of_the_method_cancels(scale: float) -> None:
    taus = [tau.abs() + 0.5 for tau in random_taus(3, 1, 8)]  # one direction, in which all agree
    one, other = ({"type": "task_arithmetic", "scale": value} for value in (1.0, scale))
    torch.testing.assert_close(svc(taus, other, alpha=1e-6), svc(taus, one, alpha=1e-6))


def test_rounding_in_a_direction_of_another_task_does_not_wipe_it_out() -> None:
    """Experts of rank one in float32: the second has rounding alone along the first's direction."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(16, 16, generator=generator)
    taus = [torch.zeros(16, 16), torch.zeros(16, 16)]
    taus[0][0, 0], taus[1][1, 1] = 3.0, 5.0
    noisy = [(base + tau) - base + 1e-8 * torch.randn(16, 16, generator=generator) for tau in taus]
    merged = svc(noisy, ONES, base)
    torch.testing.assert_close(merged, (taus[0] + taus[1]) * 4 / 3, rtol=0, atol=1e-5)


def test_what_is_no_matrix_is_what_the_method_gives() -> None:
    base, experts = (
        {"b": torch.zeros(3)},
        {task: {"b": torch.arange(3.0) * factor} for task, factor in (("a", 1), ("c", 3))},
    )
    assert merge_state(SVC(ONES), base, experts)["b"].tolist() == [0.0, 4.0, 8.0]
    assert merge_state(SVC({"type": "iso_c"}), base, experts)["b"].tolist() == [0.0, 2.0, 4.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": 0}, r"svc: alpha is 0; it must lie in \(0, inf\)"),
        ({"method": "tise"}, "unknown merger 'tise'. Did you mean 'ties'"),
        ({"method": ["ties"]}, r"svc: method is \['ties'\]; it must be a registered name, or a dict with a 'type'"),
        ({"method": "emr"}, "svc: emr gives every task its own weights.*such as 'ties'"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SVC(**arguments)
