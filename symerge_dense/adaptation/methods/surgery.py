"""Representation Surgery: low-rank corrections that bring the merged encoder's features back to each expert's.

z' = z - up(relu(down z)), per task; minimise ||z' - z_expert||_1 over down and up; all else is frozen.
Yang et al., ICML 2024, https://arxiv.org/abs/2402.02705
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from symerge_dense.adaptation.low_rank import TaskAdapted
from symerge_dense.adaptation.method import FROM_EXPERTS, AdaptationContext, AdaptiveMethod, initial_merge, probe_image
from symerge_dense.adaptation.objective import own_images
from symerge_dense.adaptation.options import SyMergeOptions
from symerge_dense.adaptation.student import Student, TrainedParts
from symerge_dense.merging.arguments import check_count, check_within
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.registry import ADAPTIVE_METHODS


class SurgeryStudent(TrainedParts):
    """Adapters learn the experts' features; the heads are not used.

    Args:
        model: the merged network with adapters.
        options: of the adaptation.
        rates: {submodule of ``model``: learning rate}.
    """

    model: TaskAdapted

    def __init__(self, model: TaskAdapted, options: SyMergeOptions, rates: Mapping[str, float]) -> None:
        super().__init__(model, options, rates)
        self.teachers: dict[str, MultiTaskModel] = {}

    def attach(self, experts: Mapping[str, MultiTaskModel]) -> None:
        super().attach(experts)
        # kept: every step needs the experts' features
        self.teachers = {task: experts[task].to(self.device) for task in self.model.tasks}

    def distances(self, image: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean absolute difference of a task's features from its expert's, averaged over the levels its head reads.

        Args:
            image: (N,3,H,W) in 0..255.
            batch: only ``valid_<task>`` is used, which images the task's expert labels.
        """
        own = own_images(batch, self.active)
        with torch.no_grad():
            features = self.model.features(image)
            wanted = {task: self.teachers[task].features(image) for task in self.active}
        return {task: self._distance_of(task, features, wanted[task], own.get(task)) for task in self.active}

    def _distance_of(self, task: str, features: list[Tensor], wanted: list[Tensor], own: Tensor | None) -> Tensor:
        seen, levels = self.model.task_features(task, features), self.model.levels(task)
        return mean_distance([seen[level] for level in levels], [wanted[level] for level in levels], own)


def mean_distance(seen: Sequence[Tensor], wanted: Sequence[Tensor], own: Tensor | None) -> Tensor:
    """Mean absolute difference of features, averaged over their levels; zero with a gradient where no image counts.

    Args:
        seen: features of the model, each (N,...).
        wanted: those of the expert.
        own: bool (N,), the images that count; None counts all.
    """
    if own is not None and not own.any():
        return 0 * torch.stack([level.float().sum() for level in seen]).sum()
    if own is not None:
        seen, wanted = [level[own] for level in seen], [level[own] for level in wanted]
    return torch.stack([(s.float() - w.float()).abs().mean() for s, w in zip(seen, wanted, strict=True)]).mean()


@ADAPTIVE_METHODS.register_module()
class Surgery(AdaptiveMethod):
    """Adapters on top of the initial merge, which is frozen; they are kept at inference, behind one encoder pass.

    The paper corrects the one vector before a classifier; here every feature level that a task's head reads has an
    adapter of 1x1 convolutions. In every step the experts see the same images as the merged encoder, without
    augmentation. Rank 16 and Adam at 1e-3 without decay are the paper's.

    Args:
        rank: of the adapters.
        lr: Adam's learning rate.
    """

    name: ClassVar[str] = "surgery"
    title: ClassVar[str] = "Representation Surgery"
    paper: ClassVar[str] = "https://arxiv.org/abs/2402.02705"
    learns: ClassVar[str] = "a low-rank adapter per task and feature level"
    changes: ClassVar[Mapping[str, Any]] = FROM_EXPERTS

    def __init__(self, rank: int = 16, lr: float = 1e-3) -> None:
        self.rank = check_count(self.name, "rank", rank, 1, "the width of an adapter")
        self.lr = check_within(self.name, "lr", lr, "(0, inf)", "a learning rate")

    def student(self, context: AdaptationContext) -> Student:
        network = TaskAdapted(initial_merge(context), probe_image(context), self.rank, context.seed)
        return SurgeryStudent(network, self.options(context), {"adapters": self.lr})

    def note(self, context: AdaptationContext) -> str:
        return "an adapter per feature level; adapters are kept at inference"
