"""All that takes part in a comparison: the references, and every registered method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from symerge_dense.adaptation.options import SyMergeOptions
from symerge_dense.models.backbone import TimmBackbone
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.models.views import Views
from symerge_dense.pipeline.comparison.methods import EXPERTS, IN_VIEWS, JOINT, Adaptive, Candidate, Outcome, Static
from symerge_dense.pipeline.comparison.model_pool import ModelPool
from symerge_dense.pipeline.comparison.scoring import seen_in_views
from symerge_dense.pipeline.comparison.tuning import Tuner
from symerge_dense.registry import ADAPTIVE_METHODS, MERGERS, did_you_mean


class Joint(Candidate):
    """Multi-task training with labels from the same base, which merging aims to replace.

    The model is found or trained. Nothing is merged, and BatchNorm stays as it was trained.

    Args:
        train: makes the model from the base.
    """

    name, block, data = JOINT, "reference", "labels"

    def __init__(self, train: Callable[[TimmBackbone], MultiTaskModel]) -> None:
        self.train = train

    def make(self, models: ModelPool, tuner: Tuner, seed: int) -> Outcome:
        return Outcome({None: self.train(models.base).to(models.device)}, self.block, self.data)


class ExpertsInViews(Candidate):
    """The experts, each asked for several views of every image: as good as the labels that students learn from.

    Args:
        views: that are averaged.
    """

    name, block, data = IN_VIEWS, "reference", "labels"

    def __init__(self, views: Views) -> None:
        self.views = views

    def settings(self, options: SyMergeOptions) -> dict[str, Any]:
        return {"views": self.views.spec}

    def make(self, models: ModelPool, tuner: Tuner, seed: int) -> Outcome:
        networks = seen_in_views(models.experts, self.views, models.device)
        facts = {
            "options": self.views.spec,
            "extra_parameters": _beside_one(models),
            "encoder_passes": len(self.views.all) * len(networks),
            "note": f"every expert's answer is the average over {self.views}",
        }
        return Outcome(networks, self.block, self.data, facts)


class Experts(Candidate):
    """The unchanged experts, each on its own task: T networks."""

    name, block, data = EXPERTS, "reference", "labels"

    def make(self, models: ModelPool, tuner: Tuner, seed: int) -> Outcome:
        return Outcome(models.own_networks, self.block, self.data, {"extra_parameters": _beside_one(models)})


def _beside_one(models: ModelPool) -> int:
    """Parameters of the experts' backbones beside one of them."""
    return (len(models.experts) - 1) * sum(weight.numel() for weight in models.base.parameters())


def candidates(
    train_joint: Callable[[TimmBackbone], MultiTaskModel] | None,
    options: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    views: Views | None = None,
) -> list[Candidate]:
    """All candidates: the experts first, SyMerge second.

    Args:
        train_joint: makes the jointly trained model from the base; None leaves joint training out.
        options: arguments of methods, {name: {argument: value}}.
        views: that the experts' labels are averaged over; None leaves out the experts that see them.

    Raises:
        ValueError: a method or an argument does not exist.
    """
    for name in options:
        if name not in ADAPTIVE_METHODS and name not in MERGERS:
            raise ValueError(did_you_mean(name, [*ADAPTIVE_METHODS, *MERGERS], "merging method"))
    seen = [] if views is None else [ExpertsInViews(views)]
    adaptive = sorted(ADAPTIVE_METHODS, key=lambda name: name != "symerge")
    joint = [] if train_joint is None else [Joint(train_joint)]
    return [
        Experts(),
        *seen,
        *(Adaptive(name, options.get(name, {})) for name in adaptive),
        *(Static(name, options.get(name, {})) for name in MERGERS),
        *joint,
    ]
