"""ACTMat: Delta = (sum_t tau_t tau_t^T tau_t) (sum_t tau_t^T tau_t)^+, RegMean with tau_t^T tau_t for the inputs' Gram
matrix, which it resembles where fine-tuning moves the weights along the inputs.

Abdel Hameed et al., Model merging via data-free covariance estimation, 2026, https://arxiv.org/abs/2604.01329

Of all minimisers of sum_t ||(Delta - tau_t) tau_t^T||_F^2 it is the smallest. With the singular value decomposition
(U_1; ...; U_T) S V^T of all task vectors on top of each other it is sum_t tau_t tau_t^T U_t S^-1 V^T, which divides by
S once, where the formula divides by its square.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from symerge_dense.merging.combine import total
from symerge_dense.merging.methods._matrix import MatrixMerger, matrix_deltas, rounding
from symerge_dense.merging.operands import Operands
from symerge_dense.merging.spectral import svd
from symerge_dense.registry import MERGERS


@MERGERS.register_module()
class ActMat(MatrixMerger):
    """Least squares on the experts' outputs, on inputs that the task vectors themselves stand for. No scale.

    Scope: matrices, and with ``conv='reshape'`` convolutions as (O, I * kh * kw); the mean of task vectors for all
    else.

    This is the objective of WUDI without its norms, so larger task vectors count for more: their squared norm is their
    weight. Singular values of the stack that are rounding beside a task vector are left out. Where row spaces nearly
    coincide, the result can be many times larger than the task vectors, as ``wudi`` with ``iterations=None``.

    Args:
        conv: 'reshape' for convolutions as matrices, 'mean' for the mean of their task vectors (most published code).
    """

    name: ClassVar[str] = "actmat"
    alone_is_exact = True

    def __init__(self, conv: str = "reshape") -> None:
        super().__init__(conv)

    def delta(self, operands: Operands) -> Tensor:
        deltas = [delta.double() for delta in matrix_deltas(operands)]
        left, values, right = svd(torch.cat(deltas), floor=rounding(operands, len(operands.tasks)))
        parts = left.split(len(deltas[0]))
        return total(delta @ (delta.T @ part) for delta, part in zip(deltas, parts, strict=True)) / values @ right
