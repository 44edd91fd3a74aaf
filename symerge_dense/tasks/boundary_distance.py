"""Distance to the next boundary, a dense form of edges."""

from __future__ import annotations

from typing import ClassVar

import cv2
import numpy as np

from symerge_dense.registry import TASKS
from symerge_dense.tasks.base import Array
from symerge_dense.tasks.regression import Regression


@TASKS.register_module()
class BoundaryDistance(Regression):
    """Way to the nearest edge pixel in percent of the picture's width, 0 on edges; negative is invalid. Loss: L1.

    The labels are made from edges. Where a pixel of unknown kind is nearer than the nearest edge, and where a picture
    has no edge, the distance is unknown. A zoom makes it longer.
    """

    name: ClassVar[str] = "boundary_distance"
    unit: ClassVar[str] = "%"
    source: ClassVar[str | None] = "edges"
    moves: ClassVar[frozenset[str]] = frozenset({"mirror", "zoom", "rotation"})
    channels: int = 1

    def derive(self, target: Array) -> Array:
        """Distances float32 (H,W).

        Args:
            target: 0 or 1, 255 where unknown, (H,W) or (H,W,1).
        """
        edges = target.reshape(target.shape[:2])
        distance, unknown = _to_nearest(edges == 1), _to_nearest((edges != 0) & (edges != 1))
        known = np.isfinite(distance) & (distance <= unknown)
        return np.where(known, distance, self.invalid_value).astype(np.float32)

    def zoom(self, target: Array, scale: float) -> Array:
        """Multiply by ``scale``.

        Args:
            target: percent of the width (H,W) or (H,W,1).
            scale: zoom factor >= 1.
        """
        return np.where(target >= 0, target * scale, target).astype(target.dtype)


def _to_nearest(pixels: Array) -> Array:
    """Distance (H,W) to the nearest of some pixels, percent of the width; infinite where there is none."""
    if not pixels.any():
        return np.full(pixels.shape, np.inf)
    distance = cv2.distanceTransform((~pixels).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance * (100 / pixels.shape[1]))
