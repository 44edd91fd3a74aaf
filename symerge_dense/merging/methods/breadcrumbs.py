"""Model Breadcrumbs: theta = theta_0 + scale * sum_t M_t * tau_t; M_t keeps a band of magnitudes per tensor.

Davari and Belilovsky, Model Breadcrumbs, ECCV 2024, https://arxiv.org/abs/2312.06795
"""

from __future__ import annotations

from typing import ClassVar

from symerge_dense.merging.arguments import check_within
from symerge_dense.merging.combine import total
from symerge_dense.merging.methods._sparsified import Sparsified
from symerge_dense.merging.sparsify import MagnitudeBand
from symerge_dense.registry import MERGERS


@MERGERS.register_module()
class Breadcrumbs(Sparsified):
    """Without the outliers and without the noise of every task vector. Scope: every kind of weight.

    Granularity 'tensor', as in the paper: each tensor has its own band (the published code takes one per row of the
    last dimension, which leaves nothing of small convolution kernels). ``density`` in (0, 1], the code's beta, is the
    share of largest magnitudes and ``gamma`` in [0, density) the share of very largest ones that go as outliers, so
    that density - gamma of a tensor is kept.
    """

    name: ClassVar[str] = "breadcrumbs"

    def __init__(self, density: float = 0.15, gamma: float = 0.006, scale: float = 0.2) -> None:
        self.density = check_within(self.name, "density", density, "(0, 1]", "the share of largest magnitudes")
        self.gamma = check_within(
            self.name, "gamma", gamma, f"[0, {self.density})", "the share of outliers, part of density"
        )
        super().__init__([MagnitudeBand(self.density, self.gamma)], total, scale)
