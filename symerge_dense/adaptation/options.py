"""All options of the adaptation, validated, with named presets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from symerge_dense.adaptation.option_checks import (
    check_batches,
    check_forms,
    check_optimisation,
    check_types,
    check_views,
    check_weighted,
    explained,
)
from symerge_dense.adaptation.teacher import build_teacher, plain_spec
from symerge_dense.merging.granularity import Granularity
from symerge_dense.registry import did_you_mean
from symerge_dense.tasks.base import DenseTask

TaskVectors = Literal["memory", "mapped"]
TaskVectorDtype = Literal["float32", "bfloat16"]
Labels = Literal["cached", "online"]
Uncertainty = Literal["ignore", "weight", "filter"]
Filter = Literal["none", "confidence"]
Schedule = Literal["sum", "per_task"]
Balance = Literal["initial", "log", "none"]
Statistics = Literal["batch", "running"]
BatchNorm = Literal["recalibrate", "mean", "moments", "pretrained"]
Decay = Literal["none", "cosine", "linear"]
Averaging = Literal["none", "ema", "swa"]
Objective = Literal["labels", "entropy"]
CHOICES: dict[str, tuple[str, ...]] = {
    "granularity": get_args(Granularity),
    "task_vectors": get_args(TaskVectors),
    "task_vector_dtype": get_args(TaskVectorDtype),
    "labels": get_args(Labels),
    "uncertainty": get_args(Uncertainty),
    "filter": get_args(Filter),
    "schedule": get_args(Schedule),
    "balance": get_args(Balance),
    "statistics": get_args(Statistics),
    "lr_decay": get_args(Decay),
    "averaging": get_args(Averaging),
    "batchnorm": get_args(BatchNorm),
    "objective": get_args(Objective),
}


@dataclass(frozen=True)
class SyMergeOptions:
    """How coefficients and adapted layers are optimised (SyMerge, arXiv 2412.19098; defaults chosen for dense tasks).

    Args:
        granularity: what shares one coefficient per task: an output channel of a parameter tensor ('channel'), the
            tensor ('tensor', as in the paper), a block ('block'), the whole backbone ('task'), or a singular direction
            of the task vector of a matrix or kernel ('singular'). All cost the same at inference.
        singular_rank: with granularity='singular', how many directions of a tensor have a coefficient of their own, the
            largest first; what they leave shares one. None for all directions, which costs many times the step.
        initial: coefficient at the start, the task-arithmetic scale.
        clamp: coefficients are projected into this interval after every step; None leaves them free.
        density: share of each task vector that is merged, chosen as TIES does: the largest magnitudes whose sign is
            the elected one (AdaMerging++ takes 0.2); None merges all of it.
        task_vectors: where they are: in 'memory', or 'mapped', in a file of the run's folder beside which the experts
            stay in theirs. A step reads what does not fit into memory, so many experts are slower; results are equal.
        task_vector_dtype: 'bfloat16' keeps them in half the memory, rounded to 8 bits; merges are of 'float32'.
        layer: the layer of each head that is adapted: 'pre_final', 'final', a dotted submodule name, or 'head', all
            of it.
        learn_coefficients: False fixes the coefficients, a control of the paper's ablation.
        learn_layer: False fixes the heads, another control.
        coefficient_lr: Adam's learning rate of the coefficients; 0.2 suits channels, 3e-2 whole tensors.
        layer_lr: Adam's learning rate of the adapted layers.
        weight_decay: Adam's, of the adapted layers; coefficients have none.
        lr_decay: 'cosine' lets both learning rates fall to 0 over the run, 'linear' in a straight line; 'none' keeps
            them.
        warmup: share of the run, at its start, over which both learning rates rise in a straight line.
        averaging: what learns is averaged over the last part of the run, and the average is the result: 'ema' is an
            exponential moving average, 'swa' the plain mean. It does little where the learning rate has fallen to 0.
        averaging_start: where that part begins, as a share of the run.
        averaging_decay: of the exponential moving average; the first states are averaged plainly.
        sharpness: radius rho of adaptive sharpness-aware minimisation (arXiv 2102.11600), a step of two passes; 0 for
            plain steps. Papers take 0.07 for coefficients, 0.5 for weights.
        rounds: in a round every task sees one batch.
        batch_size: images per step, over all processes.
        labels: 'cached' runs each expert once per image; 'online' runs it in every step.
        views: the labels are averages over these views of each image, arguments of ``models.views.Views``:
            dict(flip=True, scales=(0.75, 1.0, 1.25), shift=7) or some of it; None asks for the plain image alone.
        uncertainty: what the variance between the views does: 'weight' weighs each pixel's loss by
            1 / (variance + the image's mean one), 'filter' leaves out the ``uncertain_share`` of pixels where it is
            largest, 'ignore' weighs all alike.
        uncertain_share: of the pixels of an image, 0 to 1, that 'filter' leaves out.
        objective: 'labels' learns from the experts' outputs; 'entropy' makes the merged model's own distribution
            certain in tasks that have one, and learns from the expert in the others.
        teacher: what the merged model learns from, a name of ``TEACHERS`` or ``dict(type=name, ...)``: the 'experts';
            'ema', the moving average of the merged model; 'mix', both averaged; 'model', a finished model;
            'cross_task', depth and normals each other; or one of your own.
        soft: distil class probabilities (True) or the arg-max class (False).
        temperature: where a task predicts a distribution, its logits and the teacher's are divided by it first.
        filter: 'confidence' drops the pixels where merged model and expert disagree and the merged one is surer;
            'none' keeps all.
        schedule: 'sum' makes one optimizer step per round, on the sum of all tasks' losses; 'per_task' makes one step
            per task, in a random order.
        balance: 'log' adds the logarithms of the losses, so that the same relative fall counts alike in every task at
            every step (DB-MTL, 2308.12029); 'initial' divides each task's loss by its value before the first step;
            'none' adds raw losses.
        task_weights: {task: factor} on top of the balance, by default 1.
        class_balance: exponent in 0..1 of the weights of classes: 0 weighs the pixels of a label alike, 1 its classes,
            which is how mIoU counts. It acts in tasks that have classes, see ``DenseTask.rarity``.
        statistics: what BatchNorm normalises with during adaptation. 'running': with statistics that are set at the
            start and stay, in the merged model too, which thus is used as it was trained; 'batch': with those of the
            batch, while the merged model gets re-estimated ones at the end.
        batchnorm: running statistics of every merged model, training-free methods included. 'recalibrate' re-estimates
            them on unlabelled images. The others need no images: the experts' 'mean' or 'moments', or the base's own
            ('pretrained'); heads then keep their experts' statistics.
        recalibration_images: unlabelled images for BatchNorm re-estimation.
        augment: arguments of ``datasets.transforms.Augment`` for images and labels together (cached labels only); None
            for none.
        strong: the student's view after that, a list of transforms of albumentations, see ``StrongViews``; the labels
            are the clean view's (cached labels only). None for none.
        cutmix: probability per batch that a rectangle of every image and its labels comes from another image of it
            (cached labels only).
        save_every: rounds between two checkpoints.
        num_workers: of the data loader.
        amp: mixed precision: bfloat16, or float16 with loss scaling on a GPU that lacks bfloat16.
        activation_checkpointing: keep only the inputs of the backbone's blocks, and compute the rest again in backward:
            less memory, a third more time, equal numbers.
        compile: torch.compile of the backbone: a minute at the start, equal numbers up to rounding.

    Raises:
        ValueError: a value is out of range, or two options exclude each other.
    """

    granularity: Granularity = "channel"
    singular_rank: int | None = 32
    initial: float = 0.3
    clamp: tuple[float, float] | None = None
    density: float | None = None
    task_vectors: TaskVectors = "memory"
    task_vector_dtype: TaskVectorDtype = "float32"
    layer: str = "pre_final"
    learn_coefficients: bool = True
    learn_layer: bool = True
    coefficient_lr: float = 0.2
    layer_lr: float = 3e-3
    weight_decay: float = 0.0
    lr_decay: Decay = "cosine"
    warmup: float = 0.1
    averaging: Averaging = "none"
    averaging_start: float = 0.75
    averaging_decay: float = 0.99
    sharpness: float = 0.0
    rounds: int = 300
    batch_size: int = 8
    labels: Labels = "cached"
    views: dict[str, Any] | None = field(default_factory=lambda: {"flip": True})
    uncertainty: Uncertainty = "ignore"
    uncertain_share: float = 0.1
    objective: Objective = "labels"
    teacher: str | dict[str, Any] = "experts"
    soft: bool = True
    temperature: float = 1.0
    filter: Filter = "none"
    schedule: Schedule = "sum"
    balance: Balance = "log"
    task_weights: dict[str, float] = field(default_factory=dict)
    class_balance: float = 0.5
    statistics: Statistics = "running"
    batchnorm: BatchNorm = "recalibrate"
    recalibration_images: int = 200
    augment: dict[str, Any] | None = field(default_factory=lambda: {"flip": 0.5})
    strong: list[dict[str, Any]] | None = None
    cutmix: float = 0.0
    save_every: int = 50
    num_workers: int = 0
    amp: bool = False
    activation_checkpointing: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        check_types(type(self), vars(self), "adaptation")
        check_forms(self)
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"adaptation.{name}: {did_you_mean(str(getattr(self, name)), allowed, name)}")
        positive = ("coefficient_lr", "layer_lr", "temperature", "rounds", "batch_size", "save_every")
        for name in (*positive, "recalibration_images"):
            if not getattr(self, name) > 0:
                raise ValueError(f"adaptation.{name}={getattr(self, name)!r} must be positive.")
        check_optimisation(self)
        numbers = {"num_workers": self.num_workers, "weight_decay": self.weight_decay, **self.task_weights}
        for name, value in numbers.items():
            if not value >= 0:
                raise ValueError(f"adaptation: {name}={value!r} must not be negative.")
        if self.clamp is not None and not self.clamp[0] <= self.initial <= self.clamp[1]:
            raise ValueError(f"adaptation.initial={self.initial} lies outside clamp={self.clamp}; change one of them.")
        if not 0 <= self.class_balance <= 1:
            raise ValueError(f"adaptation.class_balance={self.class_balance!r} must lie in [0, 1]; 0 is off.")
        if self.density is not None and not 0 < self.density <= 1:
            raise ValueError(f"adaptation.density={self.density!r} must lie in (0, 1], or be None to merge all.")
        if not (self.learn_coefficients or self.learn_layer):
            raise ValueError("adaptation learns nothing: set learn_coefficients or learn_layer to True.")
        check_views(self)
        if self.activation_checkpointing and self.compile:
            raise ValueError("adaptation: activation_checkpointing and compile exclude each other; set one to False.")
        if self.teacher != "experts":
            with explained("adaptation.teacher"):
                build_teacher(self.teacher)
            object.__setattr__(self, "teacher", plain_spec(self.teacher))
        check_batches(self)

    def check_tasks(self, tasks: Mapping[str, DenseTask]) -> None:
        """Check the options that depend on the tasks.

        Args:
            tasks: {task: its rules} of the merged model.

        Raises:
            ValueError: the teacher cannot teach them, a loss takes no weights where ``uncertainty`` or
                ``class_balance`` gives some, ``task_weights`` has one for another task, or CutMix would mix images that
                have one label each.
        """
        for name in self.task_weights:
            if name not in tasks:
                raise ValueError(f"adaptation.task_weights: {did_you_mean(str(name), tasks, 'task')}")
        whole = [name for name, task in tasks.items() if task.image_level]
        if self.cutmix and whole:
            raise ValueError(
                f"adaptation.cutmix={self.cutmix} mixes parts of images, and {', '.join(whole)} has one label for the "
                "whole of an image; leave cutmix out, or these tasks."
            )
        with explained("adaptation.teacher"):
            build_teacher(self.teacher).check(tasks, self)
        for name, task in tasks.items():
            check_weighted(name, task, self)


NO_NUMBER = ("save_every", "num_workers", "task_vectors", "activation_checkpointing")  # no result depends on them
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # The settings of the public classification code: one learning rate, hard labels with its confidence filter, from
    # experts that run in every step (the float16 of cached labels moves coefficients by up to 5e-4), one step per task,
    # losses as they are, mixed precision.
    "paper": {
        "granularity": "tensor",
        "clamp": (0.0, 1.0),
        "layer": "final",
        "coefficient_lr": 1e-2,
        "layer_lr": 1e-2,
        "rounds": 500,
        "batch_size": 32,
        "labels": "online",
        "views": None,
        "soft": False,
        "filter": "confidence",
        "schedule": "per_task",
        "balance": "none",
        "class_balance": 0.0,
        "statistics": "batch",
        "lr_decay": "none",
        "warmup": 0.0,
        "augment": None,
        "amp": True,
    },
}


def make_options(preset: str = "default", **overrides: Any) -> SyMergeOptions:
    """Options of a preset, with some of them replaced.

    Args:
        preset: 'default' or 'paper', a name of ``PRESETS``.
        **overrides: options of SyMergeOptions.

    Raises:
        ValueError: an unknown preset or option, or a value that SyMergeOptions refuses.

    >>> options = make_options("paper", rounds=20)
    >>> options.layer, options.rounds
    ('final', 20)
    >>> make_options(round=20)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: unknown adaptation option 'round'. Did you mean 'rounds', 'strong'? Known: ...
    """
    if preset not in PRESETS:
        raise ValueError(did_you_mean(preset, PRESETS, "adaptation preset"))
    known = [f.name for f in dataclasses.fields(SyMergeOptions)]
    for name in overrides:
        if name not in known:
            raise ValueError(did_you_mean(name, known, "adaptation option"))
    if isinstance(overrides.get("clamp"), list):
        overrides["clamp"] = tuple(overrides["clamp"])
    return SyMergeOptions(**{**PRESETS[preset], **overrides})
