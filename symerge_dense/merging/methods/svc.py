"""SVC, singular value calibration: the singular value r of another method's Delta = U S V^T is multiplied by

    gamma_r = T / sum_t max(alpha, s_rt),  s_rt = <a_r, a_rt> / ||a_rt||^2,  a_r = u_r^T Delta,  a_rt = u_r^T tau_t,

as s_rt > 1 says that tasks which share the direction u_r have been added up there.

Li et al., When shared knowledge hurts: spectral over-accumulation in model merging, ICML 2026,
https://arxiv.org/abs/2602.05536
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from symerge_dense.merging.arguments import check_within
from symerge_dense.merging.methods._matrix import matrix_deltas, rounding
from symerge_dense.merging.methods._wrapping import WrappingMerger
from symerge_dense.merging.operands import Operands
from symerge_dense.merging.spectral import as_matrix, svd
from symerge_dense.registry import MERGERS


@MERGERS.register_module()
class SVC(WrappingMerger):
    """The delta of another method, with every direction at the strength that it has in the tasks.

    Scope: that of the other method, whose matrices and convolutions, as (O, I * kh * kw), are calibrated.

    The other method's scale nearly cancels, as long as no s_rt is below alpha. A task without a part in a direction, or
    with rounding only, counts as s_rt = 0. Directions of Delta that are rounding stay as they are. Two effects are
    the formula's own. A task whose part in a direction is small makes s_rt large, and the direction weak. And where
    singular values are equal, as ``iso_c`` makes them, the directions are an arbitrary basis, on which the result
    depends.

    Args:
        method: a registered name, taken with its own defaults, or ``{'type': name, **arguments}``; not one with weights
            per task.
        alpha: the least s_rt, above 0, which bounds gamma by 1 / alpha; None for the published 1 / T (for ``tsv_m``
            published: 1).
    """

    name: ClassVar[str] = "svc"

    def __init__(self, method: str | Mapping[str, Any] = "task_arithmetic", alpha: float | None = None) -> None:
        self.alpha = None if alpha is None else check_within(self.name, "alpha", alpha, "(0, inf)", "the least s_rt")
        super().__init__(method)
        if self.per_task:
            raise ValueError(
                f"svc: {self._inner.name} gives every task its own weights, and there is no single Delta to calibrate; "
                "name a method with one set of weights, such as 'ties'."
            )

    def merge(self, operands: Operands) -> Tensor:
        merged = self.merge_inner(operands)
        if operands.spec.kind not in ("matrix", "conv") or not merged.numel():
            return merged
        least, negligible = self.alpha or 1 / len(operands.tasks), rounding(operands, len(operands.tasks))
        left, values, right = svd(as_matrix(merged - operands.base), floor=negligible)
        sums = torch.zeros_like(values)
        for delta in matrix_deltas(operands):
            own = left.T @ delta.double()
            norms = own.norm(dim=1)
            overlap = values * (own * right).sum(1) / norms.square()
            sums += torch.where(norms > negligible, overlap, 0.0).clamp(min=least)
        change = left * (values * (len(operands.tasks) / sums - 1)) @ right
        return merged + change.to(merged.dtype).reshape(merged.shape)
