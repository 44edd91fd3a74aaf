"""NYUv2 (Silberman et al. 2012) as pre-processed for MTAN (Liu et al. 2019, arXiv 1803.10704): .npy, 288 x 384."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from symerge_dense.datasets.base import Array, DenseDataset, source_of
from symerge_dense.datasets.boundary import boundary
from symerge_dense.datasets.classes import NYU13
from symerge_dense.datasets.transforms import Augment, TargetRule

FETCH = """{root} is not there.
NYUv2 in its MTAN packaging is wanted: 795 train and 654 val images of 288 x 384 as
    {root}/{{train,val}}/{{image,label,depth,normal}}/{{0,1,2,...}}.npy
image (288,384,3) RGB in [0,1]; label (288,384) in -1..12, -1 invalid; depth (288,384,1) metres, 0 invalid;
normal (288,384,3) unit vectors (x right, z forward, y up), zero vector invalid.
Fetch it from one of
    https://www.dropbox.com/sh/86nssgwm6hm3vkb/AACrnUQ4GxpdrBbLjb6n-mWNa?dl=0
    https://www.dropbox.com/s/p2nn02wijg7peiy/nyuv2.zip
    https://cloud.tsinghua.edu.cn/f/6d0a89f4ca1347d8af5f/?dl=1
and unpack it so that {root}/train/image/0.npy exists, or pass root= with the place where you have it."""
FOLDERS = {"segmentation": "label", "edges": "label", "depth": "depth", "normals": "normal"}
CHANNELS: dict[str, tuple[tuple[int, ...], ...]] = {  # trailing shapes that are accepted, the documented one first
    "image": ((3,),), "label": ((), (1,)), "depth": ((1,), ()), "normal": ((3,),)}
INVALID_LABEL = 255
SHORTEST_NORMAL = 0.5  # shorter ones are blends of opposites or quantised zeros


def read_array(path: Path) -> Array:
    """A numeric .npy file, memory-mapped. Raises ValueError naming the file where it is anything else."""
    remedy = "fetch this file again"
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise ValueError(f"{path}: missing; {remedy}.") from None
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path}: not a readable .npy array of numbers ({error}); {remedy}.") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        found = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"{path}: holds {found}, expected float or integer numbers; {remedy}.")
    return array


class NYUv2(DenseDataset):
    """Segmentation (13 classes), depth, normals, and edges (boundaries of the label map).

    Files may hold any float or integer dtype; integer images are taken as 0..255. Images and targets pair by number.

    Args:
        root: folder with ``train`` and ``val``. split: 'train' (795 images) or 'val' (654, what papers test on).

    Raises ValueError for a missing root (saying what to fetch), an unknown split, a missing file; and on reading for a
    file that is truncated, pickled, of another shape, an image that is not finite, a label outside the classes.
    """

    DEFAULT_SIZE: ClassVar[tuple[int, int]] = (288, 384)
    serves: ClassVar[frozenset[str]] = frozenset(FOLDERS)

    def __init__(self, root: str | Path = "data/nyuv2", split: Literal["train", "val"] = "train",
                 tasks: Mapping[str, TargetRule | dict[str, Any]] | None = None,
                 augment: Augment | dict[str, Any] | None = None, size: tuple[int, int] | None = None,
                 seed: int = 0) -> None:
        super().__init__(tasks, augment, size, seed)
        if split not in ("train", "val"):
            raise ValueError(f"split={split!r}: NYUv2 has 'train' and 'val'.")
        self.folder = Path(root) / split
        if not self.folder.is_dir():
            raise ValueError(FETCH.format(root=root))
        self.channels = int(getattr(self.tasks.get("segmentation"), "channels", len(NYU13)))
        self.classes = NYU13 if self.channels == len(NYU13) else None
        self.length = self._check_names()
        self.frame = read_array(self.folder / "image" / "0.npy").shape[:2]

    def _check_names(self) -> int:
        names = {path.name for path in (self.folder / "image").glob("*.npy")}
        if not names:
            raise ValueError(f"{self.folder / 'image'}: no .npy file; expected 0.npy, 1.npy, ... in this folder.")
        wanted = [f"{index}.npy" for index in range(len(names))]
        for part in ("image", *sorted({FOLDERS[source_of(rule)] for rule in self.tasks.values()})):
            present = {path.name for path in (self.folder / part).glob("*.npy")}
            missing = [name for name in wanted if name not in present]
            if missing:
                raise ValueError(f"{self.folder / part / missing[0]}: missing, one of {len(missing)} in this folder; "
                                 f"expected 0.npy to {wanted[-1]}, one per image.")
            if len(present) > len(wanted):
                extra = min(present - set(wanted))
                raise ValueError(f"{self.folder / part / extra}: there is no image of that name, only 0.npy to "
                                 f"{wanted[-1]}; fetch the missing images or remove the file.")
        return len(names)

    def __len__(self) -> int:
        return self.length

    def _read(self, folder: str, index: int) -> tuple[Array, Path]:
        path = self.folder / folder / f"{index}.npy"
        array = read_array(path)
        expected = [(*self.frame, *channels) for channels in CHANNELS[folder]]
        if array.shape not in expected:
            raise ValueError(f"{path}: shape {array.shape}, expected {expected[0]}; fetch this file again.")
        return np.array(array), path

    def image(self, index: int) -> Array:
        """Image (H,W,3) float32 RGB in 0..255."""
        stored, path = self._read("image", index)
        highest = 1.0 if stored.dtype.kind == "f" else 255.0
        if not np.isfinite(stored).all():
            raise ValueError(f"{path}: the image holds NaN or infinite values; fetch this file again.")
        if stored.min() < -1e-3 or stored.max() > highest * 1.001:
            raise ValueError(f"{path}: image values {stored.min()}..{stored.max()}, expected 0..{highest:g} for "
                             f"{stored.dtype}; rescale the file.")
        return np.clip(stored.astype(np.float32) * np.float32(255 / highest), 0, 255)

    def target(self, index: int, name: str) -> Array:
        """Segmentation int64 and edges float32 (H,W), depth float32 (H,W), normals float32 (H,W,3)."""
        if name in ("segmentation", "edges"):
            labels = self._labels(index)
            return labels if name == "segmentation" else boundary(labels, labels != INVALID_LABEL)
        stored, path = self._read(FOLDERS[name], index)
        values = stored.astype(np.float32)
        if not np.isfinite(values).any():
            raise ValueError(f"{path}: holds no finite number, only NaN or infinity; fetch this file again.")
        if name == "depth":
            values = values.reshape(self.frame)
            return np.where(np.isfinite(values) & (values > 0), values, np.float32(0))
        with np.errstate(over="ignore"):
            length = np.linalg.norm(np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0), axis=-1, keepdims=True)
        good = np.isfinite(values).all(-1, keepdims=True) & (length >= SHORTEST_NORMAL)
        return np.where(good, values, np.float32(0))

    def _labels(self, index: int) -> Array:
        stored, path = self._read("label", index)
        stored = stored.reshape(self.frame)
        allowed = [-1, INVALID_LABEL, *range(self.channels)]
        wrong = ~np.isin(stored, allowed)
        if wrong.any():
            raise ValueError(f"{path}: label values {np.unique(stored[wrong])[:5].tolist()}, allowed are "
                             f"-1..{self.channels - 1}, or 255 for invalid; correct the file or the task's classes.")
        labels = stored.astype(np.int64)
        return np.where(labels == -1, INVALID_LABEL, labels)
