"""MagMax: theta = theta_0 + scale * Delta; per weight Delta = tau_s, s = argmax_t |tau_t|.

Marczak et al., MagMax, ECCV 2024, https://arxiv.org/abs/2407.06322
"""

from __future__ import annotations

from typing import ClassVar

from symerge_dense.merging.combine import largest
from symerge_dense.merging.methods._sparsified import Sparsified
from symerge_dense.registry import MERGERS


@MERGERS.register_module()
class MagMax(Sparsified):
    """Per weight the largest change any expert made. Scope: every kind of weight.

    Of equal magnitudes with different signs, that of the last task by name wins. The paper's best results are for
    experts fine-tuned one after the other; independent experts, as here, score lower.

    Args:
        scale: any finite number; 0.5 is that of the authors' script for eight data sets.
    """

    name: ClassVar[str] = "magmax"

    def __init__(self, scale: float = 0.5) -> None:
        super().__init__([], largest, scale)
