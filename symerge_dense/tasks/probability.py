"""What tasks share that ask how likely something is at a pixel: cross-entropy on logits, labels from 0 to 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from symerge_dense.tasks.base import Array, DenseTask
from symerge_dense.tasks.colors import Legend, keep_black, paint_scale, scale_colors
from symerge_dense.tasks.metric import Metric
from symerge_dense.tasks.plausibility import ROUNDING, outside_unit_interval
from symerge_dense.tasks.predictions import moments
from symerge_dense.tasks.regression import absolute_error, masked_sum, pixel_sums
from symerge_dense.tasks.storage import PngStorage

EPSILON = 6e-8  # a probability nearer to 0 or 1 has no finite logit in float32


class Probability(DenseTask):
    """A probability, or any share from 0 to 1, in each of ``channels`` channels: saliency, a mask, an attention map.

    The raw output is a logit; ``decide`` puts it through a sigmoid. Targets are 0..1, soft ones too; a channel that is
    no such number makes the pixel invalid. Loss: binary cross-entropy in which a 1 weighs ``positive_weight`` times as
    much as a 0, less the label's own entropy:
    (1 + (positive_weight - 1) q) KL(q || p) for the label q, which is 0 at p = q. Metrics over all valid pixels and
    channels: ``abs`` mean |p - q| (0..1; the MAE of saliency papers), ``f1`` at 0.5, percent.

    Args:
        positive_weight: weight of a 1, > 0; 1 weighs all alike.

    Raises:
        ValueError: ``positive_weight`` is not a positive finite number.
    """

    metrics: ClassVar[dict[str, bool]] = {"abs": False, "f1": True}
    headline: ClassVar[str] = "abs"
    interpolation: ClassVar[Literal["nearest", "masked"]] = "masked"

    def __init__(self, positive_weight: float = 1.0) -> None:
        if not 0 < positive_weight < float("inf"):
            raise ValueError(f"positive_weight={positive_weight} must be a positive number; 1 weighs all pixels alike.")
        self.positive_weight = positive_weight

    def valid(self, target: Tensor) -> Tensor:
        """Pixels whose every channel is a share from 0 to 1, to within the rounding of a resize.

        Labels in another unit are refused where they are read, by ``implausible``.

        Args:
            target: (N,C,H,W).
        """
        return ((target >= 0) & (target <= 1 + ROUNDING)).all(dim=1)

    def implausible(self, target: Array) -> str | None:
        """Values outside 0..1, such as 0..255.

        Args:
            target: (H,W) or (H,W,C).
        """
        return outside_unit_interval(target, self.invalid_value)

    def pixel_loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Weighted Bernoulli divergence of sigmoid(output) from the target, >= 0, averaged over channels.

        Args:
            output: logits (N,C,h,w).
            target: 0..1, (N,C,h,w).
        """
        logit, label = output.float(), target.float()
        label = label.where((label >= 0) & (label <= 1 + ROUNDING), label.new_zeros(())).clamp(max=1)
        cross_entropy = F.binary_cross_entropy_with_logits(logit, label, reduction="none")
        label_entropy = -torch.xlogy(label, label) - torch.xlogy(1 - label, 1 - label)
        return ((1 + (self.positive_weight - 1) * label) * (cross_entropy - label_entropy)).mean(dim=1)

    def self_label(self, expert_output: Tensor, soft: bool = True) -> Tensor:
        """The expert's probability, float32 (N,C,h,w).

        Args:
            expert_output: logits (N,C,h,w).
            soft: True gives the probability, False what ``decide`` says.
        """
        output = expert_output.detach()
        return output.float().sigmoid() if soft else self.decide(output)

    def confidence(self, output: Tensor) -> Tensor:
        """Probability of the likelier answer, 0.5..1, averaged over channels, (N,h,w).

        Args:
            output: logits (N,C,h,w).
        """
        return output.float().abs().sigmoid().mean(dim=1)

    def entropy(self, output: Tensor) -> Tensor:
        """Bernoulli entropy, 0..log 2, averaged over channels, (N,h,w).

        Args:
            output: logits (N,C,h,w).
        """
        logit = output.float()
        entropy = -(logit.sigmoid() * F.logsigmoid(logit) + (-logit).sigmoid() * F.logsigmoid(-logit))
        return entropy.mean(dim=1)

    def decide(self, output: Tensor) -> Tensor:
        """The probability, float32 (N,C,h,w).

        Args:
            output: logits (N,C,h,w).
        """
        return output.float().sigmoid()

    def statistics(self, output: Tensor, target: Tensor) -> Tensor:
        """Rows [valid pixels, sum of |p - q| (mean over channels), true positives, false positives, false negatives].

        Args:
            output: logits (N,C,H,W).
            target: 0..1, (N,C,H,W).
        """
        mask = self.valid(target)
        error = pixel_sums(mask, absolute_error(self.decide(output), target).double())
        return torch.cat([error, outcomes(output > 0, target > 0.5, mask)], dim=1)

    def summarize(self, total: Tensor) -> dict[str, Metric]:
        """Metrics abs (0..1) and f1 (percent), which is NaN where neither truth nor prediction is above 0.5.

        Args:
            total: sum of the rows of ``statistics``, (5,).
        """
        return self.table(float(total[1] / total[0]), f1_precision_recall(total[2:])[0])

    @property
    def invalid_value(self) -> float:
        """Any negative number would do, or NaN."""
        return -1.0

    def average(self, outputs: Sequence[Tensor], weights: Sequence[float] | None = None) -> tuple[Tensor, Tensor]:
        """Logit of the mean probability, and the variance of the probability.

        Args:
            outputs: logits (N,C,h,w), one per view.
            weights: one number >= 0 per view; None weighs all alike.
        """
        mean, variance = moments([output.float().sigmoid() for output in outputs], weights)
        return mean.logit(eps=EPSILON), variance

    @property
    def storage(self) -> PngStorage:
        """16 bits over 0..1; 65535 is stored for 'no label'."""
        return PngStorage.share(self.invalid_value)

    def colorize(self, prediction: Tensor, limits: tuple[float, float] | None = None) -> Array:
        """The first channel on a colour scale from 0 to 1.

        Args:
            prediction: 0..1, (C,H,W).
            limits: not used.
        """
        value = prediction.detach().float().cpu()
        return keep_black(paint_scale(value[0], 0.0, 1.0), ((value >= 0) & value.isfinite()).all(0))

    @classmethod
    def metric_unit(cls, metric: str) -> str:
        """Percent of ``f1``.

        Args:
            metric: its name.
        """
        return "%" if metric == "f1" else ""

    def legend(self, limits: tuple[float, float] | None = None) -> Legend:
        """The colour scale from 0 to 1.

        Args:
            limits: not used.
        """
        return Legend(colors=scale_colors(), low=0.0, high=1.0, unit=self.unit)


def outcomes(predicted: Tensor, true: Tensor, mask: Tensor) -> Tensor:
    """Rows [true positives, false positives, false negatives] of masked pixels, all channels together.

    Args:
        predicted: bool (N,C,H,W).
        true: bool (N,C,H,W).
        mask: bool (N,H,W).

    Returns:
        float64 (N,3).
    """
    kinds = (predicted & true, predicted & ~true, ~predicted & true)
    return torch.stack([masked_sum(kind.double().sum(dim=1), mask) for kind in kinds], dim=1)


def f1_precision_recall(counts: Tensor) -> tuple[float, float, float]:
    """F1, precision and recall in percent; one whose denominator is 0 is NaN.

    Args:
        counts: true positives, false positives, false negatives, (3,).
    """
    hit, false, missed = counts.double()
    parts = ((2 * hit, 2 * hit + false + missed), (hit, hit + false), (hit, hit + missed))
    f1, precision, recall = (float(100 * part / whole) for part, whole in parts)
    return f1, precision, recall
