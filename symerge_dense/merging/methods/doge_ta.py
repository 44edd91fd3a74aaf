"""DOGE task arithmetic: theta = theta_0 + sum_t c_t (tau_t + delta) * M_t, c_t = norm / ||tau_t||_F, M_t the mask of
the largest |tau_t| over the whole model, and per matrix the delta orthogonal to a common column space U that minimises

    sum_j sum_rows <tau_j, tau_j - sum_i c_i (tau_i + delta)>^2     (a scalar product per row),

U the r / ``subspace`` top left singular vectors of the tasks' leading r / T ones side by side; r = min(m, n).

Wei et al., Modeling multi-task model merging as adaptive projective gradient descent, ICML 2025,
https://arxiv.org/abs/2501.01230
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor

from symerge_dense.merging.arguments import check_count, check_within
from symerge_dense.merging.methods._matrix import MatrixMerger, matrix_deltas
from symerge_dense.merging.operands import Operands
from symerge_dense.merging.order_statistics import Reading
from symerge_dense.merging.sparsify import TopShare
from symerge_dense.merging.spectral import as_matrix, svd
from symerge_dense.merging.tensor_specs import TensorSpec
from symerge_dense.registry import MERGERS


@MERGERS.register_module()
class DogeTA(MatrixMerger):
    """Task arithmetic of normalised task vectors, with a shared shift off their common column space.

    Scope: matrices, and with ``conv='reshape'`` convolutions as (O, I * kh * kw); the mean of task vectors for all
    else. Published code leaves all else at the base.

    Neither norm nor learning rate follows the size of the task vectors; the defaults were published for CLIP. Here the
    shift itself is orthogonal to U after every step. Published code projects gradients only, and Adam's scaling by
    element then leaves the complement. Statistics passes are those of ``TopShare``.

    Args:
        norm: Frobenius norm of every task's share of a matrix, above 0; published: 0.07.
        density: share of all matrix weights kept per task, in (0, 1]; published: 0.3.
        subspace: U has r / ``subspace`` directions; an integer of at least 1; published: 6.
        iterations: steps of Adam that fit the shift, at least 0; published: 400.
        learning_rate: that of Adam, above 0; published: 1e-4.
        conv: 'reshape' for convolutions as matrices, 'mean' for the mean of their task vectors (most published code).
    """

    name: ClassVar[str] = "doge_ta"

    def __init__(
        self,
        norm: float = 0.07,
        density: float = 0.3,
        subspace: int = 6,
        iterations: int = 400,
        learning_rate: float = 1e-4,
        conv: str = "reshape",
    ) -> None:
        self.norm = check_within(self.name, "norm", norm, "(0, inf)", "the norm of a task's share of a matrix")
        self.density = check_within(self.name, "density", density, "(0, 1]", "the share of weights kept per task")
        self.subspace = check_count(self.name, "subspace", subspace, 1, "1 / the share of common directions")
        self.iterations = check_count(self.name, "iterations", iterations, 0, "steps of Adam")
        self.learning_rate = check_within(self.name, "learning_rate", learning_rate, "(0, inf)", "that of Adam")
        self._top = TopShare(self.density)
        super().__init__(conv)
        self.passes = self._top.passes

    def begin(self, specs: list[TensorSpec], tasks: tuple[str, ...]) -> None:
        self._top.begin(tasks)

    def reads(self, number: int) -> Reading:
        return self._top.reads(number)

    def observe(self, number: int, operands: Operands) -> None:
        for task, delta in operands.deltas():
            self._top.observe(number, task, delta)

    def end_pass(self, number: int) -> None:
        self._top.end_pass(number)

    def delta(self, operands: Operands) -> Tensor:
        rows, columns = as_matrix(operands.base).shape
        deltas = operands.base.new_empty(rows, len(operands.tasks), columns)
        for index, delta in enumerate(matrix_deltas(operands)):
            deltas[:, index] = delta
        norms = deltas.norm(dim=(0, 2))
        shares = torch.where(norms > 0, self.norm / norms, 0.0)
        shift = self.shift(deltas, shares)
        merged = torch.zeros_like(shift)
        for task, delta, share in zip(operands.tasks, deltas.unbind(1), shares.tolist(), strict=True):
            merged += torch.where(self._top.mask(task, delta), delta + shift, 0.0).mul_(share)
        return merged

    def shift(self, deltas: Tensor, shares: Tensor) -> Tensor:
        """Fit the shift of one matrix, the delta of the formula.

        Args:
            deltas: task vectors (m, T, n).
            shares: their factors c_t, (T,).

        Returns:
            (m, n).
        """
        summed = torch.einsum("mtn,t->mn", deltas, shares)
        wanted = deltas.square().sum(2) - torch.bmm(deltas, summed[..., None])[..., 0]
        total = float(shares.sum())
        common = common_space(deltas.unbind(1), self.subspace).to(deltas.dtype)
        shift = torch.zeros_like(summed)
        optimizer = torch.optim.Adam([shift], self.learning_rate, fused=True)
        for _ in range(self.iterations):
            residual = wanted - total * torch.bmm(deltas, shift[..., None])[..., 0]
            shift.grad = torch.bmm((-2 * total * residual)[:, None], deltas)[:, 0]
            _remove(common, shift.grad)
            optimizer.step()
            _remove(common, shift)
        return shift


def common_space(deltas: Iterable[Tensor], subspace: int) -> Tensor:
    """The column directions that most task vectors share, float64.

    Args:
        deltas: task vectors (m, n) of one matrix.
        subspace: at most r / ``subspace`` directions are returned; r = min(m, n).

    Returns:
        Orthonormal columns (m, <= r / subspace).
    """
    matrices = list(deltas)
    rank = min(matrices[0].shape)
    leading = [svd(matrix, rank // len(matrices)).left for matrix in matrices]
    return svd(torch.cat(leading, 1), rank // subspace).left


def _remove(common: Tensor, matrix: Tensor) -> None:
    """Subtract from ``matrix`` its part in the column space of ``common``, in place."""
    matrix.addmm_(common, common.T @ matrix, alpha=-1)
