"""Model Stock: theta = t * mean_s theta_s + (1 - t) * theta_0 per tensor, t = T cos / (1 + (T - 1) cos), cos the mean
cosine between pairs of task vectors.

Jang et al., Model Stock, ECCV 2024, https://arxiv.org/abs/2403.19522
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import ClassVar

import torch
from torch import Tensor

from symerge_dense.merging.base import ALL_KINDS, Merger
from symerge_dense.merging.operands import Operands, add_task_vectors
from symerge_dense.registry import MERGERS


@MERGERS.register_module()
class ModelStock(Merger):
    """The average, pulled to the base the more the experts disagree; nothing to tune. Scope: every kind of weight.

    Cosines are averaged (some code averages angles), with all task vectors of a tensor in memory. A negative mean
    counts as 0, which gives the base, and so does the cosine with a task vector that is zero. Task vectors of different
    tasks tend to be orthogonal: expect little more than the base. One expert comes back as it is.
    """

    name: ClassVar[str] = "model_stock"
    treats = ALL_KINDS

    def merge(self, operands: Operands) -> Tensor:
        count = len(operands.tasks)
        cosine = max(0.0, mean_cosine([delta for _, delta in operands.deltas()]))
        return add_task_vectors(operands, cosine / (1 + (count - 1) * cosine))


def mean_cosine(vectors: Sequence[Tensor]) -> float:
    """Mean cosine between pairs of tensors, in [-1, 1]; 0 with a zero tensor, 1 for a single tensor.

    Args:
        vectors: tensors of one shape.
    """
    # Divided by the largest element before the norm, and by the norm before the product, so that no square overflows.
    units = [torch.nn.functional.normalize(_bounded(vector), dim=0) for vector in vectors]
    cosines = [float(first @ second) for first, second in combinations(units, 2)]
    return max(-1.0, min(1.0, sum(cosines) / len(cosines))) if cosines else 1.0


def _bounded(vector: Tensor) -> Tensor:
    flat = vector.reshape(-1)
    largest = flat.abs().max() if flat.numel() else 0.0
    return flat / largest if largest else flat
