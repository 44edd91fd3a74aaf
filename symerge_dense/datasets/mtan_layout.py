"""Data sets of one .npy file per image and target, paired by number: ``{root}/{split}/{folder}/{0,1,2,...}.npy``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from symerge_dense.datasets.array_checksums import change_of, read_checksums
from symerge_dense.datasets.base import Array, DenseDataset, source_of
from symerge_dense.datasets.image_files import is_hidden
from symerge_dense.datasets.targets import INVALID_LABEL
from symerge_dense.datasets.transforms import Augment, TargetRule
from symerge_dense.fileio import mapped_array

SPLITS = ("train", "val")  # folders of the data sets of MTAN's family, and of NYUv2 prepared here
REMEDY = "fetch this file again"
SCALAR: tuple[tuple[int, ...], ...] = ((1,), ())  # accepted ends of a shape (H,W,...), the documented one first
LABEL: tuple[tuple[int, ...], ...] = ((), (1,))
VECTOR: tuple[tuple[int, ...], ...] = ((3,),)


def read_array(path: Path) -> Array:
    """A numeric .npy file, memory-mapped.

    Args:
        path: the file.

    Raises:
        ValueError: the file is missing, damaged, or holds anything but numbers; the message names it.
    """
    try:
        array: Array = mapped_array(path, REMEDY)
    except FileNotFoundError:
        raise ValueError(f"{path}: missing; {REMEDY}.") from None
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{path}: holds {array.dtype}, expected float or integer numbers; {REMEDY}.")
    return array


class NumberedArrays(DenseDataset):
    """Base of the data sets in MTAN's layout (Liu et al. 2019, arXiv 1803.10704).

    Files may hold any float or integer dtype; integer images are taken as 0..255. Images and targets pair by number.
    Where a conversion left a list of checksums, each file is compared with it when it is first read.
    A subclass names the folder of each target, says what to fetch, and makes its targets from what ``labels``,
    ``positive`` and ``finite`` read.

    Args:
        root: folder with ``train``, ``val`` or both; None is the subclass's ``DEFAULT_ROOT``.
        split: 'train' or 'val'; only its folder needs to exist.
        tasks: the folders of these targets are checked and read; segmentation's ``channels`` is the number of classes.
        augment: as in ``DenseDataset``.
        size: as in ``DenseDataset``.
        seed: as in ``DenseDataset``.
        frames: (first, stop), the images with these numbers, ``stop`` left out, as if they were the whole split; None
            for all. For splits within a sequence of frames.

    Raises:
        ValueError: the folder is missing (saying what to fetch), the split is unknown, it has not all of ``frames``, or
            a file is missing; on reading, a file is truncated, pickled or of another shape, has another checksum, an
            image is not finite, or a label is outside the classes.
    """

    DEFAULT_ROOT: ClassVar[str]
    FETCH: ClassVar[str]  # message for a missing root; a format of {root}
    FOLDERS: ClassVar[dict[str, str]]  # target -> folder
    CLASSES: ClassVar[tuple[tuple[str, ...], ...]]  # lists of class names, the usual one first

    def __init__(
        self,
        root: str | Path | None = None,
        split: Literal["train", "val"] = "train",
        tasks: Mapping[str, TargetRule | dict[str, Any]] | None = None,
        augment: Augment | dict[str, Any] | None = None,
        size: tuple[int, int] | None = None,
        seed: int = 0,
        frames: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(tasks, augment, size, seed)
        if split not in SPLITS:
            raise ValueError(f"split={split!r}: {type(self).__name__} has 'train' and 'val'.")
        root = Path(self.DEFAULT_ROOT if root is None else root)
        self.folder = root / split
        if not self.folder.is_dir():
            raise ValueError(f"{self.folder if root.is_dir() else root} is not there.\n" + self.FETCH.format(root=root))
        asked = getattr(self.tasks.get("segmentation"), "channels", None)
        # without a segmentation task the class list is unknown: accept the labels of the longest one
        self.channels = int(asked or max(map(len, self.CLASSES)))
        self.classes = self.class_names(int(asked or len(self.CLASSES[0])))
        self.numbers = self._numbers(self._check_names(), frames)
        self._checksums = read_checksums(self.folder)  # until a file is found whole
        self.frame: tuple[int, int] = read_array(self.folder / "image" / "0.npy").shape[:2]

    def _numbers(self, count: int, frames: tuple[int, int] | None) -> range:
        """Numbers of the files that are used."""
        if frames is None:
            return range(count)
        whole = isinstance(frames, list | tuple) and len(frames) == 2 and all(type(end) is int for end in frames)
        if not whole or not 0 <= frames[0] < frames[1] <= count:
            raise ValueError(
                f"frames={frames!r}: {self.folder} has {count} images, 0 to {count - 1}; give (first, stop) with "
                f"0 <= first < stop <= {count}, or None for all."
            )
        return range(*frames)

    def class_names(self, count: int) -> tuple[str, ...] | None:
        """Names of the classes, or None where they are not known.

        Args:
            count: number of classes.
        """
        return {len(names): names for names in self.CLASSES}.get(count)

    def folder_of(self, target: str) -> str:
        """Name of the folder that holds a target.

        Args:
            target: one of ``serves``.
        """
        return self.FOLDERS[target]

    def _check_names(self) -> int:
        names = self._names("image")
        if not names:
            raise ValueError(f"{self.folder / 'image'}: no .npy file; expected 0.npy, 1.npy, ... in this folder.")
        wanted = [f"{number}.npy" for number in range(len(names))]
        for part in ("image", *sorted({self.folder_of(source_of(rule)) for rule in self.tasks.values()})):
            present = self._names(part)
            missing = [name for name in wanted if name not in present]
            if missing:
                raise ValueError(
                    f"{self.folder / part / missing[0]}: missing, one of {len(missing)} in this folder; "
                    f"expected 0.npy to {wanted[-1]}, one per image."
                )
            if len(present) > len(wanted):
                extra = min(present - set(wanted))
                raise ValueError(
                    f"{self.folder / part / extra}: there is no image of that name, only 0.npy to "
                    f"{wanted[-1]}; fetch the missing images or remove the file."
                )
        return len(names)

    def _names(self, folder: str) -> set[str]:
        return {path.name for path in (self.folder / folder).glob("*.npy") if not is_hidden(path.name)}

    def __len__(self) -> int:
        """Number of images of the split, or of ``frames``."""
        return len(self.numbers)

    @abstractmethod
    def target(self, index: int, name: str) -> Array:
        """Target as the subclass makes it, with the invalid values of ``DenseDataset.target``.

        Args:
            index: image number, from 0.
            name: one of ``serves``.
        """

    def image(self, index: int) -> Array:
        """Image (H,W,3) float32 RGB in 0..255.

        Args:
            index: image number, from 0.

        Raises:
            ValueError: the file is damaged, not finite, or holds values out of range.
        """
        stored, path = self._read("image", index, VECTOR)
        highest = 1.0 if stored.dtype.kind == "f" else 255.0
        if not np.isfinite(stored).all():
            raise ValueError(f"{path}: the image holds NaN or infinite values; {REMEDY}.")
        if stored.min() < -1e-3 or stored.max() > highest * 1.001:
            raise ValueError(
                f"{path}: image values {stored.min()}..{stored.max()}, expected 0..{highest:g} for "
                f"{stored.dtype}; rescale the file."
            )
        return np.clip(stored.astype(np.float32) * np.float32(255 / highest), 0, 255)

    def image_name(self, index: int) -> str:
        """Path of the image.

        Args:
            index: image number, from 0.
        """
        return str(self.folder / "image" / f"{self.numbers[index]}.npy")

    def target_name(self, index: int, name: str) -> str:
        """Path of the file that a target is made from.

        Args:
            index: image number, from 0.
            name: name of a requested task.
        """
        return str(self.folder / self.folder_of(source_of(self.tasks[name])) / f"{self.numbers[index]}.npy")

    def image_size(self, index: int) -> tuple[int, int]:
        """(H, W) of the image, from the file's header.

        Args:
            index: image number, from 0.

        Raises:
            ValueError: the file is damaged or of another shape than the first.
        """
        height, width = self._mapped("image", index, VECTOR)[0].shape[:2]
        return height, width

    def labels(self, index: int) -> Array:
        """Class ids int64 (H,W); a file holds 0..C-1, and -1 or 255 for no label, which becomes 255.

        Args:
            index: image number, from 0.

        Raises:
            ValueError: the file is damaged or holds another label.
        """
        stored, path = self._read(self.folder_of("segmentation"), index, LABEL)
        stored = stored.reshape(self.frame)
        wrong = ~np.isin(stored, [-1, INVALID_LABEL, *range(self.channels)])
        if wrong.any():
            raise ValueError(
                f"{path}: label values {np.unique(stored[wrong])[:5].tolist()}, allowed are "
                f"-1..{self.channels - 1}, or 255 for invalid; correct the file or the task's classes."
            )
        labels = stored.astype(np.int64)
        return np.where(labels == -1, INVALID_LABEL, labels)

    def positive(self, name: str, index: int) -> tuple[Array, Path]:
        """A target whose values must be positive; one that is <= 0 or not finite becomes 0, for invalid.

        Args:
            name: the target.
            index: image number, from 0.

        Returns:
            float32 (H,W), and the file it came from.

        Raises:
            ValueError: the file is damaged or holds no finite number.
        """
        values, path = self.finite(name, index, SCALAR)
        values = values.reshape(self.frame)
        return np.where(np.isfinite(values) & (values > 0), values, np.float32(0)), path

    def finite(self, name: str, index: int, ends: tuple[tuple[int, ...], ...]) -> tuple[Array, Path]:
        """A target of which at least one number is finite.

        Args:
            name: the target.
            index: image number, from 0.
            ends: what may follow H,W in the shape of the file's array.

        Returns:
            float32 array as stored, and the file it came from.

        Raises:
            ValueError: the file is damaged or holds no finite number.
        """
        stored, path = self._read(self.folder_of(name), index, ends)
        values = stored.astype(np.float32)
        if not np.isfinite(values).any():
            raise ValueError(f"{path}: holds no finite number, only NaN or infinity; {REMEDY}.")
        return values, path

    def _read(self, folder: str, index: int, ends: tuple[tuple[int, ...], ...]) -> tuple[Array, Path]:
        array, path = self._mapped(folder, index, ends)
        stored, name = np.array(array), f"{folder}/{path.name}"
        if name in self._checksums:
            if why := change_of(self.folder, name, stored, self._checksums):
                raise ValueError(f"{path}: {why}.")
            del self._checksums[name]
        return stored, path

    def _mapped(self, folder: str, index: int, ends: tuple[tuple[int, ...], ...]) -> tuple[Array, Path]:
        path = self.folder / folder / f"{self.numbers[index]}.npy"
        array = read_array(path)
        expected = [(*self.frame, *end) for end in ends]
        if array.shape not in expected:
            raise ValueError(f"{path}: shape {array.shape}, expected {expected[0]}; {REMEDY}.")
        return array, path
