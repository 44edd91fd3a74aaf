"""DC-Merge: Delta = P (M * B) Q, M = P^T (sum_t U_t S_t V_t) Q^T.

U_t, S_t and V_t hold the floor(r / T) top singular triplets of tau_t, S_t smoothed to its mean, r = min(m, n);
P = polar(U_1 ... U_T) and Q = polar(V_1; ...; V_T) are the shared bases; B is 1 where row and column of M belong to the
same task.

Zhang et al., DC-Merge: improving model merging with directional consistency, CVPR 2026,
https://arxiv.org/abs/2603.06242
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from symerge_dense.merging.arguments import check_choice, check_number
from symerge_dense.merging.combine import total
from symerge_dense.merging.methods._matrix import MatrixMerger, matrix_deltas, rounding
from symerge_dense.merging.operands import Operands
from symerge_dense.merging.spectral import SVD, as_matrix, polar, svd
from symerge_dense.registry import MERGERS

SMOOTHINGS = ("mean", "none")


@MERGERS.register_module()
class DCMerge(MatrixMerger):
    """The tasks' leading directions at equal strength, added up in a basis that they share.

    Scope: matrices, and with ``conv='reshape'`` convolutions as (O, I * kh * kw); the mean of task vectors for all
    else.

    Directions that are rounding of the stored weights are left out: a low-rank expert adds fewer than its share. As
    in ``tsv_m``, a matrix with fewer directions than tasks takes one of every task. In place of the sum, the authors'
    code keeps the largest thousandth of each task's share of M and merges these as TIES does.

    Args:
        scale: factor of Delta and of the mean; any finite number.
        smoothing: 'mean' sets the singular values of each task to their mean; 'none' leaves them, as published for full
            fine-tuning.
        conv: 'reshape' for convolutions as matrices, 'mean' for the mean of their task vectors (most published code).
    """

    name: ClassVar[str] = "dc_merge"

    def __init__(self, scale: float = 1.0, smoothing: str = "mean", conv: str = "reshape") -> None:
        self.scale = check_number(self.name, "scale", scale)
        self.smoothing = check_choice(self.name, "smoothing", smoothing, SMOOTHINGS)
        super().__init__(conv, self.scale)

    def delta(self, operands: Operands) -> Tensor:
        each = max(1, min(as_matrix(operands.base).shape) // len(operands.tasks))
        floor = rounding(operands)
        parts = [self._smoothed(svd(delta, each, floor)) for delta in matrix_deltas(operands)]
        left, right = (torch.cat([part.left for part in parts], 1), torch.cat([part.right for part in parts]))
        columns, rows = polar(left), polar(right)
        core = total(columns.T @ (part.left * part.values) @ (part.right @ rows.T) for part in parts)
        blocks = [torch.ones(len(part.values), len(part.values)).to(core) for part in parts]
        return columns @ (core * torch.block_diag(*blocks)) @ rows

    def _smoothed(self, part: SVD) -> SVD:
        return part._replace(values=part.values.mean().expand_as(part.values)) if self.smoothing == "mean" else part
