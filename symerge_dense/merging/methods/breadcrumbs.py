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
    """The sum of task vectors without their outliers and their noise. Scope: every kind of weight.

    Each tensor has its own band of magnitudes, as in the paper. The published code takes one band per row of the last
    dimension, which leaves nothing of small convolution kernels. A share of density - gamma of a tensor is kept.

    Args:
        density: share of largest magnitudes, in (0, 1]: gamma + beta of the published code, which starts from 0.156.
        gamma: share of the very largest that go as outliers, in [0, density); the published code starts from 0.006.
        scale: any finite number; the published code starts from 0.2.
    """

    name: ClassVar[str] = "breadcrumbs"

    def __init__(self, density: float = 0.15, gamma: float = 0.006, scale: float = 0.2) -> None:
        self.density = check_within(self.name, "density", density, "(0, 1]", "the share of largest magnitudes")
        self.gamma = check_within(
            self.name, "gamma", gamma, f"[0, {self.density})", "the share of outliers, part of density"
        )
        super().__init__([MagnitudeBand(self.density, self.gamma)], total, scale)
