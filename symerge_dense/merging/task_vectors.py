"""Task vectors, tau_t = theta_t - theta_0 (Ilharco et al., 2023, https://arxiv.org/abs/2212.04089)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from symerge_dense.merging.compatibility import check_compatible
from symerge_dense.merging.sources import TensorSource, load


def task_vectors(base: TensorSource, experts: Mapping[str, TensorSource], names: Iterable[str]) -> dict[str, Tensor]:
    """Task vectors of the tensors in ``names``: name -> (T, numel), contiguous, rows in the order of ``experts``.

    Each is one allocation, filled row by row: beside the result never more than one tensor of base and of an expert
    is held. Computed in float32 (float64 stays). Raises ValueError as ``check_compatible`` and ``load`` do.
    """
    chosen = list(names)
    check_compatible(base, experts, chosen)
    result = {}
    for name in chosen:
        origin = load(base, "base", name)
        rows = origin.new_empty(len(experts), origin.numel())
        subtract_into(rows, origin, experts, name)
        result[name] = rows
    return result


def subtract_into(rows: Tensor, base: Tensor, experts: Mapping[str, TensorSource], name: str) -> None:
    """Write theta_t - theta_0 of one tensor into ``rows`` (T, numel)."""
    for row, (task, expert) in zip(rows, experts.items(), strict=True):
        value = load(expert, task, name, base.device)
        torch.sub(value.reshape(-1), base.reshape(-1), out=row)


def interpolate(base: Tensor, expert: Tensor, weight: float) -> Tensor:
    """base + weight * (expert - base), a new tensor, exact at both ends: weight 0 is the base, 1 the expert.

    Floats need this care. With |expert| << |base| there is no float tau at all with fl(base + tau) == expert, so no
    stored task vector can give the expert back; the expert itself must be at hand. ``torch.lerp`` starts from the
    nearer end, and so stays within a rounding of it; the ends themselves are copied, signs of zeros included.
    """
    if weight == 0.0:
        return base.clone()
    return expert.clone() if weight == 1.0 else torch.lerp(base, expert, weight)
