"""FW-Merging: Frank-Wolfe steps over the convex hull of experts and start.

In step k = 0, 1, ... of K, with the gradient g of the loss, averaged over its share of the rounds,

    theta <- theta + gamma_k (v - theta),  v = argmin over the vertices of <g, v>,  gamma_k = step * 2 / (k + 2).

The vertices are the experts and the merge that it starts from. In coefficients, theta = theta_0 + sum_t c_t tau_t, the
gradient of c_t is <g, tau_t>, so the smallest one names the expert.
Chen et al., FW-Merging: scaling model merging with Frank-Wolfe optimization, ICCV 2025,
https://arxiv.org/abs/2503.12649
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from mmengine.dist import all_reduce
from torch import Tensor

from symerge_dense.adaptation.method import AdaptationContext, AdaptiveMethod
from symerge_dense.adaptation.options import SyMergeOptions
from symerge_dense.adaptation.student import Groups, Student
from symerge_dense.adaptation.symerge_model import SyMergeModel
from symerge_dense.merging.arguments import check_choice, check_count, check_within
from symerge_dense.models.backbone import TimmBackbone
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.registry import ADAPTIVE_METHODS


class FrankWolfeStudent(SyMergeModel):
    """Moves the coefficients towards one vertex at a time; the optimizer itself, with a rate of 0, moves nothing.

    Args:
        base: what the experts were fine-tuned from.
        experts: {task: expert}.
        options: of the adaptation; its granularity says which tensors choose their vertex together.
        step: gamma_0.
        iterations: K; never more than there are optimizer steps.
    """

    gradient: Tensor
    _latest: Tensor
    start: Tensor

    def __init__(
        self,
        base: TimmBackbone,
        experts: Mapping[str, MultiTaskModel],
        options: SyMergeOptions,
        step: float,
        iterations: int,
    ) -> None:
        super().__init__(base, experts, options)
        self.step, self.iterations = step, iterations
        self._number, self._complete = 0, False
        coefficients = self.merge.coefficients
        self.register_buffer("start", coefficients.detach().clone())
        self.register_buffer("gradient", torch.zeros_like(coefficients))  # of this step so far, kept by checkpoints
        # of this batch, or this process's part of it
        self.register_buffer("_latest", torch.zeros_like(coefficients), persistent=False)
        coefficients.register_hook(self._note)

    def parameter_groups(self) -> Groups:
        """The coefficients, at rate 0."""
        return [{"params": list(self.merge.parameters()), "lr": 0.0, "weight_decay": 0.0}]

    def before_step(self, iteration: int, steps: int) -> None:
        """Tell the Frank-Wolfe step of this optimizer step, and whether its gradient is complete with it."""
        count = min(self.iterations, steps)
        self._number = iteration * count // steps
        self._complete = (iteration + 1) * count // steps > self._number

    @torch.no_grad()
    def after_step(self) -> None:
        """Add up the gradient, and move once all batches of a Frank-Wolfe step have been seen."""
        all_reduce(self._latest, op="mean")
        if bool(self._latest.isfinite().all()):  # a scaled float16 loss may overflow; such a batch is left out
            self.gradient += self._latest
        self._latest = torch.zeros_like(self.gradient)
        if not self._complete:
            return
        coefficients = self.merge.coefficients
        vertices = chosen_vertices(self.gradient, self.start)
        asked = self.gradient.any(1, keepdim=True)  # without a gradient no vertex is better than another
        coefficients.lerp_(torch.where(asked, vertices, coefficients), self.step * 2 / (self._number + 2))
        self.gradient.zero_()

    def _note(self, gradient: Tensor) -> None:
        self._latest = gradient.detach().clone()


def chosen_vertices(gradient: Tensor, start: Tensor) -> Tensor:
    """The vertex with the smallest scalar product with the gradient, for every group of tensors.

    Args:
        gradient: of the coefficients (G, T).
        start: the coefficients (G, T) of the vertex beside the experts; it is taken where all are equal.

    Returns:
        Coefficients (G, T): one 1 for an expert, or the row of ``start``.
    """
    products = torch.cat([(gradient * start).sum(1, keepdim=True), gradient], 1)
    experts = torch.eye(gradient.shape[1]).to(gradient).expand(len(gradient), -1, -1)
    vertices = torch.cat([start[:, None], experts], 1)
    rows = torch.arange(len(gradient), device=gradient.device)
    return vertices[rows, products.argmin(1)]


@ADAPTIVE_METHODS.register_module()
class FrankWolfe(AdaptiveMethod):
    """The loss of expert labels, minimised within the convex hull of experts and start. The heads stay as they are.

    Published: gradients of the training loss on 100 labelled images per task and step; here of SyMerge's loss, on its
    images, in the context's rounds. Published code compares cosines with the experts' weights themselves, summed over
    tensors, in place of the scalar products, and multiplies its step (0.1) by the scale of its task arithmetic (0.3).

    Args:
        step: gamma_0, in (0, 1]; later steps fall as 2 / (k + 2).
        iterations: Frank-Wolfe steps K, among which the rounds are shared out; published: 10.
        granularity: 'task' lets the whole backbone take one vertex per step, 'tensor' each tensor its own.
    """

    name: ClassVar[str] = "frank_wolfe"
    title: ClassVar[str] = "FW-Merging"
    paper: ClassVar[str] = "https://arxiv.org/abs/2503.12649"
    learns: ClassVar[str] = "coefficients within the experts' hull"
    changes: ClassVar[Mapping[str, Any]] = {
        "clamp": None,
        "density": None,
        "learn_coefficients": True,
        "learn_layer": False,
        "lr_decay": "none",
        "warmup": 0,
        "sharpness": 0.0,
        "schedule": "sum",
        "objective": "labels",
    }

    def __init__(self, step: float = 0.1, iterations: int = 10, granularity: str = "task") -> None:
        self.step = check_within(self.name, "step", step, "(0, 1]", "the length of the first step")
        self.iterations = check_count(self.name, "iterations", iterations, 1, "steps of Frank-Wolfe")
        self.granularity = check_choice(self.name, "granularity", granularity, ("task", "tensor"))

    def student(self, context: AdaptationContext) -> Student:
        options = dataclasses.replace(
            self.options(context),
            granularity=self.granularity,  # type: ignore[arg-type]  # checked above
        )
        return FrankWolfeStudent(context.base, context.experts, options, self.step, self.iterations)

    def note(self, context: AdaptationContext) -> str:
        return "expert labels for ground truth"
