"""NYUv2 in its original frames: what all packagings of them have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from symerge_dense.datasets.base import Array, DenseDataset
from symerge_dense.datasets.class_names import NYU13, NYU40, NYU40_TO_13
from symerge_dense.datasets.nyuv2.camera import RGB_CAMERA, normals_from_depth
from symerge_dense.datasets.targets import EIGEN_CROP, INVALID_LABEL, NYU_FRAME, boundary
from symerge_dense.datasets.transforms import Augment, TargetRule

COARSE = np.full(256, -1)  # maps a class of 40 to one of 13; -1: no such label
COARSE[: len(NYU40_TO_13)], COARSE[INVALID_LABEL] = NYU40_TO_13, INVALID_LABEL


class NYUFrames(DenseDataset):
    """Segmentation (13 or 40 classes), edges (boundaries of the label map), depth and normals of whole NYUv2 frames.

    Args:
        root: the folder or file of the packaging.
        split: 'train' (795 images) or 'val' (654, what papers test on).
        tasks: as in ``DenseDataset``; ``tasks['segmentation'].channels`` is the number of classes, 13 without it.
        augment: as in ``DenseDataset``.
        size: as in ``DenseDataset``.
        seed: as in ``DenseDataset``.
        crop: 'none', or 'eigen', which cuts every array to rows 45..470, columns 41..600 (426 x 560), before any
            ``size``.
        normals: 'stored', as the packaging holds them, or 'depth', computed from its depth.

    Raises:
        ValueError: a setting is none of these, or the number of classes is neither 13 nor 40; on reading, a label is
            neither 0..39 nor 255, or ``crop='eigen'`` meets frames that are not 480 x 640.
    """

    DEFAULT_SIZE: ClassVar[tuple[int, int]] = NYU_FRAME
    serves: ClassVar[frozenset[str]] = frozenset({"segmentation", "edges", "depth", "normals"})
    packaging: ClassVar[str]  # its name in tools and manifests

    def __init__(
        self,
        root: str | Path,
        split: Literal["train", "val"] = "train",
        tasks: Mapping[str, TargetRule | dict[str, Any]] | None = None,
        augment: Augment | dict[str, Any] | None = None,
        size: tuple[int, int] | None = None,
        seed: int = 0,
        crop: Literal["none", "eigen"] = "none",
        normals: Literal["stored", "depth"] = "stored",
    ) -> None:
        super().__init__(tasks, augment, size, seed)
        settings: tuple[tuple[str, str, tuple[str, str]], ...] = (
            ("split", split, ("train", "val")),
            ("crop", crop, ("none", "eigen")),
            ("normals", normals, ("stored", "depth")),
        )
        for name, value, allowed in settings:
            if value not in allowed:
                raise ValueError(f"{name}={value!r}: {type(self).__name__} has {allowed[0]!r} and {allowed[1]!r}.")
        self.root, self.split, self.crop, self.normals = Path(root), split, crop, normals
        channels = int(getattr(self.tasks.get("segmentation"), "channels", len(NYU13)))
        names = {len(NYU13): NYU13, len(NYU40): NYU40}
        if channels not in names:
            raise ValueError(f"tasks['segmentation'] has {channels} classes: NYUv2 has 13 or 40; set classes= to one.")
        self.classes = names[channels]

    # -- what a packaging implements ----------------------------------------------------------------------------------
    @property
    @abstractmethod
    def source_files(self) -> list[Path]:
        """The files that the data come from, for a manifest to hash."""

    @abstractmethod
    def frame_image(self, index: int) -> Array:
        """Whole frame: uint8 (H,W,3) RGB.

        Args:
            index: image number, from 0.
        """

    @abstractmethod
    def frame_labels(self, index: int) -> Array:
        """Classes of a frame: integers (H,W), 0..39 in the order of ``NYU40``, 255 void.

        Args:
            index: image number, from 0.
        """

    @abstractmethod
    def frame_depth(self, index: int) -> Array:
        """Depth of a frame: float32 (H,W) metres, 0 invalid.

        Args:
            index: image number, from 0.
        """

    @abstractmethod
    def frame_normals(self, index: int) -> Array:
        """Stored normals of a frame; called only with ``normals='stored'``.

        Args:
            index: image number, from 0.

        Returns:
            float32 (H,W,3) unit vectors (x right, z forward, y up), zero where invalid.
        """

    def frame_of_crop(self) -> tuple[int, int, int, int]:
        """The part of the 480 x 640 frame that the packaging's frames show, from which the camera follows.

        It is the whole frame, unless the packaging was cropped by its makers: then its class overrides this method.

        Returns:
            first row, end row, first column, end column.

        Raises:
            ValueError: an override cannot tell from the size of its frames.
        """
        return 0, NYU_FRAME[0], 0, NYU_FRAME[1]

    # -- what follows from it -----------------------------------------------------------------------------------------
    def image(self, index: int) -> Array:
        """Image (H,W,3) uint8 RGB.

        Args:
            index: image number, from 0.
        """
        return self._cropped(self.frame_image(index))

    def target(self, index: int, name: str) -> Array:
        """Segmentation int64 and edges float32 (H,W), depth float32 (H,W), normals float32 (H,W,3).

        Args:
            index: image number, from 0.
            name: one of ``serves``.
        """
        if name in ("segmentation", "edges"):
            labels = self._cropped(self._labels(index))
            return labels if name == "segmentation" else boundary(labels, labels != INVALID_LABEL)
        if name == "depth":
            return self._cropped(self.frame_depth(index))
        if self.normals == "stored":
            return self._cropped(self.frame_normals(index))
        top, _, left, _ = EIGEN_CROP if self.crop == "eigen" else self.frame_of_crop()
        return normals_from_depth(self._cropped(self.frame_depth(index)), RGB_CAMERA.cropped(top, left))

    def _labels(self, index: int) -> Array:
        labels = self.frame_labels(index).astype(np.int64)
        wrong = (labels < 0) | (labels > INVALID_LABEL)
        coarse = COARSE[np.where(wrong, INVALID_LABEL - 1, labels)]
        if coarse.min() < 0:
            found = np.unique(labels[coarse < 0])[:5].tolist()
            raise ValueError(
                f"{self.root}: labels {found} in image {index} of {self.split!r}; allowed are 0..39, and "
                "255 for void. Fetch the data again."
            )
        return coarse if self.classes == NYU13 else labels

    def _cropped(self, array: Array) -> Array:
        if self.crop == "none":
            return array
        if array.shape[:2] != NYU_FRAME:
            raise ValueError(
                f"{self.root}: crop='eigen' is defined on frames of {NYU_FRAME}, these are "
                f"{array.shape[:2]}; use crop='none'."
            )
        top, bottom, left, right = EIGEN_CROP
        return np.ascontiguousarray(array[top:bottom, left:right])
