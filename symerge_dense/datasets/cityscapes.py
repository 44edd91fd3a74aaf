"""Cityscapes (Cordts et al. 2016) as pre-processed for MTAN (Liu et al. 2019, arXiv 1803.10704): .npy files."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

from symerge_dense.datasets.base import Array
from symerge_dense.datasets.class_names import CITYSCAPES7, CITYSCAPES19
from symerge_dense.datasets.mtan_layout import NumberedArrays
from symerge_dense.registry import DATASETS


@DATASETS.register_module()
class Cityscapes(NumberedArrays):
    """Segmentation and inverse depth: 2975 street scenes to train on, 500 ('val') that papers test on.

    The number of classes is the segmentation task's, usually 7 or 19: the labels are those of ``label_<classes>``, or
    of ``label`` where there is no such folder. ``depth`` holds inverse depth, the raw 16-bit disparity divided by
    65535 (0..0.5 in the published files), 0 where there is none. Arguments: ``NumberedArrays``.

    Raises:
        ValueError: as ``NumberedArrays``; no folder has labels of the requested number of classes; on reading, an
            inverse depth is above 1.
    """

    DEFAULT_SIZE: ClassVar[tuple[int, int]] = (128, 256)
    DEFAULT_ROOT: ClassVar[str] = "data/cityscapes"
    FOLDERS: ClassVar[dict[str, str]] = {"segmentation": "label", "inverse_depth": "depth"}
    serves: ClassVar[frozenset[str]] = frozenset(FOLDERS)
    CLASSES: ClassVar[tuple[tuple[str, ...], ...]] = (CITYSCAPES7, CITYSCAPES19)
    FETCH: ClassVar[str] = """Cityscapes in its MTAN packaging is wanted: 2975 train and 500 val images as
    {root}/{{train,val}}/{{image,label_7,label_19,depth}}/{{0,1,2,...}}.npy
with the label folder that you need (label_<classes>, or one named label). At 128 x 256, or 256 x 512:
image (128,256,3) RGB in [0,1]; label (128,256) from 0 on, -1 invalid; depth (128,256,1) inverse depth, that is raw
disparity / 65535, 0 invalid.
Fetch it from
    https://www.dropbox.com/sh/gaw6vh6qusoyms6    128 x 256, 0.7 GB
    https://www.dropbox.com/sh/vj349qgg57nthi9    256 x 512, 2.4 GB
and unpack it so that {root}/train/image/0.npy and {root}/val/image/0.npy exist, or pass root= with the place where
you have it."""

    def folder_of(self, target: str) -> str:
        """Name of a folder: ``label_<classes>`` or ``label`` for segmentation, ``depth`` for inverse depth.

        Args:
            target: 'segmentation' or 'inverse_depth'.
        """
        return self.label_folder if target == "segmentation" else super().folder_of(target)

    @cached_property
    def label_folder(self) -> str:
        """The folder with labels of the requested number of classes."""
        wanted = [f"label_{self.channels}", "label"]
        for name in wanted:
            if (self.folder / name).is_dir():
                return name
        found = ", ".join(sorted(path.name for path in self.folder.iterdir() if path.is_dir()))
        raise ValueError(
            f"{self.folder}: {self.channels} classes are asked for, but neither {wanted[0]} nor label is "
            f"among its folders ({found}); fetch it, or give the segmentation task the classes of a "
            f"label_<classes> that is there."
        )

    def target(self, index: int, name: str) -> Array:
        """Segmentation int64 (H,W), inverse depth float32 (H,W).

        Args:
            index: image number, from 0.
            name: 'segmentation' or 'inverse_depth'.

        Raises:
            ValueError: the file is damaged or holds values out of range.
        """
        if name == "segmentation":
            return self.labels(index)
        values, path = self.positive(name, index)
        if values.max() > 1:
            raise ValueError(
                f"{path}: inverse depth up to {values.max():g}, expected 0..1; divide raw disparity by 65535."
            )
        return values
