"""The family of methods that treat a weight as a matrix, with a row space and a column space.

| method   | data | Delta of a matrix                                                             |
|----------|------|-------------------------------------------------------------------------------|
| iso_c    | -    | the sum of task vectors with all singular values equal                        |
| iso_cts  | -    | the same of common directions and of those each task adds                     |
| tsv_m    | -    | the top singular triplets of every task, decorrelated                         |
| wudi     | -    | little interference with any task vector on its own row space                 |
| actmat   | -    | least squares on task vectors in place of inputs                              |
| ace      | -    | the same on covariances of task vectors, normalised and with a common prior   |
| cart     | -    | the mean and the leading directions in which each expert differs from it      |
| dc_merge | -    | leading directions at equal strength, added up in a shared basis              |
| doge_ta  | -    | the sum of normalised task vectors and a shift off their common column space  |
| regmean  | gram | least squares on the experts' outputs                                         |
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from symerge_dense.merging.arguments import check_choice
from symerge_dense.merging.base import Merger
from symerge_dense.merging.operands import Operands, add_task_vectors
from symerge_dense.merging.spectral import NEGLIGIBLE, as_matrix, largest_singular_value
from symerge_dense.merging.tensor_specs import WEIGHT_KINDS, Kind

CONV_RULES = ("reshape", "mean")
STORED = 0.4  # of eps times a number is above its rounding error, whose root mean square is 0.22 of that


class MatrixMerger(Merger):
    """theta_0 + scale * Delta of a matrix; every other weight gets theta_0 + scale * mean_t tau_t.

    Matrices are the weights of linear layers and, where ``conv`` is 'reshape', of convolutions as (O, I * kh * kw).
    Published code knows two-dimensional tensors only and silently averages convolutions, which on a ResNet is weight
    averaging; ``conv='mean'`` gives that.

    Args:
        conv: 'reshape' or 'mean'.
        scale: factor of Delta and of the mean.

    Attributes:
        alone_is_exact: Delta of a single task vector is that task vector, so a single expert comes back without
            rounding.
    """

    alone_is_exact: ClassVar[bool] = False

    def __init__(self, conv: str, scale: float = 1.0) -> None:
        self.conv = check_choice(self.name, "conv", conv, CONV_RULES)
        self._factor = scale
        self._matrices: frozenset[Kind] = frozenset({"matrix", "conv"} if conv == "reshape" else {"matrix"})
        self.treats = {kind: "method" if kind in self._matrices or scale != 1.0 else "mean" for kind in WEIGHT_KINDS}

    @abstractmethod
    def delta(self, operands: Operands) -> Tensor:
        """Delta of a matrix.

        Args:
            operands: base and experts of the weight.

        Returns:
            (m, n), of any floating data type; zero where all task vectors are.
        """

    def merge(self, operands: Operands) -> Tensor:
        base = operands.base
        alone = self.alone_is_exact and len(operands.tasks) == 1
        if alone or operands.spec.kind not in self._matrices or base.numel() == 0:
            return add_task_vectors(operands, self._factor / len(operands.tasks))
        return torch.add(base, self.delta(operands).to(base.dtype).reshape(base.shape), alpha=self._factor)


def matrix_deltas(operands: Operands) -> Iterator[Tensor]:
    """The task vectors of one weight as matrices (m, n), one at a time.

    Args:
        operands: base and experts of the weight.
    """
    for _, delta in operands.deltas():
        yield as_matrix(delta)


def rounding(operands: Operands, summed: int = 1) -> float:
    """Singular values up to this one are rounding of the task vectors that a matrix was made of.

    A stored expert is off by a share of eps of its data type, which beside a small update is not small. Independent
    errors of root mean square e have singular values up to e (sqrt(m) + sqrt(n)). An error is no larger than the
    task vector, so that something is left of one that is mostly rounding.

    Args:
        operands: base and experts of the weight.
        summed: number of task vectors whose errors add up in the matrix.
    """
    epsilon, base, peak, error = torch.finfo(operands.spec.dtype).eps, _norm(operands.base), 0.0, 0.0
    for delta in matrix_deltas(operands):
        own = _norm(delta)
        peak = max(peak, largest_singular_value(delta))
        error = max(error, min(epsilon * math.hypot(base, own), own))
    rows, columns = as_matrix(operands.base).shape
    edge = (math.sqrt(rows) + math.sqrt(columns)) / math.sqrt(rows * columns)  # of singular values, for a norm of 1
    return max(NEGLIGIBLE * peak, STORED * error * edge * math.sqrt(summed))


def _norm(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64))
