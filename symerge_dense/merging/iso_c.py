"""Iso-C: Delta = mean(S) * U V^T of the singular value decomposition sum_t tau_t = U diag(S) V^T.

Marczak et al., No task left behind: isotropic model merging with common and task-specific subspaces, ICML 2025,
https://arxiv.org/abs/2502.04959
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from symerge_dense.merging.base import check_number
from symerge_dense.merging.combine import total
from symerge_dense.merging.matrix_merger import MatrixMerger, matrix_deltas
from symerge_dense.merging.operands import Operands
from symerge_dense.merging.spectral import svd
from symerge_dense.registry import MERGERS


@MERGERS.register
class IsoC(MatrixMerger):
    """The sum of task vectors with its spectrum made flat. Scope: matrices, and with ``conv='reshape'`` convolutions
    as (O, I * kh * kw); the mean of task vectors for all else. ``scale`` multiplies both, as published.

    The paper tunes ``scale`` on labels (0.1 to 3; about 1.5 for eight tasks). The mean is over all min(m, n) singular
    values, but directions in which the sum of task vectors has nothing at all stay at zero.
    """

    name: ClassVar[str] = "iso_c"

    def __init__(self, scale: float = 1.0, conv: str = "reshape") -> None:
        self.scale = check_number(self.name, "scale", scale)
        super().__init__(conv, self.scale)

    def delta(self, operands: Operands) -> Tensor:
        left, values, right = svd(summed := total(matrix_deltas(operands)))
        return values.sum() / min(summed.shape) * left @ right
