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

    ``density`` in (0, 1] is the share of ALL weights of a task vector that is kept (``TopShare``), exact over the
    whole vector. ``aggregation`` is what becomes of the weights with the elected sign: 'mean' (the paper), 'sum' (with
    scale 0.3 in some code) or 'max'. Where the trimmed sum is exactly zero the positive sign is elected. Numbers of
    different code bases differ by the pair of aggregation and scale: state both.
    """

    name: ClassVar[str] = "ties"
    exposes = True

    def __init__(self, density: float = 0.2, scale: float = 1.0, aggregation: str = "mean") -> None:
        self.density = check_within(self.name, "density", density, "(0, 1]", "the share of weights kept per task")
        self.aggregation = check_choice(self.name, "aggregation", aggregation, AGGREGATIONS)
        super().__init__([TopShare(self.density)], AGGREGATIONS[aggregation], scale)
