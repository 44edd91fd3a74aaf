"""NYUv2 as one file per frame and target in folders, listed in text files: what these packagings have in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from symerge_dense.datasets.base import Array, source_of
from symerge_dense.datasets.mtan_layout import REMEDY, read_array
from symerge_dense.datasets.nyuv2.frames import NYUFrames
from symerge_dense.datasets.nyuv2.normals import OWN_AXES, decode_normals, parse_axes
from symerge_dense.datasets.nyuv2.readers import classes_of_40, read_class_map, read_mat, read_picture
from symerge_dense.datasets.targets import NYU_FRAME, known_depth, known_normals
from symerge_dense.datasets.transforms import TargetRule
from symerge_dense.registry import DATASETS

FOLDER_OF = {"segmentation": "segmentation", "edges": "segmentation", "depth": "depth", "normals": "normals"}
BENCHMARK_CROP = (45, 470, 40, 600)
"""First row, end row, first column, end column of what 425 x 560 frames show of a 480 x 640 one: MATLAB's 46:470 and
41:600, the crop that semantic segmentation of NYUv2 uses since Shelhamer et al.'s FCN (2015, arXiv 1411.4038)."""


class Flavour(NamedTuple):
    """File suffixes of one packaging, by folder.

    Args:
        name: what users call it.
        images: suffix of the images, with its dot.
        segmentation: suffix of the label maps.
        normals: suffix of the normals.
        depth: suffix of the depth maps.
    """

    name: str
    images: str
    segmentation: str
    normals: str
    depth: str

    def suffix(self, folder: str) -> str:
        """Suffix of the files in a folder.

        Args:
            folder: 'images', 'segmentation', 'normals' or 'depth'.
        """
        return str(getattr(self, folder))

    def __str__(self) -> str:
        return f"{self.name}: " + ", ".join(f"{name}/*{self.suffix(name)}" for name in self._fields[1:])


class ListedFrames(NYUFrames):
    """Base of the packagings ``root/{images,segmentation,normals,depth}/NAME.*``, ``root/gt_sets/{train,val}.txt``.

    Images come in the order of the list. Labels have 40 classes, stored 1..40 with 0 for void; depth is in metres;
    normals are vectors in .npy files or pictures of (n + 1) / 2. A subclass gives ``flavours``.

    Args:
        root: as in ``NYUFrames``.
        split: as in ``NYUFrames``.
        tasks: as in ``NYUFrames``.
        normal_axes: what the stored channels of the normals are, in terms of the camera, x right, y up, z forward:
            three letters with signs (see ``parse_axes``). The default is the order of Eigen and Fergus's pictures;
            ``prepare_data.py check`` finds out whether it fits.
        **settings: ``augment``, ``size``, ``seed``, ``crop``, ``normals`` of ``NYUFrames``.

    Raises:
        ValueError: a list or file is missing, files are of two flavours or of none, or ``crop='eigen'`` is asked of
            cropped frames; on reading, a file is damaged, differs in size from the first image, or holds a value out
            of range.
    """

    flavours: ClassVar[tuple[Flavour, ...]]

    def __init__(
        self,
        root: str | Path,
        split: Literal["train", "val"] = "train",
        tasks: Mapping[str, TargetRule | dict[str, Any]] | None = None,
        *,
        normal_axes: str = OWN_AXES,
        **settings: Any,
    ) -> None:
        super().__init__(root, split, tasks, **settings)
        self.axes = parse_axes(normal_axes)
        self.names = self._listed()
        self.folders = self._needed()
        self.flavour = self._find_flavour()
        self._check_files()
        self.frame: tuple[int, int] = read_picture(self._path("images", 0)).shape[:2]
        self._check_frame()

    # -- what is there ------------------------------------------------------------------------------------------------
    def _listed(self) -> list[str]:
        path = self.root / "gt_sets" / f"{self.split}.txt"
        expected = "\n".join(f"    {flavour}" for flavour in self.flavours)
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            inside = ", ".join(sorted(entry.name for entry in self.root.iterdir())[:8]) if self.root.is_dir() else ""
            raise ValueError(
                f"{path}: no readable list of file names there; {self.root} holds {inside or 'nothing'}. "
                f"Expected are gt_sets/train.txt, gt_sets/val.txt and\n{expected}"
            ) from None
        names = [line.strip() for line in lines if line.strip()]
        wrong = [name for name in names if Path(name).name != name or name.startswith(".")]
        if wrong or not names or len(set(names)) < len(names):
            found = f"{wrong[0]!r} is no file name" if wrong else "names are repeated" if names else "there is no name"
            raise ValueError(
                f"{path}: {found}; expected one name per line, without folder and suffix. {REMEDY.capitalize()}."
            )
        return names

    def _needed(self) -> list[str]:
        folders = {FOLDER_OF[source_of(rule)] for rule in self.tasks.values()}
        if self.normals == "depth":
            folders = {"depth" if folder == "normals" else folder for folder in folders}
        return ["images", *sorted(folders)]

    def _find_flavour(self) -> Flavour:
        """The flavour whose files exist for the first name; of several, the one that matches the most folders."""
        first = self.names[0]
        found = {
            folder: {path.suffix for path in (self.root / folder).glob(f"{_literal(first)}.*")}
            for folder in Flavour._fields[1:]
        }
        fitting = [
            flavour
            for flavour in self.flavours
            if all(flavour.suffix(folder) in found[folder] for folder in self.folders)
        ]
        if not fitting or (len(fitting) > 1 and len(self.folders) > 1):
            held = ", ".join(
                f"{folder}/{first}{'|'.join(sorted(found[folder])) or ' nothing'}" for folder in self.folders
            )
            expected = "\n".join(f"    {flavour}" for flavour in self.flavours)
            raise ValueError(
                f"{self.root}: {'two flavours are mixed' if fitting else 'no known packaging'}: found "
                f"{held}; {type(self).__name__} expects one of\n{expected}\nFetch it again, or take the "
                "packaging whose files these are."
            )
        return max(fitting, key=lambda flavour: sum(flavour.suffix(folder) in found[folder] for folder in found))

    def _check_files(self) -> None:
        for folder in self.folders:
            missing = [path for path in (self._path(folder, index) for index in range(len(self))) if not path.is_file()]
            if missing:
                raise ValueError(
                    f"{missing[0]}: missing, one of {len(missing)} in this folder that gt_sets/"
                    f"{self.split}.txt lists; fetch the data again."
                )

    def _check_frame(self) -> None:
        if self.crop == "eigen" and self.frame != NYU_FRAME:
            raise ValueError(
                f"{self.root}: crop='eigen' cuts frames of 480 x 640, these are already cropped to "
                f"{self.frame[0]} x {self.frame[1]}; use crop='none'."
            )
        if self.normals == "depth":
            self.frame_of_crop()

    @property
    def source_files(self) -> list[Path]:
        """The list of the split, then the files of its images and targets, folder by folder."""
        listed = [self._path(folder, index) for folder in self.folders for index in range(len(self))]
        return [self.root / "gt_sets" / f"{self.split}.txt", *listed]

    def __len__(self) -> int:
        return len(self.names)

    def _path(self, folder: str, index: int) -> Path:
        return self.root / folder / f"{self.names[index]}{self.flavour.suffix(folder)}"

    # -- frames -------------------------------------------------------------------------------------------------------
    def frame_of_crop(self) -> tuple[int, int, int, int]:
        """The whole frame, or ``BENCHMARK_CROP`` where the files are 425 x 560.

        Raises:
            ValueError: the files have another size.
        """
        if self.frame == NYU_FRAME:
            return super().frame_of_crop()
        top, bottom, left, right = BENCHMARK_CROP
        if self.frame != (bottom - top, right - left):
            raise ValueError(
                f"{self.root}: normals='depth' needs the camera, which is known for frames of 480 x 640 "
                f"and 425 x 560, these are {self.frame[0]} x {self.frame[1]}; use normals='stored'."
            )
        return BENCHMARK_CROP

    def frame_image(self, index: int) -> Array:
        """Image (H,W,3) uint8 RGB.

        Args:
            index: image number, from 0.
        """
        path = self._path("images", index)
        return self._fitting(read_picture(path), path, ((3,),))

    def frame_labels(self, index: int) -> Array:
        """Classes (H,W) int64 0..39, 255 void.

        Args:
            index: image number, from 0.
        """
        path = self._path("segmentation", index)
        stored = read_class_map(path) if path.suffix == ".png" else read_mat(path, "segmentation")
        return classes_of_40(self._fitting(stored, path, ((),)), path)

    def frame_depth(self, index: int) -> Array:
        """Depth (H,W) float32 metres, 0 invalid.

        Args:
            index: image number, from 0.
        """
        path = self._path("depth", index)
        stored = read_mat(path, "depth") if path.suffix == ".mat" else read_array(path)
        metres = self._fitting(stored, path, ((), (1,)))
        if metres.dtype.kind != "f" or not np.isfinite(metres).any():
            raise ValueError(
                f"{path}: {metres.dtype}, expected metres in floating point, some of them finite; {REMEDY}."
            )
        return known_depth(metres.reshape(self.frame))

    def frame_normals(self, index: int) -> Array:
        """Normals (H,W,3) float32, turned to this package's axes, zero invalid.

        Args:
            index: image number, from 0.
        """
        path = self._path("normals", index)
        stored = read_array(path) if path.suffix == ".npy" else read_picture(path)
        stored = self._fitting(stored, path, ((3,),))
        if path.suffix != ".npy":
            return self.axes.apply(decode_normals(stored))
        if stored.dtype.kind != "f" or not np.isfinite(stored).any():
            raise ValueError(
                f"{path}: {stored.dtype}, expected vectors in floating point, some of them finite; {REMEDY}."
            )
        return self.axes.apply(known_normals(stored))

    def _fitting(self, array: Array, path: Path, ends: tuple[tuple[int, ...], ...]) -> Array:
        """``array``, if its shape is the size of the first image, then one of ``ends``; raises ValueError if not."""
        if array.shape not in [(*self.frame, *end) for end in ends]:
            raise ValueError(
                f"{path}: shape {array.shape}, expected {(*self.frame, *ends[0])}, the size of the first "
                f"image; {REMEDY}."
            )
        return array


def _literal(name: str) -> str:
    """``name`` for ``glob``, its own wildcards taken literally."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


# -- NYUD_MT.tgz ------------------------------------------------------------------------------------------------------
@DATASETS.register_module()
class NYUDMT(ListedFrames):
    """NYUD_MT in either of its two flavours; the files tell which.

    Vandenhende et al. (2021, arXiv 2004.13379): JPEG images, PNG labels, normals and depth as .npy.
    ASTMT (Maninis et al. 2019, arXiv 1904.08918): JPEG images and normals, labels and depth as .mat.

    Frames are 425 x 560 (``BENCHMARK_CROP``) or the whole 480 x 640: the files tell. The axes of the stored normals are
    not documented; without ``normal_axes`` they are taken to be Eigen and Fergus's. JPEG normals have lost up to a few
    degrees. Arguments and errors: ``ListedFrames``.
    """

    packaging: ClassVar[str] = "nyud_mt"
    flavours: ClassVar[tuple[Flavour, ...]] = (
        Flavour("Vandenhende's", images=".jpg", segmentation=".png", normals=".npy", depth=".npy"),
        Flavour("ASTMT's", images=".jpg", segmentation=".mat", normals=".jpg", depth=".mat"),
    )


# -- NYUDv2.tar.gz ----------------------------------------------------------------------------------------------------
@DATASETS.register_module()
class NYUDv2(ListedFrames):
    """NYUDv2 as ATRC (Bruggemann et al. 2021, arXiv 2104.13874) and InvPT (Ye and Xu 2022, arXiv 2203.07997) read it.

    Frames are 425 x 560: ``crop='eigen'`` is refused. Their place in the 480 x 640 frame, which ``normals='depth'``
    needs, is not documented with the files: it is inferred from their size, which is that of ``BENCHMARK_CROP``. The
    axes of the stored normals are not documented either; without ``normal_axes`` they are taken to be Eigen and
    Fergus's. The training code pads the frames to 448 x 576; that is not done here. Arguments and errors:
    ``ListedFrames``.
    """

    DEFAULT_SIZE: ClassVar[tuple[int, int]] = (425, 560)
    packaging: ClassVar[str] = "nyudv2"
    flavours: ClassVar[tuple[Flavour, ...]] = (
        Flavour("ATRC's and InvPT's", images=".png", segmentation=".png", normals=".png", depth=".npy"),
    )
