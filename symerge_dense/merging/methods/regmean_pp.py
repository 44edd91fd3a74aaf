"""RegMean++: RegMean, whose Gram matrices are those of the inputs that a layer has behind the merged layers before it.

Nguyen et al., RegMean++: enhancing effectiveness and generalization of regression mean for model merging, TMLR 2026,
https://arxiv.org/abs/2508.03121
"""

from __future__ import annotations

from typing import ClassVar

from symerge_dense.merging.methods.regmean import RegMean
from symerge_dense.registry import MERGERS


@MERGERS.register_module()
class RegMeanPP(RegMean):
    """Least squares on the experts' outputs, on features of the merged network.

    Scope and arguments are those of RegMean. The extra is 'merged_gram', which ``experts.statistics.merged_grams``
    collects block after block: each expert's block runs on what the merged blocks before it put out, then the block is
    merged. That takes images, and this method's own merge of every block; weights in files alone are not enough, and
    ``symerge compare`` runs it.

    Args:
        rho: factor of the off-diagonal of G, in [0, 1]; published: 0.95.
        ridge: share of the mean diagonal added to the diagonal of every G, in [1e-12, 1]; directions that no input
            reached get the mean.
        conv: 'reshape' for convolutions as matrices, 'mean' for the mean of their task vectors (most published code).
    """

    name: ClassVar[str] = "regmean_pp"
    statistic: ClassVar[str] = "merged_gram"
    needs = frozenset({statistic})
