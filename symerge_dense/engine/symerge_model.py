"""The model that is adapted: merged backbone, experts' heads, and the loss against the experts' predictions.

Objective (SyMerge, arXiv 2412.19098): sum over tasks of the task's own loss between the merged model's output and the
expert's output on unlabelled images, over the merging coefficients and one layer of each head. All tasks look at the
same images, so a step is one backbone pass and one pass of each head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.func import functional_call

from symerge_dense.engine.batchnorm import batchnorms
from symerge_dense.engine.options import SyMergeOptions
from symerge_dense.experts.model import MultiTaskModel, check_finite
from symerge_dense.merging.kinds import tensor_specs
from symerge_dense.merging.layerwise import LayerwiseMerge
from symerge_dense.merging.statistics import statistics_policy

PREFIX = "label_"


class SyMergeModel(BaseModel):
    """A multi-task model whose backbone weights are base + coefficients x task vectors.

    Args:
        model: base weights in the backbone, the experts' heads.
        options: see SyMergeOptions.

    Trainable from construction (MMEngine builds the optimizer, and DDP wraps, before any hook runs):
    ``merge.coefficients`` and the adapted layer of each head. Task vectors arrive later, by ``merge.attach``.
    """

    loss_scale: Tensor

    def __init__(self, model: MultiTaskModel, options: SyMergeOptions) -> None:
        super().__init__()
        self.model: MultiTaskModel = model
        model.requires_grad_(False)
        self.options = options
        parameters = {name for name, _ in model.backbone.named_parameters()}
        specs = [spec for spec in tensor_specs(model.backbone) if spec.name in parameters]
        self.merge = LayerwiseMerge(specs, list(model.tasks), granularity=options.granularity, init=options.initial,
                                    clamp=options.clamp)
        self.merge.coefficients.requires_grad_(options.learn_coefficients)
        self.adapted = {task: head.layer_modules(options.layer) for task, head in model.named_heads()}
        for parameter in self.layer_parameters():
            parameter.requires_grad_(options.learn_layer)
        weights = options.task_weights
        self.register_buffer("loss_scale", torch.tensor([float(weights.get(t, 1.0)) for t in model.tasks]))
        self.active: list[str] = list(model.tasks)  # the tasks of the coming step: all, or one with 'per_task'
        self.labeller: Callable[[Tensor], dict[str, Tensor]] | None = None
        self.policy_statistics: dict[str, Tensor] = {}
        self._base: dict[str, Tensor] | None = None

    def attach(self, experts: Mapping[str, MultiTaskModel]) -> None:
        """Compute the experts' task vectors. Raises ValueError if an expert is missing or its backbone does not fit."""
        weights = {task: dict(experts[task].to(self.device).backbone.named_parameters()) for task in self.model.tasks}
        self.merge.attach(dict(self.model.backbone.named_parameters()), weights)
        if self.options.batchnorm != "recalibrate":
            self.policy_statistics = self._policy_statistics(experts)

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

    @property
    def device(self) -> torch.device:
        """Where the coefficients live."""
        return self.merge.coefficients.device

    # -- parameters -------------------------------------------------------------------------------------------------
    def layer_parameters(self) -> list[nn.Parameter]:
        """Parameters of the adapted layers of all heads."""
        layers = (self.model.heads[task].get_submodule(name) for task, names in self.adapted.items() for name in names)
        return [parameter for layer in layers for parameter in layer.parameters()]

    def init_weights(self) -> None:
        """Keep the weights: MMEngine would re-initialise a network that is already trained."""

    def train(self, mode: bool = True) -> SyMergeModel:
        """Training mode moves BatchNorm to batch statistics (if so chosen) and nothing else: no dropout."""
        super().train(False)
        self.training = mode
        for layer in batchnorms(self.model):
            layer.training = mode and self.options.statistics == "batch"
        return self

    def slim_state(self) -> dict[str, Tensor]:
        """What a step can change: coefficients, adapted layers, loss scale, BatchNorm statistics."""
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        frozen = {name for name, _ in self.named_parameters()} - trained
        return {name: value for name, value in self.state_dict().items() if name not in frozen}

    # -- forward ----------------------------------------------------------------------------------------------------
    def merged_weights(self) -> dict[str, Tensor]:
        """Backbone parameters of the merged model, differentiable in the coefficients."""
        return self.merge(dict(self.model.backbone.named_parameters()))

    def outputs(self, image: Tensor) -> dict[str, Tensor]:
        """Raw head outputs {task: (N,C,h,w)} of the active tasks for images (N,3,H,W) in 0..255."""
        if self._base is not None:  # folded: the backbone already holds the merged weights
            return self.model.raw_outputs(image, self.active)
        weights = {f"backbone.{name}": value for name, value in self.merged_weights().items()}
        return functional_call(self.model, weights, (image,), {"mode": "tensor", "only": self.active})

    def forward(self, image: Tensor, mode: str = "tensor", **batch: Any) -> Any:
        """MMEngine entry point: 'tensor', 'predict' (as MultiTaskModel) or 'loss' ({'loss_<task>': scalar})."""
        if mode == "predict":
            return self.model.to_image_size(self.outputs(image), image)
        if mode == "tensor":
            return self.outputs(image)
        labels = {t: batch[PREFIX + t] for t in self.active} if self.labeller is None else self.labeller(image)
        losses = self.task_losses(self.outputs(image), labels)
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
        return super().parse_losses(losses)

    def task_losses(self, outputs: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Loss of each task between merged output and the expert's raw output, both at head resolution."""
        return {task: self._distance(task, output, labels[task].to(output.device, torch.float32))
                for task, output in outputs.items()}

    def _distance(self, name: str, output: Tensor, expert_output: Tensor) -> Tensor:
        task, output = self.model.tasks[name], output.float()
        target = task.self_label(expert_output, soft=self.options.soft)
        keep = torch.ones_like(output[:, 0], dtype=torch.bool)
        ours, theirs = task.confidence(output.detach()), task.confidence(expert_output)
        if self.options.filter == "confidence" and ours is not None and theirs is not None:
            agree = task.decide(output.detach()) == task.decide(expert_output)
            keep = agree.view_as(keep) | (theirs >= ours)
            if get_world_size() == 1 and not keep.any():
                return output.new_zeros(())  # nothing to learn from: no gradient, no step
        return task.loss(output, target, valid=keep)

    # -- folding ----------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def fold(self) -> None:
        """Put the merged weights into the backbone, for evaluation or export; ``unfold`` brings the base back."""
        if self._base is None:
            merged = self.merged_weights()
            self._base = {name: p.data for name, p in self.model.backbone.named_parameters()}
            for name, parameter in self.model.backbone.named_parameters():
                parameter.data = merged[name]

    def unfold(self) -> None:
        """Restore the base weights after ``fold``; does nothing if not folded."""
        if self._base is not None:
            for name, parameter in self.model.backbone.named_parameters():
                parameter.data = self._base[name]
            self._base = None
