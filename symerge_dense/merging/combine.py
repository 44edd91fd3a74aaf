"""Combine the task vectors of one tensor: sum, disjoint merge under an elected sign, or largest magnitude.

All functions take task vectors in the order of the tasks, leave them unchanged, and return a tensor of their shape.
Sum and largest fold: one task vector and the result are in memory. The disjoint merges hold all. Small task vectors may
also come as one tensor (T, ...), which saves calls and copies; that tensor may be overwritten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

ONE_AFTER_THE_OTHER = 16  # up to so many rows PyTorch adds in their order; more are added in groups
Combination: TypeAlias = Callable[[Iterable[Tensor]], Tensor]


def total(deltas: Iterable[Tensor]) -> Tensor:
    """sum_t tau_t, added one after the other.

    Args:
        deltas: task vectors tau_t, or one tensor (T, ...).
    """
    if isinstance(deltas, Tensor) and len(deltas) <= ONE_AFTER_THE_OTHER:
        return deltas.sum(0)
    stream = iter(deltas)
    result = next(stream)
    for number, delta in enumerate(stream):
        result = result.add_(delta) if number else result + delta
    return result


def largest(deltas: Iterable[Tensor]) -> Tensor:
    """Per weight the tau_t of the largest magnitude; of equal magnitudes the last.

    Args:
        deltas: task vectors tau_t.
    """
    stream = iter(deltas)
    result = next(stream)
    for delta in stream:
        result = torch.where(delta.abs() >= result.abs(), delta, result)
    return result


def elect_sign(deltas: Sequence[Tensor] | Tensor, tie: float = 1.0) -> Tensor:
    """Per weight the sign with the greater mass, sgn(sum_t tau_t), as +1 or -1.

    Args:
        deltas: task vectors tau_t, or one tensor (T, ...).
        tie: elected where the sum is zero: positive for +1, else -1.
    """
    votes = total(deltas)
    positive = torch.ge if tie > 0 else torch.gt
    return positive(votes, 0.0, out=torch.empty_like(votes)).mul_(2).sub_(1)


def disjoint_mean(deltas: Iterable[Tensor]) -> Tensor:
    """Per weight the mean of those task vectors that are not zero there and have the elected sign.

    Args:
        deltas: task vectors tau_t, or one tensor (T, ...), which is overwritten.
    """
    kept, count = _agreeing(deltas)
    return kept / count.clamp_(min=1)


def disjoint_sum(deltas: Iterable[Tensor]) -> Tensor:
    """Per weight the sum of the task vectors that have the elected sign.

    Args:
        deltas: task vectors tau_t, or one tensor (T, ...), which is overwritten.
    """
    return _agreeing(deltas)[0]


def disjoint_max(deltas: Iterable[Tensor], tie: float = 1.0) -> Tensor:
    """Per weight the largest of the task vectors that have the elected sign, with that sign.

    Args:
        deltas: task vectors tau_t.
        tie: sign elected where the sum is zero, as in ``elect_sign``.
    """
    every = list(deltas)
    sign = elect_sign(every, tie)
    result = torch.zeros_like(sign)
    for delta in every:
        torch.maximum(result, delta * sign, out=result)
    return result.mul_(sign)


AGGREGATIONS: Mapping[str, Combination] = {"mean": disjoint_mean, "sum": disjoint_sum, "max": disjoint_max}


def _agreeing(deltas: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Sum and number of the task vectors that have the elected sign."""
    deltas = deltas if isinstance(deltas, Tensor) else list(deltas)
    sign = elect_sign(deltas)
    if isinstance(deltas, Tensor):
        together = deltas.mul_(sign).clamp_(min=0)
        return total(together).mul_(sign), together.sign_().sum(0)
    kept, count, agreeing = torch.zeros_like(sign), torch.zeros_like(sign), torch.empty_like(sign)
    for delta in deltas:
        torch.mul(delta, sign, out=agreeing).clamp_(min=0)  # floats throughout: bools are several times slower
        kept += agreeing
        count += agreeing.sign_()
    return kept.mul_(sign), count
