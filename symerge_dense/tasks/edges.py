"""Edges: is this pixel on a boundary between surfaces?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from symerge_dense.datasets.targets import INVALID_LABEL
from symerge_dense.registry import TASKS
from symerge_dense.tasks.base import Array, DenseTask
from symerge_dense.tasks.colors import Legend, keep_black
from symerge_dense.tasks.metric import Metric
from symerge_dense.tasks.predictions import moments
from symerge_dense.tasks.regression import masked_sum
from symerge_dense.tasks.storage import PngStorage

PAPER, INK = 245.0, 40.0  # grey levels of a picture
EPSILON = 6e-8  # a probability nearer to 0 or 1 has no finite logit in float32


@TASKS.register_module()
class Edges(DenseTask):
    """One logit per pixel; targets 0 or 1, 255 is invalid.

    Loss: binary cross-entropy in which an edge pixel weighs ``positive_weight`` times as much as another. On a soft
    label q it is (1 + (positive_weight - 1) q) KL(q || p): the same number for q in {0, 1}, and 0 at p = q.
    With weight w, p = 0.5 stands for an edge probability of 1 / (1 + w); the F1-optimal threshold is half the best F1
    (Lipton et al. 2014, arXiv 1402.1892), hence the default. Metrics at p > 0.5 over all valid pixels of the data
    set, in percent: ``f1``, ``precision``, ``recall``.

    Args:
        positive_weight: weight of an edge pixel, > 0; 1 weighs all pixels alike.

    Raises:
        ValueError: ``positive_weight`` is not a positive finite number.
    """

    name: ClassVar[str] = "edges"
    metrics: ClassVar[dict[str, bool]] = {"f1": True, "precision": True, "recall": True}
    headline: ClassVar[str] = "f1"
    channels: int = 1

    def __init__(self, positive_weight: float = 3.0) -> None:
        if not 0 < positive_weight < float("inf"):
            raise ValueError(f"positive_weight={positive_weight} must be a positive number; 1 weighs all pixels alike.")
        self.positive_weight = positive_weight

    def valid(self, target: Tensor) -> Tensor:
        """Pixels whose target is between 0 and 1.

        Args:
            target: (N,1,H,W).
        """
        return ((target >= 0) & (target <= 1))[:, 0]

    def pixel_loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Weighted Bernoulli divergence of sigmoid(output) from the target, >= 0.

        Args:
            output: logits (N,1,h,w).
            target: 0, 1 or a probability, (N,1,h,w).
        """
        logit, label = output[:, 0].float(), target[:, 0].float()
        label = label.where(self.valid(target), label.new_zeros(()))
        cross_entropy = F.binary_cross_entropy_with_logits(logit, label, reduction="none")
        label_entropy = -torch.xlogy(label, label) - torch.xlogy(1 - label, 1 - label)
        return (1 + (self.positive_weight - 1) * label) * (cross_entropy - label_entropy)

    def self_label(self, expert_output: Tensor, soft: bool = True) -> Tensor:
        """Edge probability, or the 0/1 decision, float32 (N,1,h,w).

        Args:
            expert_output: logits (N,1,h,w).
            soft: True gives the probability, False the decision.
        """
        output = expert_output.detach()
        return output.float().sigmoid() if soft else self.decide(output)

    def confidence(self, output: Tensor) -> Tensor:
        """Probability of the likelier answer, 0.5..1, (N,h,w).

        Args:
            output: logits (N,1,h,w).
        """
        return output[:, 0].float().abs().sigmoid()

    def entropy(self, output: Tensor) -> Tensor:
        """Bernoulli entropy, 0..log 2, (N,h,w).

        Args:
            output: logits (N,1,h,w).
        """
        logit = output[:, 0].float()
        return -(logit.sigmoid() * F.logsigmoid(logit) + (-logit).sigmoid() * F.logsigmoid(-logit))

    def decide(self, output: Tensor) -> Tensor:
        """1 where the edge probability is above 0.5, else 0; float32 (N,1,h,w).

        Args:
            output: logits (N,1,h,w).
        """
        return (output > 0).float()

    def statistics(self, output: Tensor, target: Tensor) -> Tensor:
        """Rows [true positives, false positives, false negatives]; a target above 0.5 is an edge.

        Args:
            output: logits (N,1,H,W).
            target: (N,1,H,W).
        """
        mask, predicted, edge = self.valid(target), output[:, 0] > 0, target[:, 0] > 0.5
        outcomes = (predicted & edge, predicted & ~edge, ~predicted & edge)
        return torch.stack([masked_sum(outcome.double(), mask) for outcome in outcomes], dim=1)

    def summarize(self, total: Tensor) -> dict[str, Metric]:
        """Metrics f1, precision, recall in percent.

        A precision without predicted edges, a recall without true edges and an f1 without either are NaN.

        Args:
            total: sum of the rows of ``statistics``, (3,).
        """
        hit, false, missed = total.double()
        return self.table(
            *(
                float(100 * part / whole)
                for part, whole in ((2 * hit, 2 * hit + false + missed), (hit, hit + false), (hit, hit + missed))
            )
        )

    @property
    def invalid_value(self) -> float:
        """Neither 0 nor 1."""
        return float(INVALID_LABEL)

    def colorize(self, prediction: Tensor, limits: tuple[float, float] | None = None) -> Array:
        """Dark lines on white paper.

        Args:
            prediction: 0/1 decision or target (1,H,W).
            limits: not used.
        """
        value = prediction.detach().float().cpu()
        level = (PAPER + (INK - PAPER) * value[0].nan_to_num().clamp(0, 1)).round().byte()
        return keep_black(level.unsqueeze(-1).repeat(1, 1, 3).numpy(), self.valid(value[None])[0])

    def average(self, outputs: Sequence[Tensor], weights: Sequence[float] | None = None) -> tuple[Tensor, Tensor]:
        """Logit of the mean probability, and the variance of the probability.

        Args:
            outputs: logits (N,1,h,w), one per view.
            weights: one number >= 0 per view; None weighs all alike.
        """
        mean, variance = moments([output.float().sigmoid() for output in outputs], weights)
        return mean.logit(eps=EPSILON), variance

    @property
    def storage(self) -> PngStorage:
        """0 or 1 as it is; 255 is stored for 'no label'."""
        return PngStorage("uint8", invalid=INVALID_LABEL, marker=self.invalid_value)

    def legend(self, limits: tuple[float, float] | None = None) -> Legend:
        """Line and paper.

        Args:
            limits: not used.
        """
        return Legend(("no", "yes"), ((round(PAPER),) * 3, (round(INK),) * 3))
