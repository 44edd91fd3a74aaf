"""Open question 1: does the gain hold over architectures: other convolutional networks, and transformers?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from symerge_dense.registry import STUDIES
from symerge_dense.studies.frame.intervals import every, exceeds, stays_below
from symerge_dense.studies.frame.laboratory import EXPERTS, Run
from symerge_dense.studies.frame.study import CHANGES, REACHED, Measured, Study, Verdict, difference

START = "task_arithmetic"
SIZE = (64, 96)  # of the study's images, for which transformers need to be made
NARROW_SWIN = {"window_size": 4, "embed_dim": 48, "depths": (2, 2, 2, 2), "num_heads": (2, 4, 8, 16)}
ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    "resnet18": {"name": "resnet18"},
    "convnext_atto": {"name": "convnext_atto"},
    "mobilenetv3_small": {"name": "mobilenetv3_small_100"},
    "efficientnet_lite0": {"name": "efficientnet_lite0"},
    "swin, narrow": {"name": "swin_tiny_patch4_window7_224", "img_size": SIZE, **NARROW_SWIN},
    "vit_tiny": {"name": "vit_tiny_patch16_224", "img_size": SIZE, "patch_size": 8, "depth": 8},
}
"""{label: arguments of ``TimmBackbone``}; the first is what the others are compared with."""


@STUDIES.register_module()
class Architectures(Study):
    """Merges experts of one architecture after the other. All have the same heads, recipes, images and options.

    Base and experts of every architecture are trained from random weights. Delta_m is against experts of the same
    architecture, so that a weak one has no part in it; what each expert reaches is in the table.

    Args:
        architectures: {label: arguments of ``TimmBackbone``}.
        margin: points of Delta_m by which SyMerge must beat task arithmetic.
        loss: points of Delta_m that SyMerge may lose against the first architecture.
    """

    name: ClassVar[str] = "architectures"
    title: ClassVar[str] = "Other architectures"
    claim: ClassVar[str] = "SyMerge gains over task arithmetic, and keeps its experts' quality, on any architecture."
    question: ClassVar[str] = "How large are the gain and what is lost against the experts, for each architecture?"
    paper: ClassVar[str | None] = "ViT, and ResNet-50 on dense tasks; other architectures are an open question"
    rule: ClassVar[str] = (
        "confirmed if, for every architecture, the 95 % interval over seeds of (SyMerge - tuned task arithmetic) in "
        "Delta_m lies above the margin (0), and that of (SyMerge on the first architecture - on this one) below `loss` "
        "(10 points); refuted if one lies on the other side; else inconclusive."
    )
    would_change: ClassVar[str] = (
        "pretrained weights, from which transformers move less; a recipe for each architecture; longer training."
    )
    keys: ClassVar[tuple[str, ...]] = ("architecture",)
    shown: ClassVar[tuple[str, ...]] = (*CHANGES, *REACHED)

    def __init__(
        self,
        architectures: Mapping[str, Mapping[str, Any]] = ARCHITECTURES,
        margin: float = 0.0,
        loss: float = 10.0,
    ) -> None:
        self.architectures = {label: dict(backbone) for label, backbone in architectures.items()}
        self.margin, self.loss = margin, loss

    def grid(self, tasks: Sequence[str]) -> list[Run]:
        return [
            {
                "label": f"{method}, {label}",
                "method": method,
                "architecture": label,
                "config": {f"backbone.{key}": value for key, value in backbone.items()},
            }
            for label, backbone in self.architectures.items()
            for method in (EXPERTS, "symerge", START)
        ]

    def verdict(self, measured: Sequence[Measured]) -> Verdict:
        first, *others = self.architectures
        gained = {
            f"symerge - task arithmetic, {label}": difference(measured, f"symerge, {label}", f"{START}, {label}")
            for label in self.architectures
        }
        lost = {
            f"symerge, {first} - {label}": difference(measured, f"symerge, {first}", f"symerge, {label}")
            for label in others
        }
        weakest = min(gained, key=lambda what: gained[what].mean)
        outcome = every(
            [
                *(exceeds(one, self.margin) for one in gained.values()),
                *(stays_below(one, self.loss) for one in lost.values()),
            ]
        )
        reason = f"The smallest gain: {weakest}, {gained[weakest]} points of Delta_m."
        if lost:
            worst = max(lost, key=lambda what: lost[what].mean)
            reason += f" The largest loss against {first}: {worst.removeprefix('symerge, ')}, {lost[worst]} points."
        return Verdict(outcome, reason, {**gained, **lost})
