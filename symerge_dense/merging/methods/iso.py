"""Isotropic merging. Iso-C: Delta = mean(S) * U V^T of the singular value decomposition sum_t tau_t = U diag(S) V^T.

Iso-CTS: Delta = mean(S) * polar(U) polar(V)^T, where U, S and V hold the k_c top singular triplets (U_c, S_c, V_c) of
sum_t tau_t and, of every task, the (r - k_c) / T top ones of tau_t - U_c U_c^T tau_t; r = min(m, n).

Marczak et al., No task left behind: isotropic model merging with common and task-specific subspaces, ICML 2025,
https://arxiv.org/abs/2502.04959
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from symerge_dense.merging.arguments import check_number, check_within
from symerge_dense.merging.combine import total
from symerge_dense.merging.methods._matrix import MatrixMerger, matrix_deltas, rounding
from symerge_dense.merging.operands import Operands
from symerge_dense.merging.spectral import polar, svd
from symerge_dense.registry import MERGERS


@MERGERS.register_module()
class IsoC(MatrixMerger):
    """The sum of task vectors with its spectrum made flat.

    Scope: matrices, and with ``conv='reshape'`` convolutions as (O, I * kh * kw); the mean of task vectors for all
    else.

    The mean of S is over all min(m, n) singular values, but directions in which the sum of task vectors is zero, or
    rounding of the stored weights, stay zero.

    Args:
        scale: factor of Delta and of the mean, as published; any finite number. The paper tunes it on labels (0.1 to 3;
            about 1.5 for eight tasks).
        conv: 'reshape' for convolutions as matrices, 'mean' for the mean of their task vectors (most published code).
    """

    name: ClassVar[str] = "iso_c"

    def __init__(self, scale: float = 1.0, conv: str = "reshape") -> None:
        self.scale = check_number(self.name, "scale", scale)
        super().__init__(conv, self.scale)

    def delta(self, operands: Operands) -> Tensor:
        floor = rounding(operands, len(operands.tasks))
        left, values, right = svd(summed := total(matrix_deltas(operands)), floor=floor)
        return values.sum() / min(summed.shape) * left @ right


@MERGERS.register_module()
class IsoCTS(MatrixMerger):
    """Common directions and those that each task adds, with a flat spectrum.

    Scope: matrices, and with ``conv='reshape'`` convolutions as (O, I * kh * kw); the mean of task vectors for all
    else.

    The mean of S is over all r, though directions that are rounding of the stored weights stay at zero: low-rank
    experts may add none to the common ones. With fewer directions than tasks there may be none for the tasks to add,
    which leaves Iso-C.

    Args:
        scale: factor of Delta and of the mean, as published; any finite number. The paper tunes it on labels.
        common: share of directions taken from the sum, in [0, 1]; published: 0.8. Rounded so that the rest divides
            among the tasks.
        conv: 'reshape' for convolutions as matrices, 'mean' for the mean of their task vectors (most published code).
    """

    name: ClassVar[str] = "iso_cts"

    def __init__(self, scale: float = 1.0, common: float = 0.8, conv: str = "reshape") -> None:
        self.scale = check_number(self.name, "scale", scale)
        self.common = check_within(self.name, "common", common, "[0, 1]", "the share of common directions")
        super().__init__(conv, self.scale)

    def delta(self, operands: Operands) -> Tensor:
        summed = total(matrix_deltas(operands))
        rank, tasks = min(summed.shape), len(operands.tasks)
        own, floor = own_directions(rank, tasks, self.common), rounding(operands)
        parts = [svd(summed, rank - own * tasks, rounding(operands, tasks))]
        common = parts[0].left
        for delta in matrix_deltas(operands) if own else ():
            wide = delta.double()
            wide -= common @ (common.T @ wide)
            parts.append(svd(wide, own, floor))
        left, values, right = (list(group) for group in zip(*parts, strict=True))
        return torch.cat(values).sum() / rank * polar(torch.cat(left, 1)) @ polar(torch.cat(right))


def own_directions(rank: int, tasks: int, common: float) -> int:
    """How many directions each task adds: its part of those beyond ``common`` * ``rank``, rounded, as far as they go.

    Args:
        rank: directions of the matrix, min(m, n).
        tasks: number of tasks.
        common: share of common directions, in [0, 1].
    """
    return min(round((rank - int(rank * common)) / tasks), rank // tasks)
