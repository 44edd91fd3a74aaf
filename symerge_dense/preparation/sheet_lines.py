"""What a contact sheet shows of a split: a few evenly spaced images with their labels, as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from symerge_dense.datasets.numbered import INVALID_LABEL, read_array
from symerge_dense.preparation.findings import Findings
from symerge_dense.preparation.listing import CHANNELS, list_numbers
from symerge_dense.tasks.depth import Depth
from symerge_dense.tasks.normals import Normals
from symerge_dense.tasks.segmentation import Segmentation

Array = NDArray[Any]


class Line(NamedTuple):
    """One image: its number, a picture uint8 (H,W,3) per folder (None: cannot be drawn), the classes in it."""

    number: int
    pictures: dict[str, Array | None]
    classes: set[int]


def read_lines(split: Path, count: int, task: Segmentation) -> list[Line]:
    """At most ``count`` evenly spaced images of the split in folder ``split``, coloured as the tasks do it."""
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
    """(H,W,C) float32 without NaN or infinity; None where the file is not such an array."""
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
