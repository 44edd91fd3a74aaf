"""Your own images: a folder of JPEG or PNG files without labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np

from symerge_dense.datasets.base import Array, DenseDataset
from symerge_dense.datasets.transforms import Augment, TargetRule
from symerge_dense.registry import DATASETS

SUFFIXES = (".jpg", ".jpeg", ".png")


@DATASETS.register_module()
class ImageFolder(DenseDataset):
    """All .jpg, .jpeg and .png files directly in a folder, sorted by name; serves no task.

    Args:
        root: folder with the images.
        size: (H, W) to resize to. Give it where the images differ in size: a batch needs equal ones.
        tasks: must be empty.
        augment: as in ``DenseDataset``.
        seed: of the augmentation.

    Raises:
        ValueError: the folder is missing or holds no image, or a task is asked for; on reading, a file is no image.
    """

    serves: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self,
        root: str | Path,
        size: tuple[int, int] | None = None,
        tasks: Mapping[str, TargetRule | dict[str, Any]] | None = None,
        augment: Augment | dict[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(tasks, augment, size, seed)
        self.root = Path(root)
        if not self.root.is_dir():
            raise ValueError(f"{self.root}: no such folder; give the folder that holds your images.")
        self.files = sorted(path for path in self.root.iterdir() if path.suffix.lower() in SUFFIXES)
        if not self.files:
            raise ValueError(f"{self.root}: no image in this folder; put {', '.join(SUFFIXES)} files directly into it.")

    def __len__(self) -> int:
        return len(self.files)

    def image(self, index: int) -> Array:
        """Image (H,W,3) uint8 RGB.

        Args:
            index: image number, from 0.

        Raises:
            ValueError: the file is not a readable image.
        """
        path = self.files[index]
        encoded = np.frombuffer(path.read_bytes(), np.uint8)
        try:
            pixels = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if encoded.size else None
        except cv2.error:
            pixels = None
        if pixels is None:
            raise ValueError(f"{path}: not a readable image; replace it or remove it from the folder.")
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)

    def target(self, index: int, name: str) -> Array:
        """There is no target; always raises.

        Args:
            index: image number, from 0.
            name: any.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"{self.root} holds images only; it has no target {name!r}.")
