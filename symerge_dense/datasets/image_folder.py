"""Your own images: folders of image files without labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from symerge_dense.datasets.image_files import find_images
from symerge_dense.datasets.image_list import ImageList
from symerge_dense.datasets.transforms import Augment, TargetRule
from symerge_dense.registry import DATASETS


@DATASETS.register_module()
class ImageFolder(ImageList):
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

    def __init__(
        self,
        root: str | Path | Sequence[str | Path],
        size: tuple[int, int] | None = None,
        tasks: Mapping[str, TargetRule | dict[str, Any]] | None = None,
        augment: Augment | dict[str, Any] | None = None,
        seed: int = 0,
        recursive: bool = False,
    ) -> None:
        roots = [root] if isinstance(root, str | Path) else list(root or [])
        if not roots or len({Path(folder).resolve() for folder in roots}) < len(roots):
            raise ValueError(f"root={root!r}: give the folder that holds your images, or a list of different folders.")
        found = [path for folder in roots for path in find_images(folder, recursive)]
        super().__init__(found, size, tasks, augment, seed)
        self.folders, self.recursive = [Path(folder) for folder in roots], recursive
