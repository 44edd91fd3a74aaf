"""Every weight of backbone and heads learns the experts' labels, from the initial merge on: an upper bound.

This is no merging method. It shows what distillation reaches when nothing is frozen; knowledge distillation is Hinton
et al. 2015, https://arxiv.org/abs/1503.02531.
"""

from __future__ import annotations

from typing import ClassVar

from symerge_dense.adaptation.method import AdaptationContext, AdaptiveMethod, initial_merge
from symerge_dense.adaptation.student import Student, TrainedParts
from symerge_dense.merging.arguments import check_within
from symerge_dense.registry import ADAPTIVE_METHODS


@ADAPTIVE_METHODS.register_module()
class FullDistillation(AdaptiveMethod):
    """Backbone and heads learn, with SyMerge's rounds, images, labels and balance.

    Predictors learn too, and no normalisation follows them, so ``head_lr`` is lower than an adapted layer's rate.

    Args:
        backbone_lr: Adam's learning rate of the backbone.
        head_lr: Adam's learning rate of the heads.
    """

    name: ClassVar[str] = "full_distillation"
    title: ClassVar[str] = "full distillation"
    paper: ClassVar[str] = "https://arxiv.org/abs/1503.02531"
    learns: ClassVar[str] = "all weights"

    def __init__(self, backbone_lr: float = 3e-4, head_lr: float = 1e-3) -> None:
        self.backbone_lr = check_within(self.name, "backbone_lr", backbone_lr, "(0, inf)", "a learning rate")
        self.head_lr = check_within(self.name, "head_lr", head_lr, "(0, inf)", "a learning rate")

    def student(self, context: AdaptationContext) -> Student:
        rates = {"backbone": self.backbone_lr, "heads": self.head_lr}
        return TrainedParts(initial_merge(context), self.options(context), rates)

    def note(self, context: AdaptationContext) -> str:
        return "upper bound, not a merge"
