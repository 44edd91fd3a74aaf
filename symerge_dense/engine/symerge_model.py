"""The model that SyMerge adapts: a backbone merged layer by layer, and the experts' heads.

SyMerge, https://arxiv.org/abs/2412.19098: the merging coefficients and one layer of each head learn together.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from symerge_dense.engine.merged_student import MergedStudent
from symerge_dense.engine.options import SyMergeOptions
from symerge_dense.engine.student import PREFIX, Groups
from symerge_dense.experts.model import MultiTaskModel
from symerge_dense.merging.elected import elected_experts
from symerge_dense.merging.layerwise import LayerwiseMerge

__all__ = ["PREFIX", "SyMergeModel"]


class SyMergeModel(MergedStudent):
    """A multi-task model whose backbone weights are base + coefficients x task vectors.

    Args:
        model: base weights in the backbone, the experts' heads.
        options: see SyMergeOptions.

    ``merge.coefficients`` and the adapted layer of each head learn. Task vectors arrive later, by ``attach``.
    """

    def __init__(self, model: MultiTaskModel, options: SyMergeOptions) -> None:
        super().__init__(model, options)
        self.merge = LayerwiseMerge(self.specs, list(model.tasks), granularity=options.granularity,
                                    init=options.initial, clamp=options.clamp)
        self.merge.requires_grad_(options.learn_coefficients)
        self.adapted = {task: head.layer_modules(options.layer) for task, head in model.named_heads()}
        for parameter in self.layer_parameters():
            parameter.requires_grad_(options.learn_layer)

    def attach(self, experts: Mapping[str, MultiTaskModel]) -> None:
        """Compute the experts' task vectors. Raises ValueError if an expert is missing or its backbone does not fit."""
        base = dict(self.model.backbone.named_parameters())
        weights: Mapping[str, Mapping[str, Tensor]] = {
            task: dict(experts[task].to(self.device).backbone.named_parameters()) for task in self.model.tasks}
        if self.options.density is not None:
            weights = elected_experts(base, weights, self.merge.specs, self.options.density)
        self.merge.attach(base, weights)
        super().attach(experts)

    # -- what learns ------------------------------------------------------------------------------------------------
    def layer_parameters(self) -> list[nn.Parameter]:
        """Parameters of the adapted layers of all heads."""
        layers = (self.model.heads[task].get_submodule(name) for task, names in self.adapted.items() for name in names)
        return [parameter for layer in layers for parameter in layer.parameters()]

    def parameter_groups(self) -> Groups:
        """Coefficients and adapted layers with their own learning rates; what does not learn is left out."""
        options = self.options
        groups = [
            {"params": list(self.merge.parameters()), "lr": options.coefficient_lr, "weight_decay": 0.0},
            {"params": self.layer_parameters(), "lr": options.layer_lr, "weight_decay": options.weight_decay},
        ]
        wanted = (options.learn_coefficients, options.learn_layer)
        return [group for group, on in zip(groups, wanted, strict=True) if on]

    def after_step(self) -> None:
        """Project the coefficients into their interval."""
        self.merge.project_()

    def watched(self) -> dict[str, Tensor]:
        """The mean coefficient of every task."""
        means = self.merge.coefficients.detach().mean(0)
        return {f"coefficient_mean_{task}": mean for task, mean in zip(self.model.tasks, means, strict=True)}

    def merged_weights(self) -> dict[str, Tensor]:
        """Backbone parameters of the merged model, differentiable in the coefficients."""
        return self.merge(dict(self.model.backbone.named_parameters()))
