"""Metric depth along the optical axis, in metres."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from symerge_dense.registry import TASKS
from symerge_dense.tasks.base import Array, Metric
from symerge_dense.tasks.mtan import BatchMeans
from symerge_dense.tasks.regression import Regression, masked_sum

SMALLEST_DEPTH = 1e-6  # metres; a ratio needs a positive prediction


@TASKS.register
class Depth(Regression, BatchMeans):
    """Depth in metres; a target <= 0 or not finite is invalid. Loss: L1 on metres.

    Metrics over all valid pixels of the data set: ``abs`` mean |p-g| (m), ``rel`` mean |p-g|/g (fraction), ``rmse``
    (m), ``delta1`` percent of pixels with max(p/g, g/p) < 1.25 (Eigen et al. 2014, arXiv 1406.2283, section 3.2).
    """

    name: ClassVar[str] = "depth"
    metrics: ClassVar[dict[str, bool]] = {"abs": False, "rel": False, "rmse": False, "delta1": True}
    channels: int = 1

    def valid(self, target: Tensor) -> Tensor:
        """Finite and > 0."""
        return ((target > 0) & target.isfinite())[:, 0]

    def statistics(self, output: Tensor, target: Tensor) -> Tensor:
        """Rows [valid pixels, sum |e|, sum |e|/g, sum e^2, pixels within a factor 1.25]."""
        mask = self.valid(target)
        truth = target[:, 0].where(mask, target.new_ones(())).double()
        prediction = output[:, 0].double()
        sums = [masked_sum(value, mask) for value in _errors(prediction, truth)]
        return torch.stack([mask.sum((1, 2)).double(), *sums], dim=1)

    def summarize(self, total: Tensor) -> dict[str, Metric]:
        """abs (m), rel (fraction), rmse (m), delta1 (percent)."""
        absolute, relative, square, close = (total[1:] / total[0]).tolist()
        return self.table(absolute, relative, square ** 0.5, 100 * close)

    def mtan_batch(self, output: Tensor, target: Tensor) -> list[float]:
        """Means over pixels whose target is not 0, a negative one included; ``rmse`` and ``delta1`` are unpublished."""
        mask = target.sum(dim=1) != 0
        errors = _errors(output[:, 0][mask].double(), target[:, 0][mask].double())
        absolute, relative, square, close = (float(error.mean()) for error in errors)
        return [absolute, relative, square ** 0.5, 100 * close]

    @property
    def invalid_value(self) -> float:
        """No measurement."""
        return 0.0

    def zoom(self, target: Array, scale: float) -> Array:
        """What looks ``scale`` times larger is that much nearer."""
        return (target / scale).astype(target.dtype)


def _errors(prediction: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """|e|, |e|/g, e^2, and 1 for within a factor 1.25, else 0, of every pixel."""
    error = (prediction - truth).abs()
    positive = prediction.clamp(min=SMALLEST_DEPTH)
    close = torch.maximum(positive / truth, truth / positive) < 1.25
    return error, error / truth, error.square(), close.double()
