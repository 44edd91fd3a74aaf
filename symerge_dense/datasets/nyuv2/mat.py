"""NYUv2 (Silberman et al., ECCV 2012) as its makers published it: one MATLAB file, splits and class mappings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from symerge_dense.datasets.base import Array, source_of
from symerge_dense.datasets.class_names import NYU40, NYU40_TO_13
from symerge_dense.datasets.nyuv2.frames import NYUFrames
from symerge_dense.datasets.nyuv2.normals import ARCHIVE, FOLDER, decode_normals, normals_folder
from symerge_dense.datasets.nyuv2.readers import read_mat, read_picture
from symerge_dense.datasets.targets import INVALID_LABEL, NYU_FRAME, known_depth
from symerge_dense.datasets.transforms import TargetRule
from symerge_dense.fileio import optional_import
from symerge_dense.registry import DATASETS

REMEDY = "fetch this file again (2.8 GB)"
BROKEN = (OSError, RuntimeError, ValueError, KeyError)  # h5py raises these for a damaged file
WIDTH, HEIGHT = 640, 480


# -- nyu_depth_v2_labeled.mat: MATLAB 7.3, that is HDF5, with all axes in reverse -------------------------------------
class StoredArray(NamedTuple):
    """What an array of the file must look like.

    Args:
        kinds: allowed kinds of numbers, in numpy's letters.
        axes: lengths of the axes after the first.
        words: the same in words, for error messages.
    """

    kinds: str
    axes: tuple[int, ...]
    words: str


ARRAYS = {
    "images": StoredArray("u", (3, WIDTH, HEIGHT), "uint8 (N, 3, 640, 480)"),
    "depths": StoredArray("f", (WIDTH, HEIGHT), "floats (N, 640, 480)"),
    "labels": StoredArray("ui", (WIDTH, HEIGHT), "integers (N, 640, 480)"),
}


class LabeledMat:
    """The arrays of the file, one frame at a time; every process opens the file once, at first use.

    Links to other files are not followed.

    Args:
        path: the file.

    Attributes:
        count: number of frames.

    Raises:
        ValueError: the file is not HDF5, is cut short, lacks an array or holds another kind of it; the message names
            the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: tuple[int, Any] | None = None
        with self._open() as file:
            counts = {name: self._array(file, name).shape[0] for name in ARRAYS}
        if len(set(counts.values())) > 1 or min(counts.values()) == 0:
            raise ValueError(
                f"{path}: {', '.join(f'{number} {name}' for name, number in counts.items())}; expected "
                f"the same number, 1449 in the published file. {REMEDY.capitalize()}."
            )
        self.count = counts["images"]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def read(self, name: str, number: int) -> NDArray[Any]:
        """One frame of an array, (480,640,3) of images, else (480,640); nothing else is read.

        Args:
            name: 'images', 'depths' or 'labels'.
            number: of the frame, from 0.

        Raises:
            ValueError: the frame cannot be read.
        """
        process = os.getpid()
        if self._opened is None or self._opened[0] != process:  # a handle must not be shared with a forked worker
            self._opened = process, self._open()
        try:
            stored = np.asarray(self._opened[1][name][number])
        except BROKEN as error:
            raise ValueError(f"{self.path}: frame {number} of {name!r} cannot be read ({error}); {REMEDY}.") from error
        return np.ascontiguousarray(stored.T)

    def _open(self) -> Any:
        h5py = optional_import("h5py", self.path.name)
        try:
            return h5py.File(self.path, "r", locking="best-effort")
        except OSError as error:
            raise ValueError(f"{self.path}: not a readable MATLAB 7.3 (HDF5) file ({error}); {REMEDY}.") from error

    def _array(self, file: Any, name: str) -> Any:
        h5py = optional_import("h5py", self.path.name)
        wanted, found = ARRAYS[name], None
        try:
            if isinstance(file.get(name, getlink=True), h5py.HardLink):
                found = file[name]
        except BROKEN as error:
            raise ValueError(f"{self.path}: {name!r} cannot be read ({error}); {REMEDY}.") from error
        if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external:
            raise ValueError(f"{self.path}: holds no array {name!r}, expected {wanted.words}; {REMEDY}.")
        if found.shape is None or found.shape[1:] != wanted.axes or not self._is_kind(found.dtype, wanted):
            raise ValueError(
                f"{self.path}: {name!r} is {found.dtype} of shape {found.shape}, expected {wanted.words}; {REMEDY}."
            )
        return found

    @staticmethod
    def _is_kind(dtype: np.dtype[Any], wanted: StoredArray) -> bool:
        return dtype.kind in wanted.kinds and (wanted.kinds != "u" or dtype.itemsize == 1)


# -- the data set -----------------------------------------------------------------------------------------------------
LABELED, SPLITS, MAPPING40, MAPPING13 = (
    "nyu_depth_v2_labeled.mat",
    "splits.mat",
    "classMapping40.mat",
    "class13Mapping.mat",
)
URLS = {
    LABELED: "http://horatio.cs.nyu.edu/mit/silberman/nyu_depth_v2/nyu_depth_v2_labeled.mat",
    SPLITS: "http://horatio.cs.nyu.edu/mit/silberman/indoor_seg_sup/splits.mat",
    MAPPING40: "https://github.com/ankurhanda/nyuv2-meta-data/raw/master/classMapping40.mat",
}
FILE_OF_SPLIT = {"train": "trainNdxs", "val": "testNdxs"}


@DATASETS.register_module()
class NYUv2Mat(NYUFrames):
    """Segmentation (13 or 40 classes), edges, depth (in-painted, metres) and normals of the official files.

    ``root`` holds nyu_depth_v2_labeled.mat, splits.mat and classMapping40.mat; where class13Mapping.mat is there too,
    it is compared with the mapping in use. Stored normals are the pictures of Eigen and Fergus (2015, arXiv
    1411.4734) in normals_gt, or in normals_gt.tgz, which is unpacked beside itself the first time; with
    ``normals='depth'`` they are not needed. Images come in the order of splits.mat, and are read one at a time.

    Args:
        root: folder of these files.
        split: as in ``NYUFrames``.
        tasks: as in ``NYUFrames``.
        **settings: ``augment``, ``size``, ``seed``, ``crop``, ``normals`` of ``NYUFrames``.

    Raises:
        ValueError: a file is missing (saying where to get it), damaged or of another structure, or a split names an
            image twice or one that does not exist; on reading, data are damaged or impossible.
    """

    packaging: ClassVar[str] = "mat"

    def __init__(
        self,
        root: str | Path = "data/nyuv2_mat",
        split: Literal["train", "val"] = "train",
        tasks: Mapping[str, TargetRule | dict[str, Any]] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(root, split, tasks, **settings)
        for name, url in URLS.items():
            if not (self.root / name).is_file():
                raise ValueError(f"{self.root / name}: missing. Fetch\n    {url}\ninto {self.root}.")
        self.mat = LabeledMat(self.root / LABELED)
        self.numbers = _split_numbers(self.root / SPLITS, self.mat.count, FILE_OF_SPLIT[split])
        self.class_of = _class_table(self.root / MAPPING40)
        if (self.root / MAPPING13).is_file():
            _check_13(self.root / MAPPING13)
        self.stores_normals = self.normals == "stored" and "normals" in map(source_of, self.tasks.values())
        if self.stores_normals:
            self._check_normals()

    def _check_normals(self) -> None:
        missing = [path for index in range(len(self)) for path in self._normal_files(index) if not path.is_file()]
        if missing:
            raise ValueError(
                f"{missing[0]}: missing, one of {len(missing)}; remove the folder "
                f"{FOLDER} and put {ARCHIVE} here, or set normals='depth'."
            )

    @property
    def source_files(self) -> list[Path]:
        """The MATLAB files and, where stored normals are requested, the pictures that they are read from."""
        names = [*URLS, *([MAPPING13] if (self.root / MAPPING13).is_file() else [])]
        files = [self.root / name for name in names]
        if self.stores_normals:
            files += [path for index in range(len(self)) for path in self._normal_files(index)]
        return files

    def __len__(self) -> int:
        return len(self.numbers)

    def frame_image(self, index: int) -> Array:
        """Image (480,640,3) uint8 RGB.

        Args:
            index: image number, from 0.
        """
        return self.mat.read("images", self.numbers[index])

    def frame_labels(self, index: int) -> Array:
        """Classes (480,640) int64 0..39, 255 void.

        Args:
            index: image number, from 0.
        """
        labels = self.mat.read("labels", self.numbers[index]).astype(np.int64)
        wrong = (labels < 0) | (labels >= len(self.class_of))
        if wrong.any():
            raise ValueError(
                f"{self.mat.path}: labels {np.unique(labels[wrong])[:5].tolist()} in frame "
                f"{self.numbers[index]}, allowed are 0..{len(self.class_of) - 1}; {REMEDY}."
            )
        return self.class_of[labels]

    def frame_depth(self, index: int) -> Array:
        """Depth (480,640) float32 metres, 0 invalid.

        Args:
            index: image number, from 0.
        """
        return known_depth(self.mat.read("depths", self.numbers[index]))

    def frame_normals(self, index: int) -> Array:
        """Normals (480,640,3) float32 (x right, z forward, y up), zero where the mask is.

        Args:
            index: image number, from 0.
        """
        path, mask_path = self._normal_files(index)
        picture, mask = read_picture(path), read_picture(mask_path)
        for file, pixels in ((path, picture), (mask_path, mask)):
            if pixels.shape[:2] != NYU_FRAME:
                raise ValueError(f"{file}: {pixels.shape[:2]}, expected a picture of {NYU_FRAME}; {REMEDY}.")
        return decode_normals(picture, mask.max(-1))

    def _normal_files(self, index: int) -> tuple[Path, Path]:
        folder, name = normals_folder(self.root), f"{self.numbers[index]:04}.png"
        return folder / "normals" / name, folder / "masks" / name


def _split_numbers(path: Path, count: int, name: str) -> list[int]:
    """Frame numbers, counted from 0, of the list ``name`` of splits.mat; both lists must be valid."""
    lists = {key: read_mat(path, key).ravel() for key in FILE_OF_SPLIT.values()}
    every = np.concatenate(list(lists.values()))
    wrong = every[~np.isin(every, np.arange(1, count + 1))]
    if wrong.size or not all(numbers.size for numbers in lists.values()):
        found = f"image {wrong[0]}" if wrong.size else "an empty list"
        raise ValueError(
            f"{path}: holds {found}, expected numbers 1..{count}, which {LABELED} has; the two files do "
            "not belong together. Fetch both again."
        )
    numbers, times = np.unique(every, return_counts=True)
    if times.max() > 1:
        raise ValueError(
            f"{path}: image {numbers[times.argmax()]} is listed {times.max()} times; trainNdxs and "
            f"testNdxs share no image. {REMEDY.capitalize()}."
        )
    return [int(number) - 1 for number in lists[name]]


def _class_table(path: Path) -> NDArray[np.int64]:
    """Class 0..39 of every raw label, 255 of raw label 0."""
    classes = read_mat(path, "mapClass").ravel()
    if not classes.size or not np.isin(classes, np.arange(1, len(NYU40) + 1)).all():
        raise ValueError(
            f"{path}: 'mapClass' holds values beyond 1..40, expected the class of each of 894 labels; {REMEDY}."
        )
    return np.concatenate([[INVALID_LABEL], classes.astype(np.int64) - 1])


def _check_13(path: Path) -> None:
    """Raise ValueError unless class13Mapping.mat says what ``NYU40_TO_13`` says."""
    matlab = optional_import("scipy.io", path.name)
    try:
        struct = matlab.loadmat(path, variable_names=["classMapping13"], simplify_cells=False)["classMapping13"]
        found = np.asarray(struct["labels13"][0, 0], np.int64).ravel() - 1
    except Exception as error:  # scipy raises whatever the damage causes
        raise ValueError(
            f"{path}: no readable 'classMapping13' with 'labels13' in it ({error!r}); remove the file, "
            "which is only compared with."
        ) from error
    if found.tolist() != list(NYU40_TO_13):
        raise ValueError(
            f"{path}: labels13 is another mapping of 40 classes to 13 than this package's "
            f"(datasets.class_names.NYU40_TO_13): {(found + 1).tolist()}. Remove the file to go by the package's."
        )
