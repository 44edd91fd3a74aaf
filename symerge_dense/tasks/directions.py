"""Vectors in the picture: the way to the centre of a thing, the direction of the vanishing point. x right, y down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from symerge_dense.datasets.targets import SHORTEST_NORMAL
from symerge_dense.registry import TASKS
from symerge_dense.tasks.metric import Metric
from symerge_dense.tasks.normals import unit, unit_truth
from symerge_dense.tasks.predictions import moments
from symerge_dense.tasks.regression import pixel_sums
from symerge_dense.tasks.storage import PngStorage
from symerge_dense.tasks.vector import Vector


@TASKS.register_module()
class CentreOffset(Vector):
    """Way from a pixel to the centre of its thing, in percent of the picture's width; NaN where there is no thing.

    The instance part of Panoptic-DeepLab (Cheng et al. 2020, arXiv 1911.10194). A mirror turns x around, a zoom makes
    the way longer.
    """

    name: ClassVar[str] = "centre_offset"
    unit: ClassVar[str] = "%"
    in_pixels: ClassVar[bool] = True
    channels: int = 2


@TASKS.register_module()
class VanishingDirection(Vector):
    """Unit vector from a pixel towards the principal vanishing point, where lines along the room's length meet.

    One shorter than 0.5 or not finite is invalid. Loss: 1 - cosine. Metric: ``mean`` angle, degrees.
    """

    name: ClassVar[str] = "vanishing_direction"
    unit: ClassVar[str] = ""
    metrics: ClassVar[dict[str, bool]] = {"mean": False}
    headline: ClassVar[str] = "mean"
    channels: int = 2

    def valid(self, target: Tensor) -> Tensor:
        """Pixels whose vector is finite and has length >= 0.5.

        Args:
            target: (N,2,H,W).
        """
        square = target.float().square().sum(dim=1)
        return (square >= SHORTEST_NORMAL**2) & square.isfinite()

    def pixel_loss(self, output: Tensor, target: Tensor) -> Tensor:
        """1 - cosine, in 0..2.

        Args:
            output: raw vectors (N,2,h,w) of any length.
            target: ground truth or self-label (N,2,h,w).
        """
        return 1 - (unit(output.float(), eps=1e-3) * unit_truth(target.float())).sum(dim=1)

    def decide(self, output: Tensor) -> Tensor:
        """Unit vectors (N,2,h,w).

        Args:
            output: raw vectors (N,2,h,w).
        """
        return unit(output.float())

    def statistics(self, output: Tensor, target: Tensor) -> Tensor:
        """Rows [valid pixels, sum of angles in degrees].

        Args:
            output: raw vectors (N,2,H,W).
            target: (N,2,H,W).
        """
        one, other = unit(output.double()), unit_truth(target.double())
        cross = one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]
        angle = torch.atan2(cross.abs(), (one * other).sum(dim=1)).rad2deg()
        return pixel_sums(self.valid(target), angle)

    def summarize(self, total: Tensor) -> dict[str, Metric]:
        """Metric mean, degrees.

        Args:
            total: sum of the rows of ``statistics``, (2,).
        """
        return self.table(float(total[1] / total[0]))

    def average(self, outputs: Sequence[Tensor], weights: Sequence[float] | None = None) -> tuple[Tensor, Tensor]:
        """Mean of the unit vectors, and their variance.

        Args:
            outputs: raw vectors (N,2,h,w), one per view.
            weights: one number >= 0 per view; None weighs all alike.
        """
        return moments([self.decide(output) for output in outputs], weights)

    @property
    def storage(self) -> PngStorage:
        """-1..1 as 0..65535 per component; two times 0 for 'no label'."""
        return PngStorage("uint16", scale=2 / 65535, offset=-1.0, marker=self.invalid_value)

    @classmethod
    def metric_unit(cls, metric: str) -> str:
        """Degrees.

        Args:
            metric: its name.
        """
        return "°"
