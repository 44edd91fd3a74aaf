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
from symerge_dense.merging.methods._matrix import MatrixMerger, matrix_deltas
from symerge_dense.merging.operands import Operands
from symerge_dense.merging.spectral import polar, svd
from symerge_dense.registry import MERGERS


@MERGERS.register_module()
class TsvM(MatrixMerger):
    """The tasks' leading singular vectors, decorrelated. Scope: matrices, and with ``conv='reshape'`` convolutions as
    (O, I * kh * kw); the mean of task vectors for all else. ``scale`` multiplies both, as published; 1 is its default
    and gives one expert back.

    A matrix with fewer directions than tasks takes one of every task, where the formula would take none and drop what
    the experts learned: then they share what room there is, and a single number becomes the experts' mean.
    """

    name: ClassVar[str] = "tsv_m"
    alone_is_exact = True

    def __init__(self, scale: float = 1.0, conv: str = "reshape") -> None:
        self.scale = check_number(self.name, "scale", scale)
        super().__init__(conv, self.scale)

    def delta(self, operands: Operands) -> Tensor:
        each = max(1, min(operands.base.flatten(1).shape) // len(operands.tasks))
        parts = [svd(delta, each) for delta in matrix_deltas(operands)]
        left, values, right = (list(group) for group in zip(*parts, strict=True))
        return polar(torch.cat(left, 1)) * torch.cat(values) @ polar(torch.cat(right))
