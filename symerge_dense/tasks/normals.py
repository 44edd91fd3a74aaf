"""Surface normals: the unit vector that stands on the surface under a pixel."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from symerge_dense.registry import TASKS
from symerge_dense.tasks.base import Array, Metric
from symerge_dense.tasks.mtan import BatchMeans
from symerge_dense.tasks.regression import masked_sum

THRESHOLDS = (11.25, 22.5, 30.0)  # degrees
BINS = 1800  # of 0.1 degree each
SHORTEST = 0.5  # a shorter target vector has no direction worth the name: quantised zero, or a blend of opposites


def unit(vectors: Tensor, eps: float = 1e-12) -> Tensor:
    """(N,3,H,W) scaled to length 1; vectors shorter than ``eps`` are divided by ``eps``."""
    # many times faster than torch.norm, which is slow along a dimension that is not the last
    return vectors * vectors.square().sum(dim=1, keepdim=True).clamp(min=eps * eps).rsqrt()


def unit_truth(target: Tensor) -> Tensor:
    """(N,3,H,W) target scaled to length 1; an entry that is not finite counts as 0."""
    return unit(target.nan_to_num(0.0, 0.0, 0.0))


@TASKS.register
class Normals(BatchMeans):
    """Unit vectors, channels (x right, z forward, y up); a target shorter than 0.5 or not finite is invalid.

    Loss: 1 - cosine of the angle between prediction and target, both normalised. Metrics over all valid pixels of
    the data set: ``mean`` and ``median`` angle (degrees), ``within_t`` percent of angles < t degrees (Fouhey et al.
    2013). A zero prediction is 90 degrees off. The median is read from a histogram of 0.1-degree bins and is within
    0.05 degree of the exact one; everything else is exact.
    """

    name: ClassVar[str] = "normals"
    metrics: ClassVar[dict[str, bool]] = {
        "mean": False, "median": False, **{f"within_{limit:g}": True for limit in THRESHOLDS}}
    headline: ClassVar[str] = "mean"
    interpolation: ClassVar[Literal["nearest", "masked"]] = "masked"
    channels: int = 3

    def valid(self, target: Tensor) -> Tensor:
        """Length >= 0.5; a NaN or infinite entry never is."""
        square = target.float().square().sum(dim=1)
        return (square >= SHORTEST ** 2) & square.isfinite()

    def pixel_loss(self, output: Tensor, target: Tensor) -> Tensor:
        """1 - cosine, in 0..2."""
        # eps bounds the gradient, which grows as 1/length, where an untrained head is close to zero
        return 1 - (unit(output.float(), eps=1e-3) * unit_truth(target.float())).sum(dim=1)

    def self_label(self, expert_output: Tensor, soft: bool = True) -> Tensor:
        """The expert's unit vectors; ``soft`` makes no difference."""
        return self.decide(expert_output.detach())

    def decide(self, output: Tensor) -> Tensor:
        """Unit vectors (N,3,h,w)."""
        return unit(output.float())

    def statistics(self, output: Tensor, target: Tensor) -> Tensor:
        """Rows [valid pixels, sum of angles (degrees), pixels under each threshold, histogram of 1800 bins]."""
        mask = self.valid(target)
        cosine = (unit(output.double()) * unit_truth(target.double())).sum(dim=1)
        angle = cosine.clamp(-1, 1).acos().rad2deg()
        sums = [masked_sum((angle < limit).double(), mask) for limit in THRESHOLDS]
        bins = (angle.nan_to_num(180.0) * (BINS / 180)).long().clamp(max=BINS - 1)
        image = torch.arange(len(bins), device=bins.device).view(-1, 1, 1)
        histogram = torch.bincount((image * BINS + bins)[mask], minlength=len(bins) * BINS).view(len(bins), BINS)
        head = torch.stack([mask.sum((1, 2)).double(), masked_sum(angle, mask), *sums], dim=1)
        return torch.cat([head, histogram.double()], dim=1)

    def summarize(self, total: Tensor) -> dict[str, Metric]:
        """mean and median in degrees, within_11.25, within_22.5, within_30 in percent."""
        split = 2 + len(THRESHOLDS)
        mean, *within = (total[1:split] / total[0]).tolist()
        return self.table(mean, histogram_median(total[split:]), *(100 * share for share in within))

    def mtan_batch(self, output: Tensor, target: Tensor) -> list[float]:
        """Of pixels whose target's components do not sum to 0; here the median is exact, not from a histogram.

        The target counts as it is, however short. A zero prediction is 90 degrees off; MTAN's own code gives NaN.
        """
        cosine = (unit(output.double()) * target.double()).sum(dim=1)[target.sum(dim=1) != 0]
        angle = cosine.clamp(-1, 1).acos().rad2deg().cpu()
        median = float(np.median(angle.numpy())) if angle.numel() else float("nan")
        within = [float(100 * (angle < limit).double().mean()) for limit in THRESHOLDS]
        return [float(angle.mean()), median, *within]

    @property
    def invalid_value(self) -> float:
        """The zero vector."""
        return 0.0

    def flip(self, target: Array) -> Array:
        """A mirrored surface leans the other way: x changes its sign."""
        mirrored = target.copy()
        mirrored[..., 0] *= -1
        return mirrored

    def colorize(self, prediction: Tensor, limits: tuple[float, float] | None = None) -> Array:
        """Red right, green up, blue towards the viewer, -1..1 as 0..255; ``limits`` is not used."""
        vectors = prediction.detach().float().cpu()
        right, forward, up = unit_truth(vectors[None])[0]
        colors = torch.stack([right, up, -forward], dim=-1).add(1).mul(127.5).round().byte()
        picture: Array = colors.where(self.valid(vectors[None])[0].unsqueeze(-1), colors.new_zeros(())).numpy()
        return picture


def histogram_median(counts: Tensor) -> float:
    """Median angle of a histogram over 0..180 degrees: the mean of both middle values, each put at its bin's centre.

    Off by at most half a bin, however far apart the two middle values lie. NaN for an empty histogram.
    """
    number = int(counts.sum())
    if number == 0:
        return float("nan")
    middle = torch.tensor([(number + 1) // 2, number // 2 + 1], dtype=counts.dtype, device=counts.device)
    bins = torch.searchsorted(counts.cumsum(0), middle)
    return float((bins.double() + 0.5).mean() * (180 / len(counts)))
