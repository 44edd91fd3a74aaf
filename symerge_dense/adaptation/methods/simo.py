"""SIMO's representation re-alignment: one low-rank correction after every block, shared by all tasks.

A block f of the frozen merged encoder gives f(x) + B A f(x); A and B, of rank 16, and the heads learn together.
https://arxiv.org/abs/2504.11268
"""

from __future__ import annotations

from typing import ClassVar

from symerge_dense.adaptation.low_rank import BlockAdapted
from symerge_dense.adaptation.method import AdaptationContext, AdaptiveMethod, initial_merge, probe_image
from symerge_dense.adaptation.student import Student, TrainedParts
from symerge_dense.merging.arguments import check_count, check_within
from symerge_dense.registry import ADAPTIVE_METHODS


@ADAPTIVE_METHODS.register_module()
class SimoRepresentation(AdaptiveMethod):
    """Adapters on top of the initial merge, with SyMerge's rounds, images, labels and balance.

    The paper learns from ground truth (AdamW, rates searched between 1e-8 and 1e-3, one-cycle); here the experts'
    labels take its place.

    Args:
        rank: of the adapters.
        lr: Adam's learning rate of the adapters.
        head_lr: Adam's learning rate of the heads.
    """

    name: ClassVar[str] = "simo_representation"
    title: ClassVar[str] = "SIMO, representation"
    paper: ClassVar[str] = "https://arxiv.org/abs/2504.11268"
    learns: ClassVar[str] = "a shared low-rank adapter per block, whole heads"

    def __init__(self, rank: int = 16, lr: float = 1e-3, head_lr: float = 1e-3) -> None:
        self.rank = check_count(self.name, "rank", rank, 1, "the width of an adapter")
        self.lr = check_within(self.name, "lr", lr, "(0, inf)", "a learning rate")
        self.head_lr = check_within(self.name, "head_lr", head_lr, "(0, inf)", "a learning rate")

    def student(self, context: AdaptationContext) -> Student:
        network = BlockAdapted(initial_merge(context), probe_image(context), self.rank, context.seed)
        rates = {"adapters": self.lr, "heads": self.head_lr}
        return TrainedParts(network, self.options(context), rates)

    def note(self, context: AdaptationContext) -> str:
        return "expert labels instead of ground truth; adapters are kept at inference"
