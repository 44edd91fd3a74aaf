"""Vectors in the picture: the way to the centre of a thing, the direction of the vanishing point. x right, y down."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from symerge_dense.registry import TASKS
from symerge_dense.tasks.metric import Metric
from symerge_dense.tasks.normals import UnitVectors, unit, unit_truth
from symerge_dense.tasks.regression import pixel_sums
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
class VanishingDirection(UnitVectors, Vector):
    """Unit vector from a pixel towards the principal vanishing point, where lines along the room's length meet.

    One shorter than 0.5 or not finite is invalid. Loss: 1 - cosine. Metric: ``mean`` angle, degrees.
    """

    name: ClassVar[str] = "vanishing_direction"
    unit: ClassVar[str] = ""
    metrics: ClassVar[dict[str, bool]] = {"mean": False}
    headline: ClassVar[str] = "mean"
    channels: int = 2

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
