"""AdaRank: which singular directions of each task vector are merged is learned, beside one coefficient per tensor.

theta = theta_0 + sum_t a_t U_t diag(b_t * s_t) V_t^T with tau_t = U_t diag(s_t) V_t^T and binary b_t = 1 where
sigmoid(m_t / 10) > 1/2. The gradient of m_t is that with sigmoid(m_t / 10) in place of b_t (straight-through).
Lee et al., ICLR 2026, https://arxiv.org/abs/2503.22178
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from symerge_dense.adaptation.method import AdaptationContext, OptionVariant
from symerge_dense.adaptation.options import SyMergeOptions
from symerge_dense.adaptation.student import Groups, Student
from symerge_dense.adaptation.symerge_model import SyMergeModel
from symerge_dense.models.backbone import TimmBackbone
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.registry import ADAPTIVE_METHODS

SOFTNESS = 10.0
KEPT = 0.1  # of m at first: every direction is merged
STEPS, RATE = 10_000, 1e-3  # published


def straight_through(scores: Tensor) -> Tensor:
    """1 where the sigmoid of score / 10 is above 1/2, else 0; the gradient is the sigmoid's.

    Args:
        scores: m, of any shape.
    """
    soft = torch.sigmoid(scores / SOFTNESS)
    return (soft > 0.5).to(soft.dtype) + (soft - soft.detach())


class AdaRankStudent(SyMergeModel):
    """SyMerge's merge, whose coefficients of singular directions are a scale of their tensor times their mask.

    ``merge.coefficients`` follow, without being learned themselves. A tensor with one row of coefficients, a bias for
    example, has a scale alone.

    Args:
        base: what the experts were fine-tuned from.
        experts: {task: expert}.
        options: of the adaptation, with granularity 'singular'.
    """

    owner: Tensor
    masked: Tensor

    def __init__(self, base: TimmBackbone, experts: Mapping[str, MultiTaskModel], options: SyMergeOptions) -> None:
        super().__init__(base, experts, options)
        groups, tasks = len(self.merge.groups), len(self.merge.tasks)
        owner = torch.arange(groups) if self.merge.owner is None else self.merge.owner.clone()
        masked = (owner.bincount(minlength=groups) > 1)[owner].nonzero()[:, 0]
        self.register_buffer("owner", owner, persistent=False)  # the tensor of every row
        self.register_buffer("masked", masked, persistent=False)  # rows of tensors with several directions
        self.merge.requires_grad_(False)
        self.scales = nn.Parameter(torch.full((groups, tasks), float(options.initial)))
        self.scores = nn.Parameter(torch.full((len(masked), tasks), KEPT))

    def parameter_groups(self) -> Groups:
        """Scales and scores, at the rate of coefficients."""
        return [{"params": [self.scales, self.scores], "lr": self.options.coefficient_lr, "weight_decay": 0.0}]

    def coefficients(self) -> Tensor:
        """One for every direction and task (R, T), differentiable in scales and scores."""
        ones = torch.ones(len(self.owner), self.scores.shape[1], device=self.scores.device)
        return self.scales[self.owner] * ones.index_copy(0, self.masked, straight_through(self.scores))

    def merged_weights(self) -> dict[str, Tensor]:
        """Backbone parameters of the merged model, differentiable in scales and scores."""
        coefficients = self.coefficients()
        self.merge.coefficients.data.copy_(coefficients.detach())
        base = dict(self.model.backbone.named_parameters())
        merged: dict[str, Tensor] = functional_call(self.merge, {"coefficients": coefficients}, (base,))
        return merged

    @torch.no_grad()
    def after_step(self) -> None:
        """Project the scales into their interval, if there is one; ``merge.coefficients`` follow."""
        if self.options.clamp is not None:
            self.scales.clamp_(*self.options.clamp)
        self.merge.coefficients.copy_(self.coefficients())

    def log_scalars(self) -> dict[str, Tensor]:
        """The mean coefficient of every task, and the share of its directions that are merged."""
        shares = (self.scores.detach() > 0).float().mean(0)
        named = {f"directions_{task}": share for task, share in zip(self.merge.tasks, shares, strict=True)}
        return super().log_scalars() | named


@ADAPTIVE_METHODS.register_module()
class AdaRank(OptionVariant):
    """Masks and coefficients learn from expert labels, where the paper takes the entropy; the heads stay as they are.

    All directions are merged at first. The rate is ten times the published one: at that one a score needs a third of
    the default 300 rounds, all in one direction, to fall from 0.1 below 0. Every matrix and kernel (O, I * kh * kw) has
    masks; published: the matrices of attention and MLP. Masks are folded into the weights.
    """

    name: ClassVar[str] = "adarank"
    title: ClassVar[str] = "AdaRank"
    paper: ClassVar[str] = "https://arxiv.org/abs/2503.22178"
    learns: ClassVar[str] = "coefficients, masks of singular directions"
    changes: ClassVar[Mapping[str, Any]] = {
        "objective": "labels",
        "granularity": "singular",
        "singular_rank": None,
        "initial": 0.3,
        "clamp": None,
        "density": None,
        "learn_coefficients": True,
        "learn_layer": False,
        "coefficient_lr": 1e-2,
        "lr_decay": "none",
        "warmup": 0,
        "sharpness": 0.0,
        "schedule": "sum",
    }

    def student(self, context: AdaptationContext) -> Student:
        return AdaRankStudent(context.base, context.experts, self.options(context))

    def note(self, context: AdaptationContext) -> str:
        options = self.options(context)
        steps = f"{options.rounds} steps at {options.coefficient_lr:g}, {STEPS} at {RATE:g} in the paper"
        return f"expert labels for entropy; {steps}"
