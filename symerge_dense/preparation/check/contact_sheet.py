"""A contact sheet of a prepared set: images beside their labels, to look at before training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from symerge_dense.datasets.class_names import NAMES_BY_COUNT
from symerge_dense.datasets.mtan_layout import read_array
from symerge_dense.datasets.targets import INVALID_LABEL
from symerge_dense.preparation.check.findings import Findings
from symerge_dense.preparation.check.listing import CHANNELS, list_numbers
from symerge_dense.report.figures.style import INK, MUTED, new_figure, save
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
Blocks = Mapping[str, Sequence[Line]]
TITLES = {"image": "image", "label": "segmentation", "depth": "depth", "normal": "normals"}
CELL, GAP, MARGIN, NUMBER, BLOCK_GAP = 1.55, 0.04, 0.12, 0.3, 0.1
"""Inches: a picture's width, between pictures, around all, for a line's number, between the splits."""
HEADING, LEGEND_LINE, PATCH, LETTER = 0.46, 0.21, 0.34, 0.068
"""Inches: for the titles, a line of the legend, its colour with the space around it, a letter of it."""
SMALLEST = 0.5  # ratio of a picture's sides: a file of an odd shape must not spoil the page


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
    _draw({split: lines for split, lines in blocks.items() if lines}, task, path)


def _draw(blocks: Blocks, task: Segmentation, path: str | Path) -> None:
    every = [line for lines in blocks.values() for line in lines]
    block = NUMBER + len(TITLES) * (CELL + GAP)
    width = 2 * MARGIN + len(blocks) * block + (len(blocks) - 1) * BLOCK_GAP
    height = CELL * _proportion(every)
    legend = _legend(sorted(set().union(*(line.classes for line in every))), task, width)
    rows = max(map(len, blocks.values()))
    page = HEADING + rows * (height + GAP) + len(legend) * LEGEND_LINE + (0.1 if legend else 0) + MARGIN
    figure = new_figure(width, page, layout=None)
    for place, (split, lines) in enumerate(blocks.items()):
        _draw_block(figure, split, lines, MARGIN + place * (block + BLOCK_GAP), height)
    _draw_legend(figure, legend, task, HEADING + rows * (height + GAP) + 0.1 + LEGEND_LINE / 2)
    save(figure, path)


def _proportion(lines: Sequence[Line]) -> float:
    """Height over width of the first picture that could be read."""
    shapes = [picture.shape for line in lines for picture in line.pictures.values() if picture is not None]
    return min(max(shapes[0][0] / shapes[0][1], SMALLEST), 1 / SMALLEST) if shapes else 0.75


def _draw_block(figure: Figure, split: str, lines: Sequence[Line], left: float, height: float) -> None:
    """The lines of one split, from ``left`` inches on."""
    _write(figure, left + NUMBER, 0.12, split, fontsize=10, fontweight="bold", ha="left", color=INK)
    for column, title in enumerate(TITLES.values()):
        x = left + NUMBER + column * (CELL + GAP) + CELL / 2
        _write(figure, x, HEADING - 0.12, title, fontsize=8, ha="center", color=MUTED)
    for row, line in enumerate(lines):
        top = HEADING + row * (height + GAP)
        _write(figure, left + NUMBER - 0.07, top + height / 2, str(line.number), fontsize=8, ha="right", color=INK)
        for column, folder in enumerate(TITLES):
            _show(figure, line.pictures[folder], left + NUMBER + column * (CELL + GAP), top, height)


def _show(figure: Figure, picture: Array | None, left: float, top: float, height: float) -> None:
    """One picture, its corner in inches from the top left one of the page; an empty frame where there is none."""
    wide, tall = figure.get_size_inches()
    axes = figure.add_axes((left / wide, 1 - (top + height) / tall, CELL / wide, height / tall))
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(picture is None)
    axes.spines[:].set(color=MUTED, linewidth=0.5)
    if picture is None:
        axes.text(0.5, 0.5, "unreadable", ha="center", va="center", fontsize=8, color=MUTED, transform=axes.transAxes)
    else:
        axes.imshow(picture, interpolation="nearest" if picture.shape[1] < 200 else "antialiased", aspect="auto")


def _legend(shown: Sequence[int], task: Segmentation, width: float) -> list[list[tuple[int, float]]]:
    """Lines of (class, inches from the left) for the classes that are shown."""
    lines: list[list[tuple[int, float]]] = []
    x = width
    for index in shown:
        need = PATCH + LETTER * len(task.class_names[index])
        if x + need > width - MARGIN:
            lines.append([])
            x = MARGIN + NUMBER
        lines[-1].append((index, x))
        x += need
    return lines


def _draw_legend(figure: Figure, legend: Sequence[Sequence[tuple[int, float]]], task: Segmentation, top: float) -> None:
    wide, tall = figure.get_size_inches()
    for row, line in enumerate(legend):
        y = top + row * LEGEND_LINE
        for index, x in line:
            colour = task.colorize(torch.tensor([[index]]))[0, 0] / 255
            figure.add_artist(Rectangle((x / wide, 1 - (y + 0.055) / tall), 0.13 / wide, 0.11 / tall, color=colour))
            _write(figure, x + 0.18, y, task.class_names[index], fontsize=8, ha="left", color=INK)


def _write(figure: Figure, x: float, y: float, text: str, **style: Any) -> None:
    """Text centred on ``y``, at inches from the top left corner of the page."""
    wide, tall = figure.get_size_inches()
    figure.text(x / wide, 1 - y / tall, text, va="center", **style)
