"""TALL masks: theta_t = theta_0 + M_t * tau_mtl, tau_mtl = sum_s tau_s, M_t = 1[|tau_t| > lambda_t |tau_mtl - tau_t|].

Wang et al., Localizing task information for improved model merging and compression, ICML 2024,
https://arxiv.org/abs/2405.07813
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from symerge_dense.merging.arguments import check_per_task, of_task
from symerge_dense.merging.combine import total
from symerge_dense.merging.masked import Masked
from symerge_dense.registry import MERGERS


@MERGERS.register
class TallMasks(Masked):
    """The weights of the multi-task vector that matter to a task, for each task. Scope: every kind of weight.

    ``threshold``, the paper's lambda, at least 0: one number for all tasks or {task: number}. The paper takes the best
    of 0.2, 0.3, 0.4, 0.5, 0.6 per task on labelled validation images; without any the middle one is the default.
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
    """1[|tau_t| > lambda |tau_mtl - tau_t|]: where the expert is farther from the base than from the merged model."""
    return delta.abs() > threshold * (unified - delta).abs()
