"""NYUv2 (Silberman et al. 2012) as pre-processed for MTAN (Liu et al. 2019, arXiv 1803.10704): .npy, 288 x 384."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from symerge_dense.datasets.base import Array
from symerge_dense.datasets.class_names import NYU13, NYU40
from symerge_dense.datasets.mtan_layout import VECTOR, NumberedArrays
from symerge_dense.datasets.targets import INVALID_LABEL, SHORTEST_NORMAL, boundary
from symerge_dense.registry import DATASETS


@DATASETS.register_module()
class NYUv2(NumberedArrays):
    """Segmentation (13 or 40 classes), depth, normals, and edges (boundaries of the label map).

    795 images to train on, 654 ('val') that papers test on, in ``image``, ``label``, ``depth`` and ``normal``. The
    number of classes is the segmentation task's, and must be that of the label files; MTAN's have 13. Arguments and
    errors: ``NumberedArrays``; other numbers of classes raise ValueError.
    """

    DEFAULT_SIZE: ClassVar[tuple[int, int]] = (288, 384)
    DEFAULT_ROOT: ClassVar[str] = "data/nyuv2"
    FOLDERS: ClassVar[dict[str, str]] = {
        "segmentation": "label",
        "edges": "label",
        "depth": "depth",
        "normals": "normal",
    }
    serves: ClassVar[frozenset[str]] = frozenset(FOLDERS)
    CLASSES: ClassVar[tuple[tuple[str, ...], ...]] = (NYU13, NYU40)
    FETCH: ClassVar[str] = """NYUv2 in its MTAN packaging is wanted: 795 train and 654 val images of 288 x 384 as
    {root}/{{train,val}}/{{image,label,depth,normal}}/{{0,1,2,...}}.npy
image (288,384,3) RGB in [0,1]; label (288,384) in -1..12, -1 invalid; depth (288,384,1) metres, 0 invalid;
normal (288,384,3) unit vectors (x right, z forward, y up), zero vector invalid.
Fetch it from one of
    https://www.dropbox.com/sh/86nssgwm6hm3vkb/AACrnUQ4GxpdrBbLjb6n-mWNa?dl=0
    https://www.dropbox.com/s/p2nn02wijg7peiy/nyuv2.zip
    https://cloud.tsinghua.edu.cn/f/6d0a89f4ca1347d8af5f/?dl=1
and unpack it so that {root}/train/image/0.npy and {root}/val/image/0.npy exist, or pass root= with the place where
you have it.
NYUv2 in any other packaging (mat: the official files; parquet; nyud_mt; nyudv2) is converted by
    python tools/prepare_data.py nyuv2 --from PACKAGING SOURCE --out {root}
and either is checked by
    python tools/prepare_data.py check {root}"""

    def class_names(self, count: int) -> tuple[str, ...]:
        """Names of the 13 or 40 classes.

        Args:
            count: number of classes.

        Raises:
            ValueError: ``count`` is neither 13 nor 40.
        """
        names = super().class_names(count)
        if names is None:
            raise ValueError(
                f"segmentation with {count} classes: NYUv2 has 13 or 40; give the task classes=13, or "
                f"classes=40 for label files of the 40 classes."
            )
        return names

    def target(self, index: int, name: str) -> Array:
        """Segmentation int64 and edges float32 (H,W), depth float32 (H,W), normals float32 (H,W,3).

        Args:
            index: image number, from 0.
            name: one of ``serves``.
        """
        if name in ("segmentation", "edges"):
            labels = self.labels(index)
            return labels if name == "segmentation" else boundary(labels, labels != INVALID_LABEL)
        return self.positive(name, index)[0] if name == "depth" else self._normals(index)

    def _normals(self, index: int) -> Array:
        values, _ = self.finite("normals", index, VECTOR)
        with np.errstate(over="ignore"):
            length = np.linalg.norm(np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0), axis=-1, keepdims=True)
        good = np.isfinite(values).all(-1, keepdims=True) & (length >= SHORTEST_NORMAL)
        return np.where(good, values, np.float32(0))
