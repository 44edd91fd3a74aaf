"""Your own images: folders of image files without labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from symerge_dense.datasets.base import Array, DenseDataset
from symerge_dense.datasets.image_files import find_images, passed_over, read_image, size_if_whole
from symerge_dense.datasets.transforms import Augment, TargetRule
from symerge_dense.registry import DATASETS


@DATASETS.register_module()
class ImageFolder(DenseDataset):
    """All image files in a folder, or in several one after another, sorted by path; serves no task.

    Files are .jpg, .jpeg, .png, .tif, .tiff, .bmp, .webp, .ppm and .pgm, read as ``image_files.read_image`` says.

    Args:
        root: folder with the images, or a list of folders.
        size: (H, W) to resize to. Give it where the images differ in size: a batch needs equal ones.
        tasks: must be empty.
        augment: as in ``DenseDataset``.
        seed: of the augmentation.
        recursive: whether to read the folders in the folder too.

    Raises:
        ValueError: a folder is missing or holds no image, or a task is asked for; on reading, a file is no image.
    """

    serves: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self,
        root: str | Path | Sequence[str | Path],
        size: tuple[int, int] | None = None,
        tasks: Mapping[str, TargetRule | dict[str, Any]] | None = None,
        augment: Augment | dict[str, Any] | None = None,
        seed: int = 0,
        recursive: bool = False,
    ) -> None:
        super().__init__(tasks, augment, size, seed)
        roots = [root] if isinstance(root, str | Path) else list(root or [])
        if not roots or len({Path(folder).resolve() for folder in roots}) < len(roots):
            raise ValueError(f"root={root!r}: give the folder that holds your images, or a list of different folders.")
        self.roots, self.recursive = roots, recursive
        self.files = [path for folder in roots for path in find_images(folder, recursive)]

    @property
    def remark(self) -> str:
        """What a run tells once: how many files of other kinds are passed over; empty where there are none."""
        return passed_over(self.roots, self.recursive)

    def __len__(self) -> int:
        return len(self.files)

    def image(self, index: int) -> Array:
        """Image (H,W,3) uint8 RGB.

        Args:
            index: image number, from 0.

        Raises:
            ValueError: the file is not a readable image.
        """
        return read_image(self.files[index])

    def image_name(self, index: int) -> str:
        """Path of the image.

        Args:
            index: image number, from 0.
        """
        return str(self.files[index])

    def image_size(self, index: int) -> tuple[int, int]:
        """(H, W) of the image; its file is looked over, and decoded only where it is neither JPEG nor PNG.

        Args:
            index: image number, from 0.

        Raises:
            ValueError: the file is not a readable image.
        """
        return size_if_whole(self.files[index])

    def target(self, index: int, name: str) -> Array:
        """There is no target; always raises.

        Args:
            index: image number, from 0.
            name: any.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"{self.files[index].parent} holds images only; it has no target {name!r}.")
