"""DARE: theta = theta_0 + scale * sum_t (m_t * tau_t) / (1 - p), m_t ~ Bernoulli(1 - p) per weight.

Yu et al., Language models are super Mario, ICML 2024, https://arxiv.org/abs/2311.03099
"""

from __future__ import annotations

from typing import ClassVar

from symerge_dense.merging.arguments import check_within
from symerge_dense.merging.combine import total
from symerge_dense.merging.sparsified import Sparsified
from symerge_dense.merging.sparsifiers import RandomDrop
from symerge_dense.registry import MERGERS


@MERGERS.register
class Dare(Sparsified):
    """Drop at random, rescale, then task arithmetic. Scope: every kind of weight.

    ``drop`` in [0, 1) is p. The run's seed decides what is dropped: report several.
    """

    name: ClassVar[str] = "dare"

    def __init__(self, drop: float = 0.5, scale: float = 0.3) -> None:
        self.drop = check_within(self.name, "drop", drop, "[0, 1)", "the share of weights dropped")
        super().__init__([RandomDrop(self.drop)], total, scale)
