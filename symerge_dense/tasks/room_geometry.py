"""Numbers of the geometry of a scene: height, curvature, the angle of view, the depth of the empty room."""

from __future__ import annotations

from typing import ClassVar

from symerge_dense.registry import TASKS
from symerge_dense.tasks.depth import Depth
from symerge_dense.tasks.intrinsic import Intrinsic
from symerge_dense.tasks.regression import Regression


@TASKS.register_module()
class Height(Regression):
    """Height above the floor in metres, one channel; negative is invalid. Loss: L1. A zoom leaves it as it is."""

    name: ClassVar[str] = "height"
    unit: ClassVar[str] = "m"
    channels: int = 1


@TASKS.register_module()
class Curvature(Regression):
    """Mean curvature of the surface in 1/m, one channel: 0 on planes, 1/r on a ball; negative is invalid. Loss: L1."""

    name: ClassVar[str] = "curvature"
    unit: ClassVar[str] = "1/m"
    channels: int = 1


@TASKS.register_module()
class ViewAngle(Intrinsic):
    """Cosine of the angle between line of sight and surface normal: 1 from the front, 0 along the surface."""

    name: ClassVar[str] = "view_angle"
    moves: ClassVar[frozenset[str]] = frozenset({"mirror", "zoom", "rotation"})
    channels: int = 1


@TASKS.register_module()
class LayoutDepth(Depth):
    """Depth of the empty room in metres: of the wall, floor or ceiling behind a pixel, whatever stands before it."""

    name: ClassVar[str] = "layout_depth"
