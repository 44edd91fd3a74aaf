"""ProDistill: a coefficient for every element, learned block by block from the experts' features.

For block l: min over a_l of sum_t ||f_l(theta_0 + sum_s a_s * tau_s; h) - f_l(theta_t; h_t)||^2, where h is the output
of the merged blocks before l, and h_t that of the expert's. Blocks are learned in order, one at a time.
Xu et al., 2025, https://arxiv.org/abs/2502.12706
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from symerge_dense.adaptation.low_rank import block_shapes
from symerge_dense.adaptation.method import FROM_EXPERTS, AdaptationContext, AdaptiveMethod, probe_image
from symerge_dense.adaptation.objective import own_images
from symerge_dense.adaptation.options import SyMergeOptions
from symerge_dense.adaptation.student import Groups, MergedStudent, Student
from symerge_dense.merging.arguments import check_within
from symerge_dense.merging.per_weight import PerWeightMerge
from symerge_dense.models.modes import output_at
from symerge_dense.models.multi_task import MultiTaskModel, assemble
from symerge_dense.registry import ADAPTIVE_METHODS


class ProDistillStudent(MergedStudent):
    """Learns the coefficients of one block after the other, each for an equal share of the steps.

    In each step, images run through merged backbone and experts up to the current block. Only this block's coefficients
    get a gradient, so the optimizer leaves all others alone.

    Args:
        model: backbone and heads as they start.
        options: of the adaptation.
        blocks: names of backbone modules, in the order of computation.
        lr: Adam's learning rate.
    """

    def __init__(self, model: MultiTaskModel, options: SyMergeOptions, blocks: Sequence[str], lr: float) -> None:
        super().__init__(model, options)
        self.merge = PerWeightMerge(self.specs, list(model.tasks), options.initial)
        self.blocks, self.lr, self.stage = list(blocks), lr, 0
        self.teachers: dict[str, MultiTaskModel] = {}
        self._settled: dict[str, Tensor] = {}  # merged weights of all other blocks

    def attach(self, experts: Mapping[str, MultiTaskModel]) -> None:
        # kept: every step needs the experts' features
        self.teachers = {task: experts[task].to(self.device) for task in self.model.tasks}
        weights = {task: dict(expert.backbone.named_parameters()) for task, expert in self.teachers.items()}
        self.merge.attach(dict(self.model.backbone.named_parameters()), weights)
        super().attach(experts)

    def parameter_groups(self) -> Groups:
        """All coefficients, without weight decay."""
        return [{"params": list(self.merge.parameters()), "lr": self.lr, "weight_decay": 0.0}]

    def before_step(self, iteration: int, steps: int) -> None:
        """Move to the next block when its turn has come."""
        stage = min(iteration * len(self.blocks) // steps, len(self.blocks) - 1)
        if stage != self.stage:
            self.stage, self._settled = stage, {}

    def log_scalars(self) -> dict[str, Tensor]:
        """The number of the current block, from 0."""
        return {"block": torch.tensor(self.stage)}

    def merged_weights(self) -> dict[str, Tensor]:
        """All backbone parameters, differentiable in their coefficients."""
        return self.merge(dict(self.model.backbone.named_parameters()))

    def distances(self, image: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Summed squared difference of the block's output from each expert's.

        With the mean instead of the sum, the gradient of a single coefficient would be smaller than Adam's epsilon.

        Args:
            image: (N,3,H,W) in 0..255.
            batch: only ``valid_<task>`` is used, which images the task's expert labels.
        """
        own = own_images(batch, self.active)
        block, weights, pixels = self.blocks[self.stage], self._stage_weights(), self.model.normalised(image)
        ours = output_at(
            self.model.backbone.get_submodule(block), lambda: functional_call(self.model.backbone, weights, (pixels,))
        )
        with torch.no_grad():
            theirs = {task: self._expert_output(self.teachers[task], block, image) for task in self.active}
        chosen = {task: own.get(task, slice(None)) for task in theirs}
        return {
            task: F.mse_loss(ours[chosen[task]].float(), output[chosen[task]].float(), reduction="sum")
            for task, output in theirs.items()
        }

    def _expert_output(self, expert: MultiTaskModel, block: str, image: Tensor) -> Tensor:
        return output_at(expert.backbone.get_submodule(block), lambda: expert.features(image))

    def _stage_weights(self) -> dict[str, Tensor]:
        """Merged weights; only the current block's coefficients get a gradient."""
        base, block = dict(self.model.backbone.named_parameters()), self.blocks[self.stage]
        own = [spec.name for spec in self.specs if spec.block_name == block]
        if not self._settled:
            with torch.no_grad():
                self._settled = self.merge(base, [spec.name for spec in self.specs if spec.block_name != block])
        return self._settled | self.merge(base, own)


@ADAPTIVE_METHODS.register_module()
class ProDistill(AdaptiveMethod):
    """Block by block, with Adam without decay, and unbounded coefficients that start at the initial one.

    Blocks are the residual or transformer blocks and the layers between them; the others, such as the stem, keep the
    initial coefficient, as published. The paper gives every block 100 epochs on 64 images per task; here all blocks
    together get the context's rounds. Losses are added without scaling. In every step the experts see the same images
    as the merged encoder, without augmentation.

    Args:
        lr: Adam's learning rate; 1e-2 is the published one.
    """

    name: ClassVar[str] = "prodistill"
    title: ClassVar[str] = "ProDistill"
    paper: ClassVar[str] = "https://arxiv.org/abs/2502.12706"
    learns: ClassVar[str] = "a coefficient per weight, block by block"
    changes: ClassVar[Mapping[str, Any]] = {**FROM_EXPERTS, "balance": "none", "schedule": "sum"}

    def __init__(self, lr: float = 1e-2) -> None:
        self.lr = check_within(self.name, "lr", lr, "(0, inf)", "a learning rate")

    def student(self, context: AdaptationContext) -> Student:
        options = self.options(context)
        model = assemble(context.base, context.experts).to(context.device)
        return ProDistillStudent(model, options, list(block_shapes(model, probe_image(context))), self.lr)

    def note(self, context: AdaptationContext) -> str:
        return "rounds shared out among the blocks; stem at the initial coefficient"
