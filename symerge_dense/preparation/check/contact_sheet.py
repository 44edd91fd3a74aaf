"""A contact sheet of a prepared set: images beside their labels, to look at before training."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from symerge_dense.datasets.class_names import NAMES_BY_COUNT
from symerge_dense.datasets.mtan_layout import read_array
from symerge_dense.datasets.targets import INVALID_LABEL
from symerge_dense.preparation.check.findings import Findings
from symerge_dense.preparation.check.listing import CHANNELS, list_numbers
from symerge_dense.preparation.check.sheet import SheetRow, class_legend, draw_sheet
from symerge_dense.tasks.depth import Depth
from symerge_dense.tasks.normals import Normals
from symerge_dense.tasks.segmentation import Segmentation

Array = NDArray[Any]


# -- what a sheet shows: a few evenly spaced images with their labels -------------------------------------------------
class Line(NamedTuple):
    """One image of a contact sheet.

    Args:
        number: of its files.
        pictures: uint8 (H,W,3) by folder; None: it cannot be drawn.
        classes: label classes that occur in it.
    """

    number: int
    pictures: dict[str, Array | None]
    classes: set[int]


def read_lines(split: Path, count: int, task: Segmentation) -> list[Line]:
    """Evenly spaced images of a split, coloured as the tasks do it.

    Args:
        split: folder of the split.
        count: number of images; fewer where the split has fewer.
        task: gives the classes and their colours.
    """
    numbers, length = list_numbers(split, Findings())
    if not any(numbers.values()):
        return []
    chosen = np.unique(np.linspace(0, length - 1, min(count, length)).round().astype(int)).tolist()
    return [_line(split, number, task) for number in chosen]


def _line(split: Path, number: int, task: Segmentation) -> Line:
    arrays = {folder: _read(split / folder / f"{number}.npy", folder) for folder in CHANNELS}
    labels = arrays["label"]
    classes = set() if labels is None else set(np.unique(labels).astype(int).tolist()) & set(range(task.channels))
    pictures = {folder: None if array is None else _colour(folder, array, task) for folder, array in arrays.items()}
    return Line(number, pictures, classes)


def _read(path: Path, folder: str) -> Array | None:
    """(H,W,C) float32, with 0 for NaN and infinity; None if the file is missing, unreadable or of another shape."""
    try:
        stored = read_array(path)
    except ValueError:
        return None
    shapes = [(*stored.shape[:2], *last) for last in CHANNELS[folder]]
    if stored.ndim < 2 or stored.shape not in shapes or not stored.size:
        return None
    scale = 255 if folder == "image" and stored.dtype.kind != "f" else 1
    values = np.array(stored).reshape(*stored.shape[:2], -1).astype(np.float32) / scale
    return np.nan_to_num(values, nan=0, posinf=0, neginf=0)


def _colour(folder: str, array: Array, task: Segmentation) -> Array:
    if folder == "image":
        return (array.clip(0, 1) * 255).round().astype(np.uint8)
    if folder == "label":
        outside = (array < 0) | (array >= task.channels)
        return np.asarray(task.colorize(torch.from_numpy(np.where(outside, INVALID_LABEL, array)[..., 0])))
    layers = torch.from_numpy(array.transpose(2, 0, 1).copy())
    return np.asarray((Depth() if folder == "depth" else Normals()).colorize(layers))


# -- the page ---------------------------------------------------------------------------------------------------------
TITLES = {"image": "image", "label": "segmentation", "depth": "depth", "normal": "normals"}


def contact_sheet(root: str | Path, path: str | Path, count: int = 12, classes: int = 13) -> None:
    """Draw evenly spaced images of ``root/{train,val}`` to a PNG: image | segmentation | depth | normals.

    Train is at the left, val at the right, each line with its number. The colours of the classes that occur are below.
    A file that is missing, unreadable or of an odd shape leaves an empty frame.

    Args:
        root: folder of the prepared set.
        path: PNG file, written whole or not at all.
        count: number of images, shared out among the splits.
        classes: number of classes of the labels.

    Raises:
        ValueError: ``count`` is below 1, or there is nothing to draw.
    """
    if count < 1:
        raise ValueError(f"count={count}: a contact sheet needs at least one image.")
    task = Segmentation(classes, NAMES_BY_COUNT.get(classes))
    present = [split for split in ("train", "val") if (Path(root) / split).is_dir()]
    blocks = {split: read_lines(Path(root) / split, -(-count // len(present)), task) for split in present}
    if not any(blocks.values()):
        raise ValueError(f"{root}: no {{train,val}}/{{image,...}}/0.npy to draw; give the folder of a prepared set.")
    shown = {split: [_row(line) for line in lines] for split, lines in blocks.items() if lines}
    classes_shown = sorted(set().union(*(line.classes for lines in blocks.values() for line in lines)))
    draw_sheet(path, shown, [*TITLES.values()], class_legend(task, classes_shown))


def _row(line: Line) -> SheetRow:
    return SheetRow(str(line.number), {TITLES[folder]: picture for folder, picture in line.pictures.items()})
