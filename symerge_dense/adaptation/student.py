"""A multi-task model that learns from the experts on unlabelled images; subclasses say which parts learn.

All tasks see the same images: a step is one backbone pass and one pass of each head. Losses are in ``objective``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from symerge_dense.adaptation.averaging import WeightAverage
from symerge_dense.adaptation.cutmix import CutMix
from symerge_dense.adaptation.objective import EVEN, labels_in, logarithms, task_losses, valid_in
from symerge_dense.adaptation.options import SyMergeOptions
from symerge_dense.adaptation.teacher import build_teacher
from symerge_dense.adaptation.uncertainty import with_uncertainty
from symerge_dense.merging.bn_statistics import model_statistics
from symerge_dense.merging.tensor_specs import TensorSpec, tensor_specs
from symerge_dense.models.batchnorm import batchnorms
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.models.training import StackingPreprocessor, TrainableModel

Groups = list[dict[str, Any]]  # of an optimizer


class Student(TrainableModel):
    """A multi-task model in training; everything is frozen but what a subclass frees in its constructor.

    MMEngine builds the optimizer and the DDP wrapper before any hook runs, so all that learns must be a parameter by
    then. ``SyMergeHook`` calls ``attach`` once, ``before_step`` and ``after_step`` around each step, and ``fold``
    before the model is evaluated or saved; ``unfold`` undoes it.

    Args:
        model: backbone and heads as they start.
        options: of the adaptation.
        data_preprocessor: what MMEngine passes on; None stacks and moves batches.
    """

    loss_scale: Tensor
    statistics_fixed: Tensor

    def __init__(self, model: MultiTaskModel, options: SyMergeOptions, data_preprocessor: Any = None) -> None:
        super().__init__(data_preprocessor or StackingPreprocessor())
        self.model: MultiTaskModel = model
        model.requires_grad_(False)
        self.options = options
        weights = options.task_weights
        self.register_buffer("loss_scale", torch.tensor([float(weights.get(t, 1.0)) for t in model.tasks]))
        self.register_buffer("statistics_fixed", torch.tensor(False))  # BatchNorm's, from the start to the end
        self.active: list[str] = list(model.tasks)  # the tasks of the coming step: all, or one with 'per_task'
        self.progress = 0.0  # share of the run that is over
        self.teacher = build_teacher(options.teacher)
        options.check_tasks(model.tasks)
        self.mix: CutMix | None = None  # of the coming step
        self.labeller: Callable[[Tensor], dict[str, Tensor]] | None = None
        self.policy_statistics: dict[str, Tensor] = {}
        self.folded = False  # whether ``fold`` has put weights into the model that ``unfold`` takes back
        self.average: WeightAverage | None = None  # of what learns; ``fold`` lets it take its place
        self.sharpness = options.sharpness  # read by ``ParameterGroupsConstructor``
        self.scratch: Path | None = None  # folder for files of the run alone; None is the system's
        self.experts: dict[str, MultiTaskModel] = {}  # not modules of this one: nothing of them is saved or trained

    # -- what subclasses say ----------------------------------------------------------------------------------------
    @abstractmethod
    def parameter_groups(self) -> Groups:
        """Optimizer groups of all that learns, each with its learning rate and weight decay."""

    def attach(self, experts: Mapping[str, MultiTaskModel]) -> None:
        """Take from the experts what the method needs; here, BatchNorm statistics of a policy that sees no images.

        Args:
            experts: {task: expert}.

        Raises:
            ValueError: an expert is missing, or its backbone does not fit.
        """
        if self.options.batchnorm != "recalibrate":
            self.policy_statistics = {
                f"model.{name}": value
                for name, value in model_statistics(self.options.batchnorm, self.model, experts).items()
            }

    def expert_of(self, task: str) -> MultiTaskModel:
        """The expert of a task.

        Args:
            task: a task of the model.

        Raises:
            ValueError: the task has no expert.
        """
        if task not in self.experts:
            raise ValueError(
                f"there is no expert for {task!r} (there is one for {', '.join(self.experts) or 'none'}); "
                "give the model experts={task: checkpoint} for every task."
            )
        return self.experts[task]

    def before_step(self, iteration: int, steps: int) -> None:
        """Called before step ``iteration`` (from 0) of ``steps``."""

    def after_step(self) -> None:
        """Called after every optimizer step."""

    def log_scalars(self) -> dict[str, Tensor]:
        """Scalars for the run's history, beside the losses."""
        return {}

    def outputs(self, image: Tensor) -> dict[str, Tensor]:
        """Raw head outputs {task: (N,C,h,w)} of the active tasks.

        Args:
            image: (N,3,H,W) in 0..255.
        """
        return self.model.raw_outputs(image, self.active)

    def fold(self) -> None:
        """Put averaged and merged weights into ``model``, for evaluation or export; here all else is in it already."""
        if self.average is not None and self.average.begun and not self.average.exchanged:
            self.average.exchange()
            self.folded = True

    def unfold(self) -> None:
        """Undo ``fold``."""
        if self.average is not None and self.average.exchanged:
            self.average.exchange()
        self.folded = False

    # -- MMEngine ---------------------------------------------------------------------------------------------------
    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.loss_scale.device

    def train(self, mode: bool = True) -> Student:
        """Training mode only moves BatchNorm to batch statistics, if the options say so: there is no dropout.

        Args:
            mode: True for training, False for evaluation.
        """
        super().train(False)
        self.training = mode
        for layer in batchnorms(self.model):
            layer.training = mode and self.options.statistics == "batch"
        return self

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """What a step can change: trained parameters, loss scale, BatchNorm statistics."""
        frozen = {name for name, parameter in self.named_parameters() if not parameter.requires_grad}
        return {name: value for name, value in self.state_dict().items() if name not in frozen}

    def forward(self, image: Tensor, mode: str = "tensor", **batch: Any) -> Any:
        """MMEngine's entry point.

        Args:
            image: (N,3,H,W) in 0..255.
            mode: 'tensor' or 'predict' as in MultiTaskModel, or 'loss'.
            **batch: cached labels as ``label_<task>``, for 'loss'.

        Returns:
            For 'loss': {'loss_<task>': scalar, 'distance_<task>': the same before scaling, without gradient}.
        """
        if mode == "predict":
            return self.model.to_image_size(self.outputs(image), image)
        if mode == "tensor":
            return self.outputs(image)
        losses = self.distances(image, batch)
        scale = dict(zip(self.model.tasks, self.loss_scale, strict=True))
        balanced = logarithms(losses) if self.options.balance == "log" else losses
        result = {f"loss_{task}": loss * scale[task] for task, loss in balanced.items()}
        result.update({f"distance_{task}": loss.detach() for task, loss in losses.items()})
        return result

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        """One optimizer step; none where the confidence filter left nothing to learn from. Returns the losses.

        Args:
            data: a batch of the data loader.
            optim_wrapper: MMEngine's, around the optimizer.
        """
        with optim_wrapper.optim_context(self):
            losses = self(**self.data_preprocessor(data, True), mode="loss")
        total, logs = self.parse_losses(losses)
        if total.requires_grad:
            optim_wrapper.update_params(total)
        return logs

    # -- objective --------------------------------------------------------------------------------------------------
    def distances(self, image: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Loss of every active task.

        Args:
            image: (N,3,H,W) in 0..255.
            batch: cached labels as ``label_<task>``, none with online labels; ``valid_<task>``, where they count;
                ``clean``, the image that teachers see, where ``image`` is a harder view of it.
        """
        clean = batch.get("clean", image)
        with torch.no_grad():
            labels = labels_in(batch, self.model.tasks) if self.labeller is None else self.labeller(clean)
            targets, weights = self.teacher.targets(self, clean, labels)
        weights = with_uncertainty(weights, batch, self.active, self.options)
        maps = [targets, weights, valid_in(batch, self.active)]
        if self.mix is not None:
            image, maps = self.mix(image, maps)
        return self.task_losses(self.outputs(image), *maps)

    def task_losses(
        self,
        outputs: Mapping[str, Tensor],
        labels: Mapping[str, Tensor],
        weights: Mapping[str, Tensor] = EVEN,
        valid: Mapping[str, Tensor] = EVEN,
    ) -> dict[str, Tensor]:
        """Loss of each task between the merged output and its target, both raw and at head resolution.

        Args:
            outputs: {task: (N,C,h,w)} of the merged model.
            labels: {task: (N,C,h,w)} of the experts or another teacher.
            weights: {task: (N,h,w)} of the pixels; a task without them weighs all alike.
            valid: {task: bool (N,h,w) or (N,1,1)}, where its label counts; a task that is not in it: everywhere.
        """
        return task_losses(self.model.tasks, outputs, labels, self.options, weights, valid)


# -- a backbone merged anew in every step, from fixed base weights ----------------------------------------------------
class MergedStudent(Student):
    """The backbone holds the base; every pass runs with ``merged_weights`` instead, which ``fold`` puts in its place.

    ``specs`` describes the backbone's parameters, which are what is merged.

    Args:
        model: backbone and heads as they start.
        options: of the adaptation.
        data_preprocessor: as in Student.
    """

    def __init__(self, model: MultiTaskModel, options: SyMergeOptions, data_preprocessor: Any = None) -> None:
        super().__init__(model, options, data_preprocessor)
        parameters = {name for name, _ in model.backbone.named_parameters()}
        self.specs: list[TensorSpec] = [spec for spec in tensor_specs(model.backbone) if spec.name in parameters]
        self._base: dict[str, Tensor] | None = None

    @abstractmethod
    def merged_weights(self) -> dict[str, Tensor]:
        """Backbone parameters of the merged model, differentiable in what the merge learns."""

    def outputs(self, image: Tensor) -> dict[str, Tensor]:
        if self._base is not None:  # folded: the backbone already holds the merged weights
            return super().outputs(image)
        weights = {f"backbone.{name}": value for name, value in self.merged_weights().items()}
        return functional_call(self.model, weights, (image,), {"mode": "tensor", "only": self.active})

    @torch.no_grad()
    def fold(self) -> None:
        """Put the merged weights into the backbone, for evaluation or export; ``unfold`` brings the base back."""
        if self._base is None:
            super().fold()
            merged = self.merged_weights()
            self._base, self.folded = {name: p.data for name, p in self.model.backbone.named_parameters()}, True
            for name, parameter in self.model.backbone.named_parameters():
                parameter.data = merged[name]

    def unfold(self) -> None:
        """Restore the base weights after ``fold``; does nothing if not folded."""
        if self._base is not None:
            for name, parameter in self.model.backbone.named_parameters():
                parameter.data = self._base[name]
            self._base = None
            super().unfold()


# -- a backbone merged beforehand -------------------------------------------------------------------------------------
class TrainedParts(Student):
    """Only the listed submodules are trained.

    Args:
        model: the network, its backbone merged already.
        options: of the adaptation.
        rates: {submodule of ``model``: learning rate}; such as 'backbone', 'heads' or 'adapters'.
    """

    def __init__(self, model: MultiTaskModel, options: SyMergeOptions, rates: Mapping[str, float]) -> None:
        super().__init__(model, options)
        self.rates = dict(rates)
        for part in self.rates:
            model.get_submodule(part).requires_grad_(True)

    def parameter_groups(self) -> Groups:
        """One group per listed submodule, with the options' weight decay."""
        decay = self.options.weight_decay
        return [
            {"params": list(self.model.get_submodule(part).parameters()), "lr": rate, "weight_decay": decay}
            for part, rate in self.rates.items()
        ]
