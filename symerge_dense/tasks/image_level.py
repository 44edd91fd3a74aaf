"""Tasks of the whole image, beside dense ones: the kind of room, how many things are in it, where the light comes from.

A target is a map that is the same everywhere, so that data, losses, metrics and pictures work as for dense tasks. The
head gives (N,C,1,1): it must be one that pools, such as ``Pooled``.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from symerge_dense.datasets.class_names import NYU13
from symerge_dense.datasets.targets import INVALID_LABEL
from symerge_dense.registry import TASKS
from symerge_dense.tasks.base import Array
from symerge_dense.tasks.normals import Normals
from symerge_dense.tasks.regression import Regression
from symerge_dense.tasks.surface_classes import FixedClasses

VISIBLE = 0.005  # share of the labelled pixels from which on a bed or a sofa is seen


@TASKS.register_module()
class RoomType(FixedClasses):
    """Kind of the room: with a bed in sight a bedroom, else with a sofa a living room, else another one.

    The labels are made from a segmentation in the 13 classes of NYUv2. ``pixel_accuracy`` is that of images.
    """

    name: ClassVar[str] = "room_type"
    source: ClassVar[str | None] = "segmentation"
    names: ClassVar[tuple[str, ...]] = ("bedroom", "living room", "other room")
    moves: ClassVar[frozenset[str]] = frozenset({"mirror"})
    image_level: ClassVar[bool] = True

    def derive(self, target: Array) -> Array:
        """One class number for all pixels, int64 (H,W); 255 where no pixel has a label.

        Args:
            target: class numbers (H,W) of ``NYU13``.
        """
        known = target != INVALID_LABEL
        seen = [((target == NYU13.index(name)) & known).sum() >= VISIBLE * known.sum() for name in ("bed", "sofa")]
        kind = 0 if seen[0] else 1 if seen[1] else 2
        return np.full(target.shape, kind if known.any() else INVALID_LABEL, np.int64)


@TASKS.register_module()
class ObjectCount(Regression):
    """Number of things in sight, the room's own faces left out; negative is invalid. Loss: L1."""

    name: ClassVar[str] = "object_count"
    moves: ClassVar[frozenset[str]] = frozenset({"mirror"})
    image_level: ClassVar[bool] = True
    channels: int = 1


@TASKS.register_module()
class LightSource(Normals):
    """Unit vector from the camera to the lamp, the brightest direction; all else is as for ``Normals``."""

    name: ClassVar[str] = "light_source"
    moves: ClassVar[frozenset[str]] = frozenset({"mirror"})
    image_level: ClassVar[bool] = True
