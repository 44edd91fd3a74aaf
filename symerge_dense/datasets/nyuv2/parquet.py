"""NYUv2 in the Parquet shards of the Hugging Face data set ``tanganke/nyuv2``: MTAN's arrays, 13 classes, 288 x 384."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from symerge_dense.datasets.base import Array, DenseDataset, source_of
from symerge_dense.datasets.class_names import NYU13
from symerge_dense.datasets.nyuv2.parquet_reader import ColumnType, ParquetColumn, row_groups
from symerge_dense.datasets.targets import INVALID_LABEL, boundary, known_depth, known_normals
from symerge_dense.datasets.transforms import Augment, TargetRule
from symerge_dense.registry import DATASETS

FETCH = """{root} holds no Parquet shard of split {split!r}.
Wanted are the files of the Hugging Face data set tanganke/nyuv2, 3 GB,
    {root}/data/train-00000-of-00008.parquet to train-00007-of-00008.parquet,
    {root}/data/val-00000-of-00006.parquet to val-00005-of-00006.parquet
(or the same files in {root} itself). Fetch them by
    hf download tanganke/nyuv2 --repo-type dataset --local-dir {root}"""
SHARD = re.compile(r"(?P<split>train|val)-(?P<number>\d{5})-of-(?P<total>\d{5})(-[0-9a-f]+)?\.parquet")
COLUMNS = {
    "image": ColumnType(3, "floating point"),
    "segmentation": ColumnType(2, "integer"),
    "depth": ColumnType(3, "floating point"),
    "normal": ColumnType(3, "floating point"),
}
COLUMN_OF = {"segmentation": "segmentation", "edges": "segmentation", "depth": "depth", "normals": "normal"}


def shards(root: Path, split: str) -> list[Path]:
    """The shards of a split in order, from ``root/data`` or ``root``.

    Args:
        root: folder with the shards, in ``data`` or directly.
        split: 'train' or 'val'.

    Raises:
        ValueError: there is no shard (saying what to fetch), some of the series are missing, or the folder mixes two
            series.
    """
    for folder in (root / "data", root):
        matches = [match for path in sorted(folder.glob("*.parquet")) if (match := SHARD.fullmatch(path.name))]
        files = [
            (int(match["number"]), int(match["total"]), folder / match[0])
            for match in matches
            if match["split"] == split
        ]
        if files:
            break
    else:
        raise ValueError(FETCH.format(root=root, split=split))
    totals = sorted({total for _, total, _ in files})
    numbers = [number for number, _, _ in files]
    if len(totals) > 1 or len(set(numbers)) < len(numbers) or max(numbers) >= totals[0]:
        raise ValueError(
            f"{folder}: the {split!r} shards are not of one series: "
            f"{', '.join(path.name for _, _, path in files)}; keep the files of one download."
        )
    missing = [f"{split}-{number:05}-of-{totals[0]:05}.parquet" for number in range(totals[0]) if number not in numbers]
    if missing:
        raise ValueError(
            f"{folder}: of {totals[0]} {split!r} shards {len(missing)} are missing: {', '.join(missing)}; "
            "fetch them too."
        )
    return [path for _, _, path in files]


@DATASETS.register_module()
class NYUv2Parquet(DenseDataset):
    """Segmentation (13 classes), edges (boundaries of the label map), depth and normals of the Parquet shards.

    Columns: ``image`` (3,H,W) in [0,1], ``segmentation`` (H,W) -1..12, ``depth`` (1,H,W) metres, ``normal`` (3,H,W)
    (x right, z forward, y up); H x W is that of the first image. ``noise`` is never read, nor is the column of a task
    that is not requested. Reading in order, as an export does, is one pass over the files. To train, export first: in
    a shuffled order each image costs the reading of a whole row group, about 100 images.

    Args:
        root: folder with the shards, in ``data`` or directly.
        split: 'train' (795 images) or 'val' (654).
        tasks: as in ``DenseDataset``.
        augment: as in ``DenseDataset``.
        size: as in ``DenseDataset``.
        seed: as in ``DenseDataset``.

    Raises:
        ValueError: shards are missing, the number of classes is not 13, or a file is damaged or lacks a column or
            holds it as another type; on reading, data are damaged, of another shape or out of range.
    """

    DEFAULT_SIZE: ClassVar[tuple[int, int]] = (288, 384)
    serves: ClassVar[frozenset[str]] = frozenset(COLUMN_OF)
    packaging: ClassVar[str] = "parquet"
    classes = NYU13

    def __init__(
        self,
        root: str | Path,
        split: Literal["train", "val"] = "train",
        tasks: Mapping[str, TargetRule | dict[str, Any]] | None = None,
        augment: Augment | dict[str, Any] | None = None,
        size: tuple[int, int] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(tasks, augment, size, seed)
        if split not in ("train", "val"):
            raise ValueError(f"split={split!r}: tanganke/nyuv2 has 'train' and 'val'.")
        channels = int(getattr(self.tasks.get("segmentation"), "channels", len(NYU13)))
        if channels != len(NYU13):
            raise ValueError(
                f"segmentation with {channels} classes: tanganke/nyuv2 has the 13-class labels only; the "
                "40-class labels are in the packagings mat, nyud_mt and nyudv2."
            )
        self.root, self.split = Path(root), split
        self.files = shards(self.root, split)
        needed = {"image", *(COLUMN_OF[source_of(rule)] for rule in self.tasks.values())}
        groups = row_groups(self.files, {name: COLUMNS[name] for name in sorted(needed)})
        if not groups:
            raise ValueError(f"{self.files[0]}: holds no rows; fetch this file again.")
        self.length = groups[-1].end
        self._columns = {name: ParquetColumn(groups, name) for name in COLUMNS}
        self.frame = self._columns["image"][0].shape[1:]

    @property
    def source_files(self) -> list[Path]:
        """The shards of the split."""
        return list(self.files)

    def __len__(self) -> int:
        return self.length

    def _read(self, name: str, index: int) -> tuple[Array, str]:
        """Row ``index`` of a column, (H,W) or (H,W,C), and where it came from, for error messages."""
        column = self._columns[name]
        group = column.group(index)
        place = f"{group.path}: row {index - group.first} of row group {group.number}, column {name!r}"
        stored = column[index]
        channels = {"image": (3,), "segmentation": (), "depth": (1,), "normal": (3,)}[name]
        if stored.shape != (*channels, *self.frame):
            raise ValueError(
                f"{place}: shape {stored.shape}, expected {(*channels, *self.frame)} as the first image "
                "says; fetch this file again."
            )
        return (stored if stored.ndim == 2 else stored.transpose(1, 2, 0)), place

    def image(self, index: int) -> Array:
        """Image (H,W,3) float32 RGB in 0..255.

        Args:
            index: image number, from 0.
        """
        stored, place = self._read("image", index)
        if not np.isfinite(stored).all() or stored.min() < -1e-3 or stored.max() > 1.001:
            raise ValueError(
                f"{place}: image values {stored.min()}..{stored.max()}, expected 0..1; fetch this file again."
            )
        return np.clip(stored.astype(np.float32) * np.float32(255), 0, 255)

    def target(self, index: int, name: str) -> Array:
        """Segmentation int64 and edges float32 (H,W), depth float32 (H,W), normals float32 (H,W,3).

        Args:
            index: image number, from 0.
            name: one of ``serves``.
        """
        if name in ("segmentation", "edges"):
            labels = self._labels(index)
            return labels if name == "segmentation" else boundary(labels, labels != INVALID_LABEL)
        stored, place = self._read(COLUMN_OF[name], index)
        if not np.isfinite(stored).any():
            raise ValueError(f"{place}: holds no finite number; fetch this file again.")
        return known_depth(stored[..., 0]) if name == "depth" else known_normals(stored)

    def _labels(self, index: int) -> Array:
        stored, place = self._read("segmentation", index)
        wrong = ~np.isin(stored, [-1, INVALID_LABEL, *range(len(NYU13))])
        if wrong.any():
            raise ValueError(
                f"{place}: label values {np.unique(stored[wrong])[:5].tolist()}, allowed are -1..12, or "
                "255 for invalid; fetch this file again."
            )
        labels = stored.astype(np.int64)
        return np.where(labels == -1, INVALID_LABEL, labels)
