"""Surface normals: the unit vector perpendicular to the surface under a pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from symerge_dense.datasets.targets import SHORTEST_NORMAL
from symerge_dense.registry import TASKS
from symerge_dense.tasks.base import Array, DenseTask
from symerge_dense.tasks.colors import Legend, keep_black
from symerge_dense.tasks.metric import Metric
from symerge_dense.tasks.plausibility import not_unit_vectors
from symerge_dense.tasks.predictions import moments
from symerge_dense.tasks.protocols import BatchMeans, labelled
from symerge_dense.tasks.regression import masked_sum
from symerge_dense.tasks.storage import PngStorage

THRESHOLDS = (11.25, 22.5, 30.0)  # degrees
BINS = 1800  # of 0.1 degree each
FINE_BINS = 18000  # of 0.01 degree each


def unit(vectors: Tensor, eps: float = 1e-12) -> Tensor:
    """Scale vectors to length 1.

    Args:
        vectors: (N,C,H,W).
        eps: vectors shorter than this are divided by it.
    """
    # many times faster than torch.norm, which is slow along a dimension that is not the last
    return vectors * vectors.square().sum(dim=1, keepdim=True).clamp(min=eps * eps).rsqrt()


def unit_truth(target: Tensor) -> Tensor:
    """Scale target vectors to length 1; an entry that is not finite counts as 0.

    Args:
        target: (N,3,H,W).
    """
    return unit(target.nan_to_num(0.0, 0.0, 0.0))


class UnitVectors(DenseTask):
    """A task of directions: vectors of any length, of which the direction counts. Loss: 1 - cosine."""

    def valid(self, target: Tensor) -> Tensor:
        """Pixels whose vector has length >= 0.5; one with a NaN or infinite entry is never valid.

        Args:
            target: (N,C,H,W).
        """
        square = target.float().square().sum(dim=1)
        return (square >= SHORTEST_NORMAL**2) & square.isfinite()

    def pixel_loss(self, output: Tensor, target: Tensor) -> Tensor:
        """1 - cosine, in 0..2.

        Args:
            output: raw vectors (N,C,h,w) of any length.
            target: ground truth or self-label (N,C,h,w).
        """
        # eps bounds the gradient, which grows as 1/length, for an untrained head with outputs close to zero
        return 1 - (unit(output.float(), eps=1e-3) * unit_truth(target.float())).sum(dim=1)

    def self_label(self, expert_output: Tensor, soft: bool = True) -> Tensor:
        """The expert's unit vectors.

        Args:
            expert_output: raw vectors (N,C,h,w).
            soft: makes no difference.
        """
        return self.decide(expert_output.detach())

    def decide(self, output: Tensor) -> Tensor:
        """Unit vectors (N,C,h,w).

        Args:
            output: raw vectors (N,C,h,w).
        """
        return unit(output.float())

    def average(self, outputs: Sequence[Tensor], weights: Sequence[float] | None = None) -> tuple[Tensor, Tensor]:
        """Mean of the unit vectors, and their variance, 0..1: 1 minus the mean's squared length.

        Args:
            outputs: raw vectors (N,C,h,w), one per view.
            weights: one number >= 0 per view; None weighs all alike.
        """
        return moments([self.decide(output) for output in outputs], weights)

    @property
    def storage(self) -> PngStorage:
        """-1..1 as 0..65535 per component; 0 in all, which no unit vector has, for 'no label'."""
        return PngStorage("uint16", scale=2 / 65535, offset=-1.0, marker=self.invalid_value)

    @classmethod
    def metric_unit(cls, metric: str) -> str:
        """Degrees, and percent of pixels within a limit.

        Args:
            metric: its name.
        """
        return "%" if metric.startswith("within_") else "°"


@TASKS.register_module()
class Normals(UnitVectors, BatchMeans):
    """Unit vectors, channels (x right, z forward, y up); a target shorter than 0.5 or not finite is invalid.

    Loss: 1 - cosine of the angle between prediction and target, both normalised. Metrics over all valid pixels of
    the data set: ``mean`` and ``median`` angle (degrees), ``within_t`` percent of angles < t degrees (Fouhey et al.
    2013). A zero prediction is 90 degrees off. The median is read from a histogram of 0.1-degree bins and is within
    0.05 degree of the exact one; everything else is exact.
    """

    name: ClassVar[str] = "normals"
    moves: ClassVar[frozenset[str]] = frozenset({"mirror", "zoom", "rotation"})
    metrics: ClassVar[dict[str, bool]] = {
        "mean": False,
        "median": False,
        **{f"within_{limit:g}": True for limit in THRESHOLDS},
    }
    headline: ClassVar[str] = "mean"
    interpolation: ClassVar[Literal["nearest", "masked"]] = "masked"
    channels: int = 3

    def implausible(self, target: Array) -> str | None:
        """Vectors of another length than 1.

        Args:
            target: (H,W,3).
        """
        return not_unit_vectors(target)

    def statistics(self, output: Tensor, target: Tensor) -> Tensor:
        """Rows [valid pixels, sum of angles (degrees), pixels under each threshold, histogram of 1800 bins].

        Args:
            output: raw vectors (N,3,H,W).
            target: (N,3,H,W).
        """
        return _sums(_angles(output, unit_truth(target.double())), self.valid(target), BINS)

    def summarize(self, total: Tensor) -> dict[str, Metric]:
        """Metrics mean and median in degrees, within_11.25, within_22.5, within_30 in percent.

        Args:
            total: sum of the rows of ``statistics``, (K,).
        """
        split = 2 + len(THRESHOLDS)
        mean, *within = (total[1:split] / total[0]).tolist()
        return self.table(mean, histogram_median(total[split:]), *(100 * share for share in within))

    def mtan_statistics(self, output: Tensor, target: Tensor) -> Tensor:
        """The same sums as ``statistics``, with MTAN's mask and a histogram of 0.01-degree bins.

        The median is within 0.005 degree of the exact one. The target is used as it is, however short. A zero
        prediction is 90 degrees off; the family's own code gives NaN.

        Args:
            output: raw vectors (N,3,H,W).
            target: (N,3,H,W).
        """
        return _sums(_angles(output, target.double()), labelled(target), FINE_BINS)

    def mtan_summarize(self, total: Tensor) -> dict[str, Metric]:
        """The same metrics as ``summarize``.

        FusionBench's median is the lower of the two middle values, here it is their mean.

        Args:
            total: sum of the rows of ``mtan_statistics``, (K,).
        """
        return self.summarize(total)

    def mtan_batch(self, output: Tensor, target: Tensor) -> list[float]:
        """Metrics of one batch by the rules of ``mtan_statistics``, with an exact median: a batch can be sorted.

        Args:
            output: raw vectors (N,3,H,W).
            target: (N,3,H,W).
        """
        angle = _angles(output, target.double())[labelled(target)].cpu()
        median = float(np.median(angle.numpy())) if angle.numel() else float("nan")
        within = [float(100 * (angle < limit).double().mean()) for limit in THRESHOLDS]
        return [float(angle.mean()), median, *within]

    @property
    def invalid_value(self) -> float:
        """The zero vector."""
        return 0.0

    def flip(self, target: Array) -> Array:
        """Change the sign of x: a mirrored surface leans the other way.

        Args:
            target: mirrored normals (H,W,3).
        """
        mirrored = target.copy()
        mirrored[..., 0] *= -1
        return mirrored

    def rotate(self, target: Array, angle: float) -> Array:
        """Turn x and y: a surface leans where the picture was turned to.

        Args:
            target: turned normals (H,W,3).
            angle: counter-clockwise, in radians.
        """
        turned, cosine, sine = target.copy(), np.cos(angle), np.sin(angle)
        turned[..., 0] = cosine * target[..., 0] - sine * target[..., 2]
        turned[..., 2] = sine * target[..., 0] + cosine * target[..., 2]
        return turned

    def renormalize(self, target: Array) -> Array:
        """Scale vectors to length 1 after they were mixed; one shorter than 0.5 or not finite becomes 0.

        Args:
            target: (H,W,3).
        """
        vectors = np.asarray(target, np.promote_types(target.dtype, np.float32))
        x, y, z = np.moveaxis(vectors, -1, 0)  # each by itself: four times faster than np.linalg.norm and a division
        square = x * x + y * y + z * z
        known, length = (square >= SHORTEST_NORMAL**2) & (square < np.inf), np.sqrt(square)
        result = np.zeros_like(vectors)
        for channel, values in enumerate((x, y, z)):
            np.divide(values, length, out=result[..., channel], where=known)
        return result.astype(target.dtype, copy=False)

    def colorize(self, prediction: Tensor, limits: tuple[float, float] | None = None) -> Array:
        """Red right, green up, blue towards the viewer, -1..1 as 0..255.

        Args:
            prediction: (3,H,W).
            limits: not used.
        """
        vectors = prediction.detach().float().cpu()
        right, forward, up = unit_truth(vectors[None])[0]
        colors = torch.stack([right, up, -forward], dim=-1).add(1).mul(127.5).round().byte()
        return keep_black(colors.numpy(), self.valid(vectors[None])[0])

    def mirror_output(self, output: Tensor) -> Tensor:
        """Vectors turned back: x changes its sign.

        Args:
            output: raw vectors (N,3,h,w) of the mirrored image.
        """
        return output.flip(-1) * output.new_tensor([-1, 1, 1]).view(1, 3, 1, 1)

    def legend(self, limits: tuple[float, float] | None = None) -> Legend:
        """Colours of the three axes' directions.

        Args:
            limits: not used.
        """
        axes = {"right": (1, 0, 0), "up": (0, 0, 1), "towards the viewer": (0, -1, 0)}
        colors = self.colorize(torch.tensor(list(axes.values())).T[:, None])[0].tolist()
        return Legend(tuple(axes), tuple((red, green, blue) for red, green, blue in colors))


def _angles(output: Tensor, truth: Tensor) -> Tensor:
    """Degrees (N,H,W) between the raw output (N,3,H,W) and ``truth``, whose length counts."""
    return (unit(output.double()) * truth).sum(dim=1).clamp(-1, 1).acos().rad2deg()


def _sums(angle: Tensor, mask: Tensor, bins: int) -> Tensor:
    """Rows [pixels of ``mask``, sum of their angles, number under each threshold, their histogram], (N, 5 + bins)."""
    sums = [masked_sum((angle < limit).double(), mask) for limit in THRESHOLDS]
    image = torch.arange(len(angle), device=angle.device).view(-1, 1, 1)
    cell = image * bins + (angle.nan_to_num(180.0) * (bins / 180)).long().clamp(max=bins - 1)
    histogram = torch.bincount(cell[mask], minlength=len(angle) * bins).view(len(angle), bins)
    head = torch.stack([mask.sum((1, 2)).double(), masked_sum(angle, mask), *sums], dim=1)
    return torch.cat([head, histogram.double()], dim=1)


def histogram_median(counts: Tensor) -> float:
    """Median angle of a histogram: the mean of the two middle values, each taken at its bin's centre.

    The error is at most half a bin, however far apart the two middle values lie.

    Args:
        counts: pixels per bin, over 0..180 degrees.

    Returns:
        degrees; NaN for an empty histogram.
    """
    number = int(counts.sum())
    if number == 0:
        return float("nan")
    middle = torch.tensor([(number + 1) // 2, number // 2 + 1], dtype=counts.dtype, device=counts.device)
    bins = torch.searchsorted(counts.cumsum(0), middle)
    return float((bins.double() + 0.5).mean() * (180 / len(counts)))
