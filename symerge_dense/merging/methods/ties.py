"""TIES: theta = theta_0 + scale * Delta; trim tau_t to its top share, elect gamma = sgn(sum_t tau_t), and per weight
Delta = mean {tau_t : sgn(tau_t) = gamma}.

Yadav et al., TIES-Merging, NeurIPS 2023, https://arxiv.org/abs/2306.01708
"""

from __future__ import annotations

from typing import ClassVar

from symerge_dense.merging.arguments import check_choice, check_within
from symerge_dense.merging.combine import AGGREGATIONS
from symerge_dense.merging.methods._sparsified import Sparsified
from symerge_dense.merging.sparsify import TopShare
from symerge_dense.registry import MERGERS


@MERGERS.register_module()
class Ties(Sparsified):
    """Trim, elect sign, disjoint merge. Scope: every kind of weight.

    Where the trimmed sum is exactly zero the positive sign is elected. Numbers of different code bases differ by the
    pair of aggregation and scale: state both.

    Args:
        density: share of ALL weights of a task vector that is kept (``TopShare``), exact over the whole vector, in (0,
            1]; the paper's 0.2.
        scale: any finite number; 1 with 'mean', 0.3 with 'sum' in some code.
        aggregation: what becomes of the weights with the elected sign: 'mean' (the paper), 'sum' or 'max'.

    >>> import torch
    >>> from symerge_dense.merging.run import merge_state
    >>> base = {"weight": torch.zeros(1, 4)}
    >>> depth, normals = torch.tensor([[4.0, 1.0, -3.0, 0.0]]), torch.tensor([[2.0, 0.0, 5.0, 1.0]])
    >>> merge_state(Ties(density=0.5), base, {"depth": {"weight": depth}, "normals": {"weight": normals}})
    {'weight': tensor([[3., 0., 5., 0.]])}
    """

    name: ClassVar[str] = "ties"
    exposes = True

    def __init__(self, density: float = 0.2, scale: float = 1.0, aggregation: str = "mean") -> None:
        self.density = check_within(self.name, "density", density, "(0, 1]", "the share of weights kept per task")
        self.aggregation = check_choice(self.name, "aggregation", aggregation, AGGREGATIONS)
        super().__init__([TopShare(self.density)], AGGREGATIONS[aggregation], scale)
