"""Depth ordering: is a pixel among the nearest of its picture, among the farthest, or in between?"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from symerge_dense.datasets.targets import INVALID_LABEL, known_depth
from symerge_dense.registry import TASKS
from symerge_dense.tasks.base import Array
from symerge_dense.tasks.metric import Metric
from symerge_dense.tasks.surface_classes import FixedClasses


@TASKS.register_module()
class DepthOrder(FixedClasses):
    """Five ordinal classes with a fifth of the picture's known pixels each, from the nearest to the farthest.

    The labels are made from metric depth. They depend on the order of depths alone, so that no unit and no scale of a
    depth map matters. Metrics of ``Segmentation``, and ``steps``: mean number of classes between prediction and truth.
    A crop would change the order, so a zoom is no move that is known.
    """

    name: ClassVar[str] = "depth_order"
    source: ClassVar[str | None] = "depth"
    names: ClassVar[tuple[str, ...]] = ("nearest", "near", "middle", "far", "farthest")
    moves: ClassVar[frozenset[str]] = frozenset({"mirror"})
    metrics: ClassVar[dict[str, bool]] = {"mIoU": True, "pixel_accuracy": True, "steps": False}

    def derive(self, target: Array) -> Array:
        """Class numbers int64 (H,W), 255 where the depth is unknown.

        Args:
            target: metres (H,W); not positive or not finite where unknown.
        """
        depth = known_depth(target)
        found = depth[depth > 0]
        if not found.size:
            return np.full(depth.shape, INVALID_LABEL, np.int64)
        limits = np.quantile(found, np.linspace(0, 1, len(self.names) + 1)[1:-1])
        return np.where(depth > 0, np.searchsorted(limits, depth), INVALID_LABEL).astype(np.int64)

    def summarize(self, total: Tensor) -> dict[str, Metric]:
        """Metrics mIoU and pixel_accuracy in percent, and steps.

        Args:
            total: sum of the rows of ``statistics``, (C * C,).
        """
        return self._with_steps(super().summarize(total), total)

    def mtan_summarize(self, total: Tensor) -> dict[str, Metric]:
        """The metrics of ``summarize``, mIoU by the published rule.

        Args:
            total: sum of the rows of ``mtan_statistics``, (C * C,).
        """
        return self._with_steps(super().mtan_summarize(total), total)

    def table(self, *values: float) -> dict[str, Metric]:
        """Metrics with their names and directions.

        Args:
            *values: of the first metrics.
        """
        named = zip(list(self.metrics.items())[: len(values)], values, strict=True)
        return {name: Metric(float(value), better) for (name, better), value in named}

    def _with_steps(self, found: dict[str, Metric], total: Tensor) -> dict[str, Metric]:
        matrix = total.view(self.channels, self.channels).double()
        number = torch.arange(self.channels, dtype=torch.float64, device=total.device)
        apart = (matrix * (number[:, None] - number).abs()).sum() / matrix.sum()
        return {**found, "steps": Metric(float(apart), False)}

    @classmethod
    def metric_unit(cls, metric: str) -> str:
        """Percent, but for ``steps``.

        Args:
            metric: its name.
        """
        return "" if metric == "steps" else "%"
