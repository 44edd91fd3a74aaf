"""WUDI: the Delta that minimises sum_t ||(Delta - tau_t) tau_t^T||_F^2 / ||tau_t||_F^2, sought from sum_t tau_t.

Cheng et al., Whoever started the interference should end it: guiding data-free model merging via task vectors,
ICML 2025, https://arxiv.org/abs/2503.08099

The objective is quadratic, so gradient descent has a closed form. With t_t = tau_t / ||tau_t||, H = sum_t t_t^T t_t,
D_0 = sum_t tau_t and the negative gradient C = sum_t (tau_t - D_0) t_t^T t_t (halved), k steps of size 1 / lambda_max
lead to D_0 + C g(H), g(x) = (1 - (1 - x / lambda_max)^k) / x. Where the stacked rows B of all t_t are fewer than the
columns, C = R B and C g(H) = R g(B B^T) B, so the smaller of the two Gram matrices serves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from symerge_dense.merging.arguments import check_count
from symerge_dense.merging.combine import total
from symerge_dense.merging.methods._matrix import MatrixMerger, matrix_deltas
from symerge_dense.merging.operands import Operands
from symerge_dense.registry import MERGERS

NEGLIGIBLE = 1e-10  # of the largest eigenvalue: below it the exact minimiser is undetermined


@MERGERS.register_module()
class Wudi(MatrixMerger):
    """The least interference with every task vector on its row space. No scale.

    Scope: matrices, and with ``conv='reshape'`` convolutions as (O, I * kh * kw); the mean of task vectors for all
    else. Some of the authors' code leaves all else, and matrices outside attention and MLP, at the base.

    Each step of plain gradient descent has the largest size that never overshoots, so nothing depends on the size of
    task vectors. Directions that no task vector has keep sum_t tau_t, and weakly determined ones nearly do, the more so
    the fewer the iterations. That matters, because the exact minimiser can be many times larger than the task vectors
    where their row spaces nearly coincide. The published 300 steps of Adam have a learning rate (1e-5) that fits task
    vectors of one size only; there, 3000 plain steps come as far.

    Args:
        iterations: steps of gradient descent, at least 1; None for the exact minimiser.
        conv: 'reshape' for convolutions as matrices, 'mean' for the mean of their task vectors (most published code).
    """

    name: ClassVar[str] = "wudi"
    alone_is_exact = True

    def __init__(self, iterations: int | None = 3000, conv: str = "reshape") -> None:
        self.iterations = iterations
        if iterations is not None:
            check_count(self.name, "iterations", iterations, 1, "steps of gradient descent, or None for its limit")
        super().__init__(conv)

    def delta(self, operands: Operands) -> Tensor:
        deltas = [delta for delta in matrix_deltas(operands) if bool(delta.any())]
        if not deltas:
            return torch.zeros_like(operands.base)
        rows, columns = deltas[0].shape
        start = total(deltas).double()
        move = self._by_rows if rows * len(deltas) < columns else self._by_columns
        return start + move(start, deltas)

    def _by_rows(self, start: Tensor, deltas: Sequence[Tensor]) -> Tensor:
        """R g(B B^T) B, B (T * m, n)."""
        products = [torch.cat([_unit(one) @ _unit(other).T for other in deltas], 1) for one in deltas]
        residual = torch.cat([(delta - start) @ _unit(delta).T for delta in deltas], 1)
        shares = (residual @ self._response(torch.cat(products))).split(len(start), 1)
        return total(share @ _unit(delta) for share, delta in zip(shares, deltas, strict=True))

    def _by_columns(self, start: Tensor, deltas: Sequence[Tensor]) -> Tensor:
        """C g(H), H (n, n)."""
        gram = torch.zeros(start.shape[1], start.shape[1], dtype=start.dtype, device=start.device)
        descent = torch.zeros_like(start)
        for delta in deltas:
            own = _unit(delta).T @ _unit(delta)
            gram += own
            descent += (delta - start) @ own
        return descent @ self._response(gram)

    def _response(self, gram: Tensor) -> Tensor:
        """g of a Gram matrix; its pseudo-inverse without a limit of iterations."""
        eigenvalues, vectors = torch.linalg.eigh(gram)
        largest = eigenvalues[-1]
        kept = eigenvalues > NEGLIGIBLE * largest
        eigenvalues, vectors = eigenvalues[kept], vectors[:, kept]
        done = torch.ones_like(eigenvalues)
        if self.iterations is not None:  # 1 - (1 - x)^k, exact for small x
            done = -torch.expm1(self.iterations * torch.log1p(-(eigenvalues / largest).clamp(max=1.0)))
        return vectors * (done / eigenvalues) @ vectors.T


def _unit(delta: Tensor) -> Tensor:
    """t_t, float64."""
    wide = delta.to(torch.float64, copy=True)
    return wide.div_(wide.norm())
