"""Task arithmetic: theta = theta_0 + scale * sum_t tau_t.

Ilharco et al., Editing models with task arithmetic, ICLR 2023, https://arxiv.org/abs/2212.04089
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from symerge_dense.merging.arguments import check_number
from symerge_dense.merging.base import ALL_KINDS, Merger
from symerge_dense.merging.operands import Operands, add_task_vectors
from symerge_dense.registry import MERGERS


@MERGERS.register_module()
class TaskArithmetic(Merger):
    """The base plus the scaled sum of task vectors. Scope: every kind of weight.

    Args:
        scale: any finite number; 0.3 is the published default for eight tasks, 1/T gives the average.
    """

    name: ClassVar[str] = "task_arithmetic"
    treats = ALL_KINDS
    elementwise = True
    exposes = True

    def __init__(self, scale: float = 0.3) -> None:
        self.scale = check_number(self.name, "scale", scale)

    def merge(self, operands: Operands) -> Tensor:
        return add_task_vectors(operands, self.scale)
