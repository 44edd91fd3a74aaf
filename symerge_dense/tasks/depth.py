"""Metric depth along the optical axis, in metres."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from symerge_dense.registry import TASKS
from symerge_dense.tasks.base import Array, Metric
from symerge_dense.tasks.regression import Regression, masked_sum

SMALLEST_DEPTH = 1e-6  # metres; a ratio needs a positive prediction


@TASKS.register
class Depth(Regression):
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
        error = (prediction - truth).abs()
        positive = prediction.clamp(min=SMALLEST_DEPTH)
        close = torch.maximum(positive / truth, truth / positive) < 1.25
        sums = [masked_sum(value, mask) for value in (error, error / truth, error.square(), close.double())]
        return torch.stack([mask.sum((1, 2)).double(), *sums], dim=1)

    def summarize(self, total: Tensor) -> dict[str, Metric]:
        """abs (m), rel (fraction), rmse (m), delta1 (percent)."""
        absolute, relative, square, close = (total[1:] / total[0]).tolist()
        return self.table(absolute, relative, square ** 0.5, 100 * close)

    @property
    def invalid_value(self) -> float:
        """No measurement."""
        return 0.0

    def zoom(self, target: Array, scale: float) -> Array:
        """What looks ``scale`` times larger is that much nearer."""
        return (target / scale).astype(target.dtype)

    def limits(self, target: Tensor) -> tuple[float, float] | None:
        """Nearest and farthest valid depth, or None where no pixel is valid."""
        known = target[0][self.valid(target[None])[0]]
        return (float(known.min()), float(known.max())) if known.numel() else None

    def colorize(self, prediction: Tensor, limits: tuple[float, float] | None = None) -> Array:
        """Near is yellow, far is deep blue; ``limits`` in metres."""
        from matplotlib import colormaps  # slow to import, needed for pictures only

        depth = prediction.detach().float().cpu()
        low, high = limits or self.limits(depth) or (0.0, 1.0)
        level = ((depth[0].nan_to_num() - low) / max(high - low, 1e-12)).clamp(0, 1)
        picture: Array = colormaps["plasma_r"](level.numpy(), bytes=True)[..., :3]
        picture[~self.valid(depth[None])[0].numpy()] = 0
        return picture
