"""Every choice of the adaptation in one validated place, with named presets."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from symerge_dense.registry import did_you_mean

Granularity = Literal["tensor", "block", "task"]
Labels = Literal["cached", "online"]
Filter = Literal["none", "confidence"]
Schedule = Literal["sum", "per_task"]
Balance = Literal["initial", "none"]
Statistics = Literal["batch", "running"]
BatchNorm = Literal["recalibrate", "mean", "moments", "pretrained"]
Decay = Literal["none", "cosine"]
Objective = Literal["labels", "entropy"]
CHOICES: dict[str, tuple[str, ...]] = {
    "granularity": get_args(Granularity),
    "labels": get_args(Labels),
    "filter": get_args(Filter),
    "schedule": get_args(Schedule),
    "balance": get_args(Balance),
    "statistics": get_args(Statistics),
    "lr_decay": get_args(Decay),
    "batchnorm": get_args(BatchNorm),
    "objective": get_args(Objective),
}


@dataclass(frozen=True)
class SyMergeOptions:
    """How coefficients and adapted layers are optimised (SyMerge, arXiv 2412.19098; defaults chosen for dense tasks).

    Args:
        granularity: what shares one coefficient per task: every parameter tensor, a block, or the whole backbone.
        initial: coefficient at the start, the task-arithmetic scale.
        clamp: coefficients are projected into this interval after every step; None leaves them free.
        density: share of each task vector that is merged, chosen as TIES does: the largest magnitudes whose sign is
            the elected one (AdaMerging++ takes 0.2); None merges all of it.
        layer: the layer of each head that is adapted: 'pre_final', 'final', a dotted submodule name, or 'head', all
            of it.
        learn_coefficients, learn_layer: switch one half off for the controls of the paper's ablation.
        coefficient_lr, layer_lr, weight_decay: Adam settings of the two parameter groups.
        lr_decay: 'cosine' lets both learning rates fall to 0 over the run; 'none' keeps them.
        rounds: a round shows every task one batch: one optimizer step with ``schedule='sum'``, one per task with
            ``'per_task'`` (tasks shuffled within the round).
        batch_size: images per step, over all processes.
        labels: 'cached' asks each expert once per image; 'online' asks it in every step.
        objective: 'labels' learns from the experts' outputs; 'entropy' makes the merged model's own distribution
            certain in tasks that have one, and learns from the expert in the others.
        soft: distil class probabilities (True) or the arg-max class (False).
        filter: 'confidence' drops the pixels where merged model and expert disagree and the merged one is surer.
        balance: 'initial' divides each task's loss by its value before the first step; 'none' adds raw losses.
        task_weights: factor per task on top of the balance, default 1.
        statistics: what BatchNorm normalises with while adapting: the 'batch', or re-estimated 'running' statistics.
        batchnorm: running statistics of every merged model, the training-free ones included: 'recalibrate' re-estimates
            them on unlabelled images; 'mean' and 'moments' of the experts' or the base's own ('pretrained') look at no
            image, and leave the heads their experts' statistics.
        recalibration_images: unlabelled images for BatchNorm re-estimation.
        augment: arguments of ``datasets.Augment`` for images and labels together (cached labels only); None for none.
        save_every: rounds between two checkpoints.
    """

    granularity: Granularity = "tensor"
    initial: float = 0.3
    clamp: tuple[float, float] | None = (0.0, 1.0)
    density: float | None = None
    layer: str = "pre_final"
    learn_coefficients: bool = True
    learn_layer: bool = True
    coefficient_lr: float = 3e-2
    layer_lr: float = 3e-3
    weight_decay: float = 0.0
    lr_decay: Decay = "cosine"
    rounds: int = 300
    batch_size: int = 8
    labels: Labels = "cached"
    objective: Objective = "labels"
    soft: bool = True
    filter: Filter = "none"
    schedule: Schedule = "sum"
    balance: Balance = "initial"
    task_weights: dict[str, float] = field(default_factory=dict)
    statistics: Statistics = "batch"
    batchnorm: BatchNorm = "recalibrate"
    recalibration_images: int = 200
    augment: dict[str, Any] | None = field(default_factory=lambda: {"flip": 0.5})
    save_every: int = 50
    num_workers: int = 0
    amp: bool = False

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"adaptation.{name}: {did_you_mean(str(getattr(self, name)), allowed, name)}")
        for name in ("coefficient_lr", "layer_lr", "rounds", "batch_size", "save_every", "recalibration_images"):
            if not getattr(self, name) > 0:
                raise ValueError(f"adaptation.{name}={getattr(self, name)!r} must be positive.")
        if self.clamp is not None and len(self.clamp) != 2:
            raise ValueError(f"adaptation.clamp={self.clamp} must be (lowest, highest), or None.")
        numbers = {"num_workers": self.num_workers, "weight_decay": self.weight_decay, **self.task_weights}
        for name, value in numbers.items():
            if not value >= 0:
                raise ValueError(f"adaptation: {name}={value!r} must not be negative.")
        if self.clamp is not None and not self.clamp[0] <= self.initial <= self.clamp[1]:
            raise ValueError(f"adaptation.initial={self.initial} lies outside clamp={self.clamp}; change one of them.")
        if self.density is not None and not 0 < self.density <= 1:
            raise ValueError(f"adaptation.density={self.density!r} must lie in (0, 1], or be None to merge all.")
        if not (self.learn_coefficients or self.learn_layer):
            raise ValueError("adaptation learns nothing: set learn_coefficients or learn_layer to True.")
        if self.augment is not None and self.labels == "online":
            raise ValueError("adaptation.augment acts on cached labels; set adaptation.augment=None with 'online'.")
        if self.batch_size < 2 and self.statistics == "batch":
            raise ValueError("adaptation.batch_size=1 has no batch statistics; use 2 or more, or statistics='running'.")


PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # The settings of the public classification code: one learning rate, hard labels with its confidence filter, one
    # step per task, losses as they are, mixed precision.
    "paper": {
        "layer": "final",
        "coefficient_lr": 1e-2,
        "layer_lr": 1e-2,
        "rounds": 500,
        "batch_size": 32,
        "soft": False,
        "filter": "confidence",
        "schedule": "per_task",
        "balance": "none",
        "lr_decay": "none",
        "augment": None,
        "amp": True,
    },
}


def make_options(preset: str = "default", **overrides: Any) -> SyMergeOptions:
    """Options of a preset with some of them replaced. Raises ValueError for an unknown preset or option."""
    if preset not in PRESETS:
        raise ValueError(did_you_mean(preset, PRESETS, "adaptation preset"))
    known = [f.name for f in dataclasses.fields(SyMergeOptions)]
    for name in overrides:
        if name not in known:
            raise ValueError(did_you_mean(name, known, "adaptation option"))
    if overrides.get("clamp") is not None:
        overrides["clamp"] = tuple(overrides["clamp"])
    return SyMergeOptions(**{**PRESETS[preset], **overrides})
