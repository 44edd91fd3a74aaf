"""RegMean: W = (sum_t W_t G_t) (sum_t G_t)^-1, W_t (out, in), G_t the Gram matrix E[x x^T] of the layer's inputs: the
weights whose outputs are nearest to those of all experts in the least squares sense.

Jin et al., Dataless knowledge fusion by merging weights of language models, ICLR 2023,
https://arxiv.org/abs/2212.09849
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from symerge_dense.merging.arguments import check_within
from symerge_dense.merging.methods._matrix import MatrixMerger
from symerge_dense.merging.operands import Operands, add_task_vectors, extra_of, has_extra
from symerge_dense.merging.spectral import as_matrix
from symerge_dense.registry import MERGERS

ROUNDING = 8 * torch.finfo(torch.float32).eps  # share of a Gram matrix's trace


@MERGERS.register_module()
class RegMean(MatrixMerger):
    """Least squares on the experts' outputs.

    Scope: matrices, and with ``conv='reshape'`` convolutions as (O, I * kh * kw), where they have a Gram matrix; the
    mean of task vectors for all else. Solved in float64.

    Needs the extra 'gram': per expert, under the weight's name, a symmetric positive semidefinite (in, in), for a
    convolution (I * kh * kw, I * kh * kw) in the order of ``torch.nn.functional.unfold``, summed or averaged over
    samples in the same way for all experts. A weight that no expert has one for is averaged. Grouped convolutions
    should have none, as their groups see different inputs.

    Args:
        rho: factor of the off-diagonal of G, in [0, 1]; guards against chance correlations of few samples.
        ridge: share of the mean diagonal added to the diagonal of every G, in [1e-12, 1]; directions that no input
            reached get the mean.
        conv: 'reshape' for convolutions as matrices, 'mean' for the mean of their task vectors (most published code).
    """

    name: ClassVar[str] = "regmean"
    statistic: ClassVar[str] = "gram"
    needs = frozenset({statistic})
    alone_is_exact = True

    def __init__(self, rho: float = 0.95, ridge: float = 1e-6, conv: str = "reshape") -> None:
        self.rho = check_within(self.name, "rho", rho, "[0, 1]", "the factor of the off-diagonal")
        self.ridge = check_within(self.name, "ridge", ridge, "[1e-12, 1]", "the share of the mean diagonal added")
        super().__init__(conv)

    def merge(self, operands: Operands) -> Tensor:
        if has_extra(operands, self.statistic):
            return super().merge(operands)
        return add_task_vectors(operands, 1 / len(operands.tasks))

    def delta(self, operands: Operands) -> Tensor:
        gram, weighted, plain = self._sums(operands)
        tasks, size, trace = len(operands.tasks), len(gram), float(gram.trace())
        added = 0.0
        # of few samples a Gram matrix may hold more rounding than ridge: then that much is added
        for ridge in (self.ridge * trace / size / tasks or 1.0, ROUNDING * trace / tasks):  # 1: no input, the mean
            gram.diagonal().add_(tasks * (ridge - added))
            weighted.add_(plain, alpha=ridge - added)
            added = ridge
            factor, failed = torch.linalg.cholesky_ex(gram)
            if not bool(failed):
                return torch.cholesky_solve(weighted.T, factor).T
        raise ValueError(
            f"{self.name}: the Gram matrices of {operands.spec.name!r} are not positive semidefinite; "
            "collect them again, or use a larger ridge."
        )

    def _sums(self, operands: Operands) -> tuple[Tensor, Tensor, Tensor]:
        """sum_t G_t (n, n), sum_t tau_t G_t (m, n), and sum_t tau_t (m, n)."""
        size = as_matrix(operands.base).shape[1]
        gram = torch.zeros(size, size, dtype=torch.float64, device=operands.base.device)
        plain = torch.zeros_like(as_matrix(operands.base), dtype=torch.float64)
        weighted = torch.zeros_like(plain)
        for task, delta in operands.deltas():
            matrix, own = as_matrix(delta).double(), self._gram(operands, task, size)
            gram += own
            weighted += matrix @ own
            plain += matrix
            del own  # the largest thing here: one at a time
        return gram, weighted, plain

    def _gram(self, operands: Operands, task: str, size: int) -> Tensor:
        """G_t with its off-diagonal multiplied by ``rho``."""
        scaled = extra_of(operands, self.statistic, task, (size, size)).to(torch.float64, copy=True)
        diagonal = scaled.diagonal().clone()
        scaled.mul_(self.rho).diagonal().copy_(diagonal)
        return scaled
