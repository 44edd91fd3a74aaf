"""Metric depth along the optical axis, in metres."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from symerge_dense.registry import TASKS
from symerge_dense.tasks.base import Array
from symerge_dense.tasks.metric import Metric
from symerge_dense.tasks.protocols import BatchMeans, EigenDepth, labelled
from symerge_dense.tasks.regression import Positive, pixel_sums

SMALLEST_DEPTH = 1e-6  # metres; a ratio needs a positive prediction


@TASKS.register_module()
class Depth(Positive, BatchMeans, EigenDepth):
    """Depth in metres; a target <= 0 or not finite is invalid. Loss: L1 on metres.

    Metrics over all valid pixels of the data set: ``abs`` mean |p-g| (m), ``rel`` mean |p-g|/g (fraction), ``rmse``
    (m), ``delta1`` percent of pixels with max(p/g, g/p) < 1.25 (Eigen et al. 2014, arXiv 1406.2283, section 3.2).
    """

    name: ClassVar[str] = "depth"
    metrics: ClassVar[dict[str, bool]] = {"abs": False, "rel": False, "rmse": False, "delta1": True}
    delta_metrics: ClassVar[tuple[str, ...] | None] = ("abs", "rel")
    channels: int = 1

    def statistics(self, output: Tensor, target: Tensor) -> Tensor:
        """Rows [valid pixels, sum |e|, sum |e|/g, sum e^2, pixels within a factor 1.25]."""
        return _sums(output, target, self.valid(target))

    def summarize(self, total: Tensor) -> dict[str, Metric]:
        """abs (m), rel (fraction), rmse (m), delta1 (percent)."""
        absolute, relative, square, close = (total[1:] / total[0]).tolist()
        return self.table(absolute, relative, square**0.5, 100 * close)

    def mtan_statistics(self, output: Tensor, target: Tensor) -> Tensor:
        """As ``statistics``, of pixels whose target is not 0, a negative one included."""
        return _sums(output, target, labelled(target))

    def mtan_summarize(self, total: Tensor) -> dict[str, Metric]:
        """As ``summarize``; the family publishes ``abs`` and ``rel`` only."""
        return self.summarize(total)

    def zoom(self, target: Array, scale: float) -> Array:
        """What looks ``scale`` times larger is that much nearer."""
        return (target / scale).astype(target.dtype)


def _sums(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    truth = target[:, 0].where(mask, target.new_ones(())).double()
    return pixel_sums(mask, *_errors(output[:, 0].double(), truth))


def _errors(prediction: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """|e|, |e|/g, e^2, and 1 for within a factor 1.25, else 0, of every pixel."""
    error = (prediction - truth).abs()
    positive = prediction.clamp(min=SMALLEST_DEPTH)
    close = torch.maximum(positive / truth, truth / positive) < 1.25
    return error, error / truth, error.square(), close.double()
