"""DARE: theta = theta_0 + scale * sum_t (m_t * tau_t) / (1 - p), m_t ~ Bernoulli(1 - p) per weight.

DARE-TIES: the dropped and rescaled task vectors are trimmed, elect a sign and merge disjointly, as in TIES.
Yu et al., Language models are super Mario, ICML 2024, https://arxiv.org/abs/2311.03099
"""

from __future__ import annotations

from typing import ClassVar

from symerge_dense.merging.arguments import check_choice, check_within
from symerge_dense.merging.combine import AGGREGATIONS, total
from symerge_dense.merging.methods._sparsified import Sparsified
from symerge_dense.merging.sparsify import RandomDrop, TopShare
from symerge_dense.registry import MERGERS


@MERGERS.register_module()
class Dare(Sparsified):
    """Drop at random, rescale, then task arithmetic. Scope: every kind of weight.

    The run's seed decides what is dropped: report several.

    Args:
        drop: p, the share of weights dropped, in [0, 1).
        scale: any finite number; 0.3 is that of task arithmetic.
    """

    name: ClassVar[str] = "dare"

    def __init__(self, drop: float = 0.5, scale: float = 0.3) -> None:
        self.drop = check_within(self.name, "drop", drop, "[0, 1)", "the share of weights dropped")
        super().__init__([RandomDrop(self.drop)], total, scale)


@MERGERS.register_module()
class DareTies(Sparsified):
    """Drop at random and rescale, then TIES. Scope: every kind of weight.

    Every pass over the weights draws the same masks.

    Args:
        drop: p, the share of weights dropped, in [0, 1).
        density: share of all weights that the trimming keeps, in (0, 1]. Dropped weights count: zeros are the first to
            go.
        scale: any finite number.
        aggregation: 'mean', 'sum' or 'max' of the weights with the elected sign, as in TIES.
    """

    name: ClassVar[str] = "dare_ties"

    def __init__(self, drop: float = 0.5, density: float = 0.2, scale: float = 0.5, aggregation: str = "sum") -> None:
        self.drop = check_within(self.name, "drop", drop, "[0, 1)", "the share of weights dropped")
        self.density = check_within(self.name, "density", density, "(0, 1]", "the share of weights kept per task")
        self.aggregation = check_choice(self.name, "aggregation", aggregation, AGGREGATIONS)
        super().__init__([RandomDrop(self.drop), TopShare(self.density)], AGGREGATIONS[aggregation], scale)
