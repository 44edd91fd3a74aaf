"""ACE-Merging: Delta = (sum_t W_t C_t) (sum_t C_t + 1 c^T)^-1, W_t the task vector less the mean of its rows and
C_t = w_t (W_t^T W_t + epsilon I), an estimate of the covariance of the layer's inputs.

c^T is the mean row of sum_t w_t W_t^T W_t, a structure that all tasks share. Matrices whose task vectors differ much in
size, Var_t(log ||tau_t||^2) > heterogeneity * Mean_t(log ||tau_t||^2)^2, have w_t = 1 / ||W_t||^2, else w_t = 1. For
them c is divided by the mean of ||tau_t||^2, and the mean of the k top singular values of F is added along the k top
singular directions of F = Delta + sum_t tau_t (w_t W_t^T W_t - mean_s C_s).

Xu et al., ACE-Merging: data-free model merging with adaptive covariance estimation, CVPR 2026,
https://arxiv.org/abs/2603.02945
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, variance
from typing import ClassVar

import torch
from torch import Tensor

from symerge_dense.merging.arguments import check_within
from symerge_dense.merging.combine import total
from symerge_dense.merging.methods._matrix import MatrixMerger, matrix_deltas, rounding
from symerge_dense.merging.operands import Operands
from symerge_dense.merging.spectral import NEGLIGIBLE, svd
from symerge_dense.registry import MERGERS

SMALLEST = 1e-12  # published: added to squared norms, before logarithms and divisions


@MERGERS.register_module()
class Ace(MatrixMerger):
    """Least squares on the experts' outputs, on input covariances that are read off the task vectors. No scale.

    Scope: matrices, and with ``conv='reshape'`` convolutions as (O, I * kh * kw); the mean of task vectors for all
    else.

    As published, neither the mean row of the task vectors nor a single expert comes back, and both tests and
    regularisation depend on the size of task vectors, not only on their directions. A matrix of one row has no
    covariance and gets the mean. Directions that are rounding beside a task vector are not lifted.

    Args:
        epsilon: added to every covariance before weighting; at least 1e-8; published: 0.01.
        heterogeneity: the limit above which task vectors differ much in size, at least 0; published: 0.3.
        share: k as a share of min(m, n), in [0, 1]; 0 never refines; published: 0.3.
        conv: 'reshape' for convolutions as matrices, 'mean' for the mean of their task vectors (most published code).
    """

    name: ClassVar[str] = "ace"

    def __init__(
        self, epsilon: float = 0.01, heterogeneity: float = 0.3, share: float = 0.3, conv: str = "reshape"
    ) -> None:
        self.epsilon = check_within(self.name, "epsilon", epsilon, "[1e-8, inf)", "the ridge of a covariance")
        self.heterogeneity = check_within(
            self.name, "heterogeneity", heterogeneity, "[0, inf)", "the limit for different sizes"
        )
        self.share = check_within(self.name, "share", share, "[0, 1]", "the share of directions refined")
        super().__init__(conv)

    def delta(self, operands: Operands) -> Tensor:
        deltas = [delta.double() for delta in matrix_deltas(operands)]
        pairs = [(delta, centred) for delta in deltas if _remains(centred := delta - delta.mean(0), delta)]
        if not pairs:
            return total(deltas) / len(deltas)
        norms = [float(delta.square().sum()) for delta, _ in pairs]
        differ = self._differ(norms)
        size = deltas[0].shape[1]
        energy, covariance = deltas[0].new_zeros(size, size), deltas[0].new_zeros(size, size)
        weighted, residual = torch.zeros_like(deltas[0]), torch.zeros_like(deltas[0])
        for delta, centred in pairs:
            weight = 1 / (float(centred.square().sum()) + SMALLEST) if differ else 1.0
            own = centred.T @ centred * weight
            energy += own
            covariance.diagonal().add_(weight * self.epsilon)
            weighted += centred @ own + weight * self.epsilon * centred
            residual += delta @ own
        covariance += energy
        prior = energy.mean(0) / (fmean(norms) if differ else 1.0)
        merged = torch.linalg.solve(covariance + prior, weighted, left=False)  # the prior in every row
        if not differ:
            return merged
        residual -= total(delta for delta, _ in pairs) @ covariance / len(pairs)
        return self._refined(merged, merged + residual, rounding(operands, len(operands.tasks)))

    def _differ(self, norms: Sequence[float]) -> bool:
        """Whether task vectors of these squared norms differ much in size."""
        logs = [math.log(norm + SMALLEST) for norm in norms]
        return len(logs) > 1 and variance(logs) > self.heterogeneity * (fmean(logs) ** 2 + SMALLEST)

    def _refined(self, merged: Tensor, fused: Tensor, floor: float) -> Tensor:
        """Delta with the top directions of F raised; those up to ``floor`` are none."""
        rank = int(self.share * min(fused.shape))
        if not rank:
            return merged
        left, values, right = svd(fused, rank, floor)
        return merged + values.sum() / rank * left @ right


def _remains(centred: Tensor, delta: Tensor) -> bool:
    """Whether a task vector is more than its mean row, and the rounding of it."""
    return bool(centred.norm() > NEGLIGIBLE * delta.norm())
