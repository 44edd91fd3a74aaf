"""Adaptive merging methods: from base, experts and unlabelled images to a multi-task network.

All of them run through ``adapt``, with one loop, one cache of expert labels and one treatment of BatchNorm. A method
chooses the student that learns and its options.
"""

from __future__ import annotations

import dataclasses
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from symerge_dense.adaptation.adapt import adapt
from symerge_dense.adaptation.finalize import finalize, image_batches
from symerge_dense.adaptation.history import read_history
from symerge_dense.adaptation.options import SyMergeOptions
from symerge_dense.adaptation.student import Student
from symerge_dense.adaptation.symerge_model import SyMergeModel
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.merging.layerwise import LayerwiseMerge
from symerge_dense.models.backbone import TimmBackbone
from symerge_dense.models.modes import left_alone
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.registry import did_you_mean

FROM_EXPERTS: Mapping[str, Any] = {
    "labels": "online",
    "teacher": "experts",
    "augment": None,
    "strong": None,
    "cutmix": 0.0,
    "lr_decay": "none",
    "warmup": 0,
    "sharpness": 0.0,
    "statistics": "batch",
}
"""Changes of methods that learn from features: no teacher is asked, and BatchNorm in the heads settles last."""


@dataclass
class AdaptationContext:
    """What every adaptive method is given.

    Args:
        base: the experts' common base weights.
        experts: {task: expert}.
        pool: unlabelled images.
        options: the config's adaptation; a method replaces only the options that define it.
        device: where to work.
        seed: of everything random.
        work_dir: each method has ``adaptive/<name>`` there for its curve and log.
        files: sources of base, experts and pool as config values ``{'base': ..., 'experts': {task: file},
            'pool': {...}, 'other_base': bool}``, so that SyMerge runs from a plain MMEngine config; None runs it from
            the objects.
        launcher: 'none', 'pytorch' or 'slurm'.
        settings: keys of MMEngine's runner that are passed on, see ``engine.runner.PASSED_ON``.
        validation: labelled metrics to log, see ``adapt``.
        labels: folder of the experts' cached labels, which methods share; None is ``work_dir/labels``.
    """

    base: TimmBackbone
    experts: Mapping[str, MultiTaskModel]
    pool: Unlabelled
    options: SyMergeOptions
    device: torch.device
    seed: int
    work_dir: Path
    files: Mapping[str, Any] | None = None
    launcher: str = "none"
    settings: Mapping[str, Any] = field(default_factory=dict)
    validation: Mapping[str, Any] | None = None
    labels: Path | None = None


@dataclass
class Adapted:
    """What an adaptive method returns.

    Args:
        model: the merged network in evaluation mode, BatchNorm statistics by the options' policy.
        extra_parameters: number of parameters at inference beyond one backbone and the heads.
        history: rows of the run's curve.
        note: what differs from the published method; empty where nothing does.
        student: the model that learned; ``model`` is its network.
    """

    model: MultiTaskModel
    extra_parameters: int
    history: list[dict[str, Any]]
    note: str
    student: Student

    @property
    def coefficients(self) -> dict[str, list[float]]:
        """{group of tensors: one merging coefficient per task, or the mean of several}; empty where there is none."""
        merge = getattr(self.student, "merge", None)
        return merge.table() if isinstance(merge, LayerwiseMerge) else {}

    @property
    def coefficient_ranges(self) -> dict[str, list[list[float]]]:
        """{group of tensors: [lowest, highest] of every task}, of groups with several coefficients per task."""
        merge = getattr(self.student, "merge", None)
        return merge.ranges() if isinstance(merge, LayerwiseMerge) else {}


class AdaptiveMethod(ABC):
    """An adaptive merging method of ``ADAPTIVE_METHODS``; its constructor takes its hyper-parameters, all optional.

    ``title`` and ``learns`` are for tables, ``paper`` is a URL. Constructor arguments become attributes of those names.
    ``changes`` are the adaptation's options that define the method; others are the context's, as for all methods.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    learns: ClassVar[str]
    changes: ClassVar[Mapping[str, Any]] = {}

    @abstractmethod
    def student(self, context: AdaptationContext) -> Student:
        """The model that learns, with its options, on ``context.device``.

        Args:
            context: what every method is given.
        """

    def options(self, context: AdaptationContext) -> SyMergeOptions:
        """The options that the method runs with.

        Args:
            context: what every method is given.
        """
        return dataclasses.replace(context.options, **self.changes)

    def note(self, context: AdaptationContext) -> str:
        """What differs from the published method in this context; empty where nothing does.

        Args:
            context: what every method is given.
        """
        return ""

    def start(self, context: AdaptationContext) -> MultiTaskModel:
        """The network that the method starts from, in its final form: folded, BatchNorm by the options' policy.

        Args:
            context: what every method is given.
        """
        with left_alone(context.experts.values()):
            student = self.student(context).to(context.device)
            student.scratch = context.work_dir if context.work_dir.is_dir() else None
            student.attach(context.experts)
            options = student.options
            finalize(
                student, image_batches(context.pool, options.recalibration_images, options.batch_size, context.device)
            )
        return student.model.eval().requires_grad_(False)

    def described(self, context: AdaptationContext) -> Mapping[str, Any] | None:
        """The student as a config dict of plain values; None where only ``student`` can build it.

        Args:
            context: what every method is given.
        """
        return None

    def run(self, context: AdaptationContext, folder: Path | None = None, resume: bool = False) -> Adapted:
        """Adapt; base and experts are left as they were found.

        Args:
            context: what every method is given.
            folder: of curve and checkpoints; None is ``context.work_dir/adaptive/<name>``, without checkpoints.
            resume: continue from the newest checkpoint in ``folder``.

        Returns:
            The merged network, and how it came about.

        Raises:
            ValueError: as ``adapt`` does.
        """
        place = folder or context.work_dir / "adaptive" / self.name
        with left_alone(context.experts.values()):
            described = self.described(context)
            if described is not None:
                for expert in context.experts.values():
                    expert.cpu()  # the run reads its own: an accelerator holds them once
            model = self.student(context).to(context.device) if described is None else dict(described)
            if folder is None:
                _save_nothing(model)
            pool = context.pool if context.files is None or described is None else context.files["pool"]
            student = adapt(
                model,
                context.experts,
                pool,
                place,
                seed=context.seed,
                launcher=context.launcher,
                resume=resume,
                labels=context.labels or context.work_dir / "labels",
                title=self.title,
                settings=context.settings,
                validation=context.validation,
            )
        network = student.model.eval().requires_grad_(False)
        parts = (context.base, *(expert.heads[task] for task, expert in context.experts.items()))
        extra = parameters(network) - sum(map(parameters, parts))
        return Adapted(network, extra, read_history(place / "history.jsonl"), self.note(context), student)

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The constructor's arguments, for the record of a run."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}


def _save_nothing(model: Student | dict[str, Any]) -> None:
    """Move the first checkpoint beyond the end of the run."""
    if isinstance(model, Student):
        model.options = dataclasses.replace(model.options, save_every=model.options.rounds + 1)
    else:
        model["options"] = {**model["options"], "save_every": model["options"]["rounds"] + 1}


def parameters(module: nn.Module) -> int:
    """Number of a module's parameters.

    Args:
        module: the module.
    """
    return sum(parameter.numel() for parameter in module.parameters())


def initial_merge(context: AdaptationContext) -> MultiTaskModel:
    """The network that SyMerge starts from, its backbone merged for good with the options' initial coefficient.

    Args:
        context: what every method is given.
    """
    options = dataclasses.replace(context.options, density=None, learn_coefficients=False, learn_layer=True)
    merged = SyMergeModel(context.base, context.experts, options).to(context.device)
    merged.attach(context.experts)
    merged.fold()
    return merged.model


def probe_image(context: AdaptationContext) -> Tensor:
    """One image of the pool (1,3,H,W), on which a network's shapes are measured.

    Args:
        context: what every method is given.
    """
    return context.pool.image(0)[None].to(context.device)


# -- methods that differ from SyMerge only in their options -----------------------------------------------------------
class OptionVariant(AdaptiveMethod):
    """SyMerge's model with the context's options, this class's ``changes`` to them, and the caller's overrides on top.

    Args:
        **overrides: options of the adaptation.

    Raises:
        ValueError: an override is no option of the adaptation.
    """

    def __init__(self, **overrides: Any) -> None:
        known = [field.name for field in dataclasses.fields(SyMergeOptions)]
        for name in overrides:
            if name not in known:
                raise ValueError(did_you_mean(name, known, f"option of {self.name}"))
        self.overrides = overrides

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The caller's overrides."""
        return dict(self.overrides)

    def options(self, context: AdaptationContext) -> SyMergeOptions:
        return dataclasses.replace(context.options, **{**self.changes, **self.overrides})

    def student(self, context: AdaptationContext) -> Student:
        return SyMergeModel(context.base, context.experts, self.options(context))

    def described(self, context: AdaptationContext) -> Mapping[str, Any] | None:
        if context.files is None or type(self).student is not OptionVariant.student:
            return None
        return {
            "type": "SyMergeModel",
            "base": context.files["base"],
            "experts": dict(context.files["experts"]),
            "tasks": list(context.experts),
            "other_base": context.files.get("other_base", False),
            "options": dataclasses.asdict(self.options(context)),
        }
