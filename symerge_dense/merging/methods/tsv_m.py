"""TSV-Merge: Delta = polar(U) diag(S) polar(V)^T, where U, S and V hold the floor(r / T) top singular triplets of
every tau_t side by side; r = min(m, n).

Gargiulo et al., Task singular vectors: reducing task interference in model merging, CVPR 2025,
https://arxiv.org/abs/2412.00081
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from symerge_dense.merging.arguments import check_number
from symerge_dense.merging.methods._matrix import MatrixMerger, matrix_deltas, rounding
from symerge_dense.merging.operands import Operands
from symerge_dense.merging.spectral import as_matrix, polar, svd
from symerge_dense.registry import MERGERS


@MERGERS.register_module()
class TsvM(MatrixMerger):
    """The tasks' leading singular vectors, decorrelated.

    Scope: matrices, and with ``conv='reshape'`` convolutions as (O, I * kh * kw); the mean of task vectors for all
    else.

    A matrix with fewer directions than tasks takes one of every task; the formula would take none and drop what the
    experts learned. The tasks then share the directions there are, and a single number becomes the experts' mean.

    Args:
        scale: factor of Delta and of the mean, as published; any finite number. 1, the default, gives one expert back.
        conv: 'reshape' for convolutions as matrices, 'mean' for the mean of their task vectors (most published code).
    """

    name: ClassVar[str] = "tsv_m"
    alone_is_exact = True

    def __init__(self, scale: float = 1.0, conv: str = "reshape") -> None:
        self.scale = check_number(self.name, "scale", scale)
        super().__init__(conv, self.scale)

    def delta(self, operands: Operands) -> Tensor:
        each = max(1, min(as_matrix(operands.base).shape) // len(operands.tasks))
        floor = rounding(operands)
        parts = [svd(delta, each, floor) for delta in matrix_deltas(operands)]
        left, values, right = (list(group) for group in zip(*parts, strict=True))
        return polar(torch.cat(left, 1)) * torch.cat(values) @ polar(torch.cat(right))
