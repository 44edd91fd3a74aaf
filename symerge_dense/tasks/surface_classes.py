"""Classes of surfaces: where they face, what they are made of, and which face of the empty room lies behind them."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from symerge_dense.datasets.class_names import ORIENTATIONS, ROOM_FACES
from symerge_dense.datasets.rooms.textures import KINDS
from symerge_dense.registry import TASKS
from symerge_dense.tasks.base import Array
from symerge_dense.tasks.segmentation import Segmentation


class FixedClasses(Segmentation):
    """A segmentation whose classes are part of the task.

    Attributes:
        names: of the classes, in label order.
        exchanged: pairs of classes that change places when the image is mirrored left to right.
    """

    names: ClassVar[tuple[str, ...]]
    exchanged: ClassVar[tuple[tuple[str, str], ...]] = ()

    def __init__(self) -> None:
        super().__init__(len(self.names), self.names)
        self._mirrored = np.arange(256)
        for pair in self.exchanged:
            one, other = map(self.names.index, pair)
            self._mirrored[[one, other]] = other, one

    def flip(self, target: Array) -> Array:
        """Exchange the classes of ``exchanged``.

        Args:
            target: mirrored class numbers (H,W), or a number per class (h,w,C), as experts' labels are kept.
        """
        if target.ndim == 3:
            return target[..., self._mirrored[: self.channels]]
        return self._mirrored[target].astype(target.dtype)


@TASKS.register_module()
class Orientation(FixedClasses):
    """Where a surface faces: up, down, left, right or to the viewer, or none of these (slanted).

    The vertical is gravity's; left, right and viewer are as the camera is turned. After the surface classes of Hoiem et
    al. 2007 (Recovering surface layout from an image, IJCV).
    """

    name: ClassVar[str] = "orientation"
    names: ClassVar[tuple[str, ...]] = ORIENTATIONS
    exchanged: ClassVar[tuple[tuple[str, str], ...]] = (("left", "right"),)
    moves: ClassVar[frozenset[str]] = frozenset({"mirror", "zoom"})


@TASKS.register_module()
class Layout(FixedClasses):
    """The face of the empty room behind a pixel, whatever stands before it (Lee et al. 2009; LSUN's room layout)."""

    name: ClassVar[str] = "layout"
    names: ClassVar[tuple[str, ...]] = ROOM_FACES
    exchanged: ClassVar[tuple[tuple[str, str], ...]] = (("left wall", "right wall"),)


@TASKS.register_module()
class Material(FixedClasses):
    """Pattern of a surface's colour, the materials of rendered rooms: plain paint, wood, tiles, planks, cloth ..."""

    name: ClassVar[str] = "material"
    names: ClassVar[tuple[str, ...]] = KINDS
