"""Weight averaging: theta = 1/T sum_t theta_t.

Wortsman et al., Model soups, ICML 2022, https://arxiv.org/abs/2203.05482
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from symerge_dense.merging.base import ALL_KINDS, Merger
from symerge_dense.merging.operands import Operands, add_task_vectors
from symerge_dense.registry import MERGERS


@MERGERS.register_module()
class Average(Merger):
    """The experts' mean. Scope: every kind of weight.

    Written theta_0 + 1/T sum_t tau_t, so that what no expert changed stays exactly as it was.
    """

    name: ClassVar[str] = "average"
    treats = ALL_KINDS
    elementwise = True
    exposes = True

    def merge(self, operands: Operands) -> Tensor:
        return add_task_vectors(operands, 1 / len(operands.tasks))
