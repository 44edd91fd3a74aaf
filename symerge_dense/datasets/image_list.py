"""Images that are named one by one, or that are in memory already: whatever a program has, without labels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from symerge_dense.datasets.base import Array, DenseDataset, ImagesOnly
from symerge_dense.datasets.image_files import (
    DAMAGE,
    NUMBERS,
    find_images,
    passed_over,
    read_image,
    size_if_whole,
    to_rgb,
)
from symerge_dense.datasets.transforms import Augment, TargetRule
from symerge_dense.registry import DATASETS

ONE_SCALE = 1.0  # floats that never exceed it are fractions, not 0..255


def is_path(value: Any) -> bool:
    """Whether a value names a file or folder.

    Args:
        value: any.
    """
    return isinstance(value, str | Path)


@DATASETS.register_module()
class ImageList(ImagesOnly):
    """Image files, folders of them, or images in memory; serves no task.

    Args:
        images: a folder or an image file, or a list of both; an array (N,H,W,3) or a tensor (N,3,H,W), RGB in 0..255;
            or a data set, whose items are images (PIL's of any mode too), tuples that begin with one, or dicts with
            'image'.
        size: (H, W) to resize to. Give it where the images differ in size: a batch needs equal ones.
        tasks: must be empty.
        augment: as in ``DenseDataset``.
        seed: of the augmentation.

    Raises:
        ValueError: a file or folder is missing, there is no image, or a task is asked for; on reading, something is no
            image.
    """

    def __init__(
        self,
        images: Any,
        size: tuple[int, int] | None = None,
        tasks: Mapping[str, TargetRule | dict[str, Any]] | None = None,
        augment: Augment | dict[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(tasks, augment, size, seed)
        named = [images] if is_path(images) else images
        self.files: list[Path] | None = None
        self.folders, self.recursive = list[Path](), False
        if isinstance(named, Sequence) and all(map(is_path, named)):
            self.folders = [path for path in map(Path, named) if path.is_dir()]
            self.files = [file for path in named for file in _files(Path(path))]
        self._items: Any = self.files if self.files is not None else named
        if not hasattr(self._items, "__len__") or not hasattr(self._items, "__getitem__"):
            raise ValueError(
                f"images are a {type(images).__name__}; give a folder, a list of files, an array (N,H,W,3), or a data "
                "set with a length."
            )
        if not len(self._items):
            raise ValueError("there are no images: the list is empty; name a folder or files.")

    @property
    def remark(self) -> str:
        """What a run tells once: how many files of other kinds its folders hold; empty where there are none."""
        return passed_over(self.folders, self.recursive)

    def __len__(self) -> int:
        return len(self._items)

    def image(self, index: int) -> Array:
        """Image (H,W,3) RGB, uint8 or float32 in 0..255.

        Args:
            index: image number, from 0.

        Raises:
            ValueError: the file is not a readable image, or the item is none.
        """
        if self.files is not None:
            return read_image(self.files[index])
        if isinstance(self._items, DenseDataset):
            return self._items.resized_image(index)
        return _pixels(self._items[index], index)

    def image_name(self, index: int) -> str:
        """Path of the image, where it has one.

        Args:
            index: image number, from 0.
        """
        return super().image_name(index) if self.files is None else str(self.files[index])

    def image_size(self, index: int) -> tuple[int, int]:
        """(H, W) of the image as stored.

        Args:
            index: image number, from 0.

        Raises:
            ValueError: it is not a readable image.
        """
        return super().image_size(index) if self.files is None else size_if_whole(self.files[index])

    def __str__(self) -> str:
        """What a record says of images that it cannot hold: how many, and a hash of some."""
        digest = hashlib.sha256()
        for index in np.unique(np.linspace(0, len(self) - 1, 16).astype(int)):
            digest.update(np.ascontiguousarray(self.image(int(index))).tobytes())
        return f"{len(self)} images in memory, {digest.hexdigest()[:12]}"


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return find_images(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file or folder; give an image, or a folder that holds images.")
    return [path]


def _of_pillow(image: Image.Image, index: int) -> Array:
    """A picture of Pillow's as a file of it is read: upright, over white, RGB."""
    if image.mode in NUMBERS or image.mode.startswith("I;16"):
        raise ValueError(
            f"image {index} has Pillow's mode {image.mode}, numbers without a known white; scale it to 0..255 and give "
            "image.convert('RGB')."
        )
    try:
        return np.ascontiguousarray(to_rgb(ImageOps.exif_transpose(image)))
    except DAMAGE as error:
        raise ValueError(f"image {index} is not a readable picture ({error}); replace it.") from error


def _pixels(item: Any, index: int) -> Array:
    """The image of an item of a data set or a batch, as (H,W,3)."""
    found = item.get("image") if isinstance(item, Mapping) else item
    found = found[0] if isinstance(found, tuple | list) and len(found) else found
    if isinstance(found, Image.Image):
        return _of_pillow(found, index)
    tensor = isinstance(found, torch.Tensor)
    pixels = found.detach().cpu().numpy() if isinstance(found, torch.Tensor) else np.asarray(found)
    if tensor and pixels.ndim == 3 and pixels.shape[0] == 3:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size or pixels.dtype.kind not in "uf":
        raise ValueError(
            f"image {index} is {pixels.dtype} {pixels.shape}; give RGB in 0..255, uint8 or float: an array "
            "(H,W,3) or a tensor (3,H,W)."
        )
    if pixels.dtype.kind == "f":
        pixels = pixels.astype(np.float32)
        if not np.isfinite(pixels).all() or 0 < pixels.max() <= ONE_SCALE or pixels.min() < 0:
            raise ValueError(
                f"image {index} has values {pixels.min():g}..{pixels.max():g}; images are RGB in 0..255: multiply "
                "fractions by 255, and undo any normalisation."
            )
    elif pixels.dtype != np.uint8:
        raise ValueError(f"image {index} is {pixels.dtype}; give 8 bits a channel, or float in 0..255.")
    return np.ascontiguousarray(pixels)
