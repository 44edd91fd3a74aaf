"""How the task vectors of one tensor become one: sum, disjoint merge under an elected sign, largest magnitude.

All take task vectors in the order of the tasks, change none, and agree on the shape of the result. Sum and largest
fold: one task vector and the result are in memory; the disjoint merge holds all. Small ones may also come as one tensor
(T, ...), which saves calls and copies: that one may be overwritten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

ONE_AFTER_THE_OTHER = 16  # rows that PyTorch adds up in their order; more it adds in groups
Combination: TypeAlias = Callable[[Iterable[Tensor]], Tensor]


def total(deltas: Iterable[Tensor]) -> Tensor:
    """sum_t tau_t, added one after the other."""
    if isinstance(deltas, Tensor) and len(deltas) <= ONE_AFTER_THE_OTHER:
        return deltas.sum(0)
    stream = iter(deltas)
    result = next(stream)
    for number, delta in enumerate(stream):
        result = result.add_(delta) if number else result + delta
    return result


def largest(deltas: Iterable[Tensor]) -> Tensor:
    """Per weight the tau_t of the largest magnitude; of equal magnitudes the last."""
    stream = iter(deltas)
    result = next(stream)
    for delta in stream:
        result = torch.where(delta.abs() >= result.abs(), delta, result)
    return result


def elect_sign(deltas: Sequence[Tensor] | Tensor, tie: float = 1.0) -> Tensor:
    """Per weight the sign with the greater mass, sgn(sum_t tau_t), as +1 or -1; ``tie`` where the sum is zero."""
    votes = total(deltas)
    positive = torch.ge if tie > 0 else torch.gt
    return positive(votes, 0.0, out=torch.empty_like(votes)).mul_(2).sub_(1)


def disjoint_mean(deltas: Iterable[Tensor]) -> Tensor:
    """Per weight the mean of those task vectors that are not zero there and have the elected sign."""
    kept, count = _agreeing(deltas)
    return kept / count.clamp_(min=1)


def disjoint_sum(deltas: Iterable[Tensor]) -> Tensor:
    """Per weight the sum of the task vectors that have the elected sign."""
    return _agreeing(deltas)[0]


def disjoint_max(deltas: Iterable[Tensor], tie: float = 1.0) -> Tensor:
    """Per weight the largest of the task vectors that have the elected sign, with that sign."""
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
        torch.mul(delta, sign, out=agreeing).clamp_(min=0)  # floats all the way: bools are several times slower
        kept += agreeing
        count += agreeing.sign_()
    return kept.mul_(sign), count
