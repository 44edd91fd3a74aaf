"""A multi-task model that learns from the experts on unlabelled images; what of it learns, its subclasses say.

Objective: sum over tasks of the task's own loss between the model's output and the expert's output, or, where a method
asks for it and the task predicts a distribution, the entropy of the model's output. All tasks look at the same images,
so a step is one backbone pass and one pass of each head.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.model import BaseModel
from torch import Tensor

from symerge_dense.engine.batchnorm import batchnorms
from symerge_dense.engine.options import SyMergeOptions
from symerge_dense.experts.model import MultiTaskModel, check_finite
from symerge_dense.merging.kinds import tensor_specs
from symerge_dense.merging.statistics import statistics_policy

PREFIX = "label_"
Groups = list[dict[str, Any]]  # of an optimizer


class Student(BaseModel):
    """A multi-task model in training; everything is frozen but what a subclass frees in its constructor.

    MMEngine builds the optimizer, and DDP wraps, before any hook runs: so what learns must be a parameter then. Of the
    stages of a run the hook calls ``attach`` once, ``before_step`` and ``after_step`` around each step, and ``fold``
    before the model is looked at from outside; ``unfold`` undoes it.

    Args:
        model: backbone and heads as they start. options: see SyMergeOptions.
    """

    loss_scale: Tensor

    def __init__(self, model: MultiTaskModel, options: SyMergeOptions) -> None:
        super().__init__()
        self.model: MultiTaskModel = model
        model.requires_grad_(False)
        self.options = options
        weights = options.task_weights
        self.register_buffer("loss_scale", torch.tensor([float(weights.get(t, 1.0)) for t in model.tasks]))
        self.active: list[str] = list(model.tasks)  # the tasks of the coming step: all, or one with 'per_task'
        self.labeller: Callable[[Tensor], dict[str, Tensor]] | None = None
        self.policy_statistics: dict[str, Tensor] = {}

    # -- what subclasses say ----------------------------------------------------------------------------------------
    @abstractmethod
    def parameter_groups(self) -> Groups:
        """Optimizer groups of all that learns, each with its learning rate and weight decay."""

    def attach(self, experts: Mapping[str, MultiTaskModel]) -> None:
        """Take from the experts {task: expert} what the method needs; here, BatchNorm statistics of a weights policy.

        Raises ValueError if an expert is missing or its backbone does not fit.
        """
        if self.options.batchnorm != "recalibrate":
            self.policy_statistics = self._policy_statistics(experts)

    def before_step(self, iteration: int, steps: int) -> None:
        """Called before step ``iteration`` (from 0) of ``steps``."""

    def after_step(self) -> None:
        """Called after every optimizer step."""

    def watched(self) -> dict[str, Tensor]:
        """Scalars for the run's history, beside the losses."""
        return {}

    def outputs(self, image: Tensor) -> dict[str, Tensor]:
        """Raw head outputs {task: (N,C,h,w)} of the active tasks for images (N,3,H,W) in 0..255."""
        return self.model.raw_outputs(image, self.active)

    def fold(self) -> None:
        """Put the weights in force into ``model``, for evaluation or export; here they already are."""

    def unfold(self) -> None:
        """Undo ``fold``."""

    # -- MMEngine ---------------------------------------------------------------------------------------------------
    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.loss_scale.device

    def init_weights(self) -> None:
        """Keep the weights: MMEngine would re-initialise a network that is already trained."""

    def train(self, mode: bool = True) -> Student:
        """Training mode moves BatchNorm to batch statistics (if so chosen) and nothing else: no dropout."""
        super().train(False)
        self.training = mode
        for layer in batchnorms(self.model):
            layer.training = mode and self.options.statistics == "batch"
        return self

    def slim_state(self) -> dict[str, Tensor]:
        """What a step can change: all that learns, loss scale, BatchNorm statistics."""
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        frozen = {name for name, _ in self.named_parameters()} - trained
        return {name: value for name, value in self.state_dict().items() if name not in frozen}

    def forward(self, image: Tensor, mode: str = "tensor", **batch: Any) -> Any:
        """MMEngine entry point: 'tensor', 'predict' (as MultiTaskModel) or 'loss' ({'loss_<task>': scalar})."""
        if mode == "predict":
            return self.model.to_image_size(self.outputs(image), image)
        if mode == "tensor":
            return self.outputs(image)
        losses = self.distances(image, batch)
        scale = dict(zip(self.model.tasks, self.loss_scale, strict=True))
        result = {f"loss_{task}": loss * scale[task] for task, loss in losses.items()}
        result.update({f"distance_{task}": loss.detach() for task, loss in losses.items()})
        return result

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        """One optimizer step; none where the confidence filter left nothing to learn from."""
        with optim_wrapper.optim_context(self):
            losses = self(**self.data_preprocessor(data, True), mode="loss")
        total, logs = self.parse_losses(losses)
        if total.requires_grad:
            optim_wrapper.update_params(total)
        return logs

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Refuse a loss that is not finite before it reaches the optimizer (raises NonFiniteLoss)."""
        check_finite(losses)
        total, logs = super().parse_losses(losses)
        return total, logs

    # -- objective --------------------------------------------------------------------------------------------------
    def distances(self, image: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Loss of every active task on images (N,3,H,W); ``batch`` holds cached labels as ``label_<task>``."""
        labels = {t: batch[PREFIX + t] for t in self.active} if self.labeller is None else self.labeller(image)
        return self.task_losses(self.outputs(image), labels)

    def task_losses(self, outputs: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Loss of each task between merged output and the expert's raw output, both at head resolution."""
        return {task: self._distance(task, output, labels[task].to(output.device, torch.float32))
                for task, output in outputs.items()}

    def _distance(self, name: str, output: Tensor, expert_output: Tensor) -> Tensor:
        task, output = self.model.tasks[name], output.float()
        entropy = task.entropy(output) if self.options.objective == "entropy" else None
        if entropy is not None:
            return entropy.mean()
        target = task.self_label(expert_output, soft=self.options.soft)
        keep = torch.ones_like(output[:, 0], dtype=torch.bool)
        ours, theirs = task.confidence(output.detach()), task.confidence(expert_output)
        if self.options.filter == "confidence" and ours is not None and theirs is not None:
            agree = task.decide(output.detach()) == task.decide(expert_output)
            keep = agree.view_as(keep) | (theirs >= ours)
            if get_world_size() == 1 and not keep.any():
                return output.new_zeros(())  # nothing to learn from: no gradient, no step
        return task.loss(output, target, valid=keep)

    def _policy_statistics(self, experts: Mapping[str, MultiTaskModel]) -> dict[str, Tensor]:
        """BatchNorm statistics that follow from weights alone: the backbone's by policy, each head's its expert's."""
        policy, base = statistics_policy(self.options.batchnorm), self.model.backbone.state_dict()
        sources = {task: experts[task].backbone.state_dict() for task in self.model.tasks}
        found = {f"model.backbone.{spec.name}": policy(spec.name, base, sources)
                 for spec in tensor_specs(self.model.backbone) if spec.kind == "bn_stat"}
        for task, head in self.model.named_heads():
            own = experts[task].heads[task].state_dict()
            found |= {f"model.heads.{task}.{spec.name}": own[spec.name].clone()
                      for spec in tensor_specs(head) if spec.kind == "bn_stat"}
        return found
