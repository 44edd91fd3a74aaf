"""TALL masks: theta_t = theta_0 + M_t * tau_mtl, tau_mtl = sum_s tau_s, M_t = 1[|tau_t| > lambda_t |tau_mtl - tau_t|].

Consensus task arithmetic: theta = theta_0 + scale * C * tau_mtl with C = 1[sum_t M_t >= k].

Wang et al., Localizing task information for improved model merging and compression, ICML 2024,
https://arxiv.org/abs/2405.07813
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from symerge_dense.merging.arguments import check_count, check_number, check_per_task, of_task
from symerge_dense.merging.base import ALL_KINDS, Merger
from symerge_dense.merging.combine import total
from symerge_dense.merging.masked import Masked
from symerge_dense.merging.operands import Operands, add_delta
from symerge_dense.registry import MERGERS


@MERGERS.register_module()
class TallMasks(Masked):
    """For each task, the weights of the multi-task vector that matter to it. Scope: every kind of weight.

    Args:
        threshold: the paper's lambda, at least 0: one number for all tasks, or {task: number}. The paper takes the best
            of 0.2, 0.3, 0.4, 0.5, 0.6 per task on labelled validation images; without any the middle one is the
            default.
    """

    name: ClassVar[str] = "tall_masks"
    elementwise = True

    def __init__(self, threshold: float | Mapping[str, float] = 0.4) -> None:
        self.threshold = check_per_task(self.name, "threshold", threshold, "[0, inf)", "lambda of the masks")

    def unify(self, deltas: Sequence[Tensor]) -> Tensor:
        return total(deltas)

    def choose(self, task: str, delta: Tensor, unified: Tensor) -> Tensor:
        return matters(delta, unified, of_task(self.name, "threshold", self.threshold, task))


def matters(delta: Tensor, unified: Tensor, threshold: float) -> Tensor:
    """1[|tau_t| > lambda |tau_mtl - tau_t|]: where the expert is farther from the base than from the merged model.

    Args:
        delta: tau_t.
        unified: tau_mtl, of the same shape.
        threshold: lambda, at least 0.
    """
    return delta.abs() > threshold * (unified - delta).abs()


@MERGERS.register_module()
class Consensus(Merger):
    """Task arithmetic without the weights that fewer than k tasks use. Scope: every kind of weight.

    All task vectors of a tensor are in memory at once.

    Args:
        scale: any finite number; 0.3 is that of task arithmetic.
        agreement: the paper's k, at least 0; published: 2. 2 drops what one task alone uses, 1 what none does, 0
            nothing (task arithmetic). With fewer than k experts all must agree.
        threshold: lambda, at least 0, as in ``TallMasks``.
    """

    name: ClassVar[str] = "consensus"
    treats = ALL_KINDS
    elementwise = True

    def __init__(self, scale: float = 0.3, agreement: int = 2, threshold: float | Mapping[str, float] = 0.4) -> None:
        self.scale = check_number(self.name, "scale", scale)
        self.agreement = check_count(self.name, "agreement", agreement, 0, "how many tasks must use a weight")
        self.threshold = check_per_task(self.name, "threshold", threshold, "[0, inf)", "lambda of the masks")

    def merge(self, operands: Operands) -> Tensor:
        deltas = dict(operands.deltas())
        unified = total(deltas.values())
        votes = torch.zeros_like(unified)
        for task, delta in deltas.items():
            votes += matters(delta, unified, of_task(self.name, "threshold", self.threshold, task))
        enough = votes >= min(self.agreement, len(deltas))
        return add_delta(operands, torch.where(enough, unified, 0.0), self.scale)
