"""CART: theta = mean + scale * sum_t SVD_k(theta_t - mean), where SVD_k keeps the k top singular triplets.

Choi et al., Revisiting weight averaging for model merging, 2024, https://arxiv.org/abs/2412.12153
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from symerge_dense.merging.arguments import check_number, check_within
from symerge_dense.merging.combine import total
from symerge_dense.merging.methods._matrix import MatrixMerger, matrix_deltas, rounding
from symerge_dense.merging.operands import Operands
from symerge_dense.merging.spectral import svd
from symerge_dense.registry import MERGERS


@MERGERS.register_module()
class Cart(MatrixMerger):
    """The mean of the experts, and the leading directions in which each of them differs from it.

    Scope: matrices, and with ``conv='reshape'`` convolutions as (O, I * kh * kw); the mean of task vectors for all
    else, which is the formula's with all directions, as the differences from the mean cancel. For the same reason the
    mean is left of two experts, whose differences are opposite. The authors' code treats the matrices of attention and
    MLP only.

    Args:
        scale: factor of the summed differences, as published; any finite number. The paper tunes it on labels (2 for
            eight tasks).
        share: k as a share of min(m, n), in (0, 1], at least one direction; published: 0.12 for eight tasks. At 1 the
            sum is zero, and the mean is left.
        conv: 'reshape' for convolutions as matrices, 'mean' for the mean of their task vectors (most published code).
    """

    name: ClassVar[str] = "cart"
    alone_is_exact = True

    def __init__(self, scale: float = 2.0, share: float = 0.12, conv: str = "reshape") -> None:
        self.scale = check_number(self.name, "scale", scale)
        self.share = check_within(self.name, "share", share, "(0, 1]", "the share of directions kept")
        super().__init__(conv)

    def delta(self, operands: Operands) -> Tensor:
        mean = total(delta.double() for delta in matrix_deltas(operands)) / len(operands.tasks)
        rank, floor = max(1, int(self.share * min(mean.shape))), rounding(operands)
        parts = (svd(delta.double() - mean, rank, floor) for delta in matrix_deltas(operands))
        return mean + self.scale * total(left * values @ right for left, values, right in parts)
