"""Predictions as pictures: laid over the image, or side by side, with what the colours mean beneath.

Pictures are uint8 (H,W,3) RGB.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from symerge_dense.datasets.image_files import Pixels
from symerge_dense.datasets.resize import resample_nearest, resize
from symerge_dense.tasks.base import DenseTask
from symerge_dense.tasks.colors import Legend

Limits = tuple[float, float]
PAPER, TEXT = (255, 255, 255), (34, 39, 46)
LINE, GAP, SWATCH, FONT_SIZE = 20, 8, 12, 13  # pixels
MOST_LINES = 3  # of a legend; what does not fit is counted
CELL = 240, 640  # least width and largest side of a picture in a panel
COLUMNS = 4


# -- numbers to colours -----------------------------------------------------------------------------------------------
def as_row(task: DenseTask, prediction: NDArray[Any]) -> Tensor:
    """A prediction of one image as a row of ``task.decide``: (H,W) class ids, or (C,H,W).

    Args:
        task: whose prediction.
        prediction: (H,W) or (H,W,C), as Predictor gives it.
    """
    if task.class_map:
        return torch.from_numpy(prediction.astype(np.int64))
    value = torch.from_numpy(np.ascontiguousarray(prediction, np.float32))
    return value[None] if value.ndim == 2 else value.permute(2, 0, 1)


def limits_of(task: DenseTask, prediction: NDArray[Any]) -> Limits | None:
    """The range that the colours of one image span; None where the task's is fixed.

    Args:
        task: whose prediction.
        prediction: (H,W) or (H,W,C).
    """
    return task.limits(as_row(task, prediction))


def colored(task: DenseTask, prediction: NDArray[Any], limits: Limits | None = None) -> Pixels:
    """A prediction in its task's colours.

    Args:
        task: whose prediction.
        prediction: (H,W) or (H,W,C).
        limits: the range that the colours span; None takes the image's own.
    """
    return np.asarray(task.colorize_prediction(as_row(task, prediction), limits), np.uint8)


def draw_overlay(
    pixels: Pixels,
    task: DenseTask,
    prediction: NDArray[Any],
    alpha: float = 0.6,
    legend: bool = True,
    limits: Limits | None = None,
) -> Pixels:
    """An image with a prediction laid over it.

    Args:
        pixels: the image.
        task: whose prediction.
        prediction: (H,W) or (H,W,C), of the image's size.
        alpha: how much of the colours, 0..1.
        legend: put the meaning of the colours beneath.
        limits: the range that the colours span; None takes the image's own.

    Raises:
        ValueError: ``alpha`` is out of range.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha}: how much of the colours, from 0 (the image alone) to 1.")
    limits = limits or limits_of(task, prediction)
    colors = colored(task, prediction, limits)
    mixed = (pixels * (1 - alpha) + colors * alpha).round().astype(np.uint8)
    if not legend:
        return mixed
    return np.concatenate([mixed, draw_legend(task, prediction, pixels.shape[1], limits)])


def draw_panel(
    pixels: Pixels,
    tasks: Mapping[str, DenseTask],
    predictions: Mapping[str, NDArray[Any]],
    limits: Mapping[str, Limits | None] | None = None,
) -> Pixels:
    """An image and all predictions side by side, at most four in a row, with titles, legends and scales.

    Its size depends on the image's size and on the tasks alone, so that a video's frames make a video of panels.

    Args:
        pixels: the image.
        tasks: {name: task}.
        predictions: {task: (H,W) or (H,W,C)}.
        limits: {task: range that the colours span}; None takes the image's own.
    """
    height, width = pixels.shape[:2]
    scale = min(max(CELL[0] / width, min(1.0, CELL[1] / max(height, width))), CELL[1] / max(height, width) * 4)
    size = max(round(height * scale), 1), max(round(width * scale), 1)
    cells = [_cell("image", resize(pixels, size), None)]
    for name, task in tasks.items():
        spans = (limits or {}).get(name) or limits_of(task, predictions[name])
        picture = colored(task, predictions[name], spans)
        shown = resample_nearest(picture, size) if task.class_map else resize(picture, size)
        cells.append(_cell(_title(task), shown, draw_legend(task, predictions[name], size[1], spans)))
    tallest = max(cell.shape[0] for cell in cells)
    filled = [_padded(cell, tallest, cell.shape[1]) for cell in cells]
    columns = min(len(filled), COLUMNS)
    filled += [np.full_like(filled[0], 255)] * (-len(filled) % columns)
    rows = [np.concatenate(filled[first : first + columns], 1) for first in range(0, len(filled), columns)]
    panel = np.concatenate(rows)
    return _padded(panel, panel.shape[0] + panel.shape[0] % 2, panel.shape[1] + panel.shape[1] % 2)


def _title(task: DenseTask) -> str:
    name = task.name.replace("_", " ")
    return f"{name} ({task.unit})" if task.unit else name


def _cell(title: str, picture: Pixels, legend: Pixels | None) -> Pixels:
    head = Image.new("RGB", (picture.shape[1], LINE), PAPER)
    ImageDraw.Draw(head).text((GAP // 2, 2), title, TEXT, font=_font())
    parts = [np.asarray(head), picture, *([] if legend is None else [legend])]
    cell = np.concatenate(parts)
    return np.pad(cell, ((0, GAP // 2), (GAP // 2, GAP // 2), (0, 0)), constant_values=255)


def _padded(picture: Pixels, height: int, width: int) -> Pixels:
    below, right = height - picture.shape[0], width - picture.shape[1]
    return np.pad(picture, ((0, below), (0, right), (0, 0)), constant_values=255)


# -- legends ----------------------------------------------------------------------------------------------------------
def draw_legend(task: DenseTask, prediction: NDArray[Any], width: int, limits: Limits | None = None) -> Pixels:
    """A strip that says what a prediction's colours mean: a scale, or the names that occur.

    Names stand in the order of their classes; where not all have room, the commonest come first.

    Args:
        task: whose prediction.
        prediction: (H,W) or (H,W,C).
        width: of the strip.
        limits: the range that the colours span.

    Returns:
        (h,width,3); its height depends on the task and the width alone.
    """
    legend = task.legend(limits)
    if not legend.names:
        return _scale_strip(legend, width) if legend.low is not None and legend.high is not None else _blank(1, width)
    order, lines = list(range(len(legend.names))), _lines(legend.names, width)
    if task.class_map:
        counts = np.bincount(prediction.ravel().astype(np.int64), minlength=len(order))
        order = [index for index in order if counts[index]]
        if _lines([legend.names[index] for index in order], width) > min(lines, MOST_LINES):
            order.sort(key=lambda index: -counts[index])
    lines = min(lines, MOST_LINES)
    strip = Image.fromarray(_blank(lines, width))
    _write_names(ImageDraw.Draw(strip), legend, order, lines, width)
    return np.asarray(strip)


def _blank(lines: int, width: int) -> Pixels:
    return np.full((lines * LINE + GAP // 2, width, 3), 255, np.uint8)


def _scale_strip(legend: Legend, width: int) -> Pixels:
    strip = _blank(1, width)
    ends = legend.low or 0.0, legend.high or 0.0
    digits = min(max(2 - math.floor(math.log10(max(ends[1] - ends[0], 1e-6))), 0), 6)  # three of the span
    low, high = (f"{value:.{digits}f} {legend.unit}".rstrip() for value in ends)
    left, right = (_text_width(text) + GAP for text in (low, high))
    bar = width - left - right - GAP
    if bar >= SWATCH and legend.colors:
        places = np.linspace(0, len(legend.colors) - 1, bar).round().astype(int)
        strip[5 : 5 + SWATCH, left : left + bar] = np.asarray(legend.colors, np.uint8)[places]
    picture = Image.fromarray(strip)
    draw = ImageDraw.Draw(picture)
    draw.text((GAP // 2, 3), low, TEXT, font=_font())
    draw.text((width - right, 3), high, TEXT, font=_font())
    return np.asarray(picture)


def _lines(names: Sequence[str], width: int) -> int:
    """Lines that names take, a quarter more than their widths together: lines are not filled to their ends."""
    return max(-(-sum(map(_entry_width, names)) * 5 // (width * 4)), 1)


def _write_names(draw: ImageDraw.ImageDraw, legend: Legend, order: list[int], lines: int, width: int) -> None:
    x, y, line = GAP // 2, 3, 1
    for place, index in enumerate(order):
        entry = _entry_width(legend.names[index])
        more = f"+{len(order) - place}"
        reserve = _text_width(more) + GAP if line == lines and place + 1 < len(order) else 0
        if x + entry + reserve > width and line < lines:
            x, y, line = GAP // 2, y + LINE, line + 1
        elif x + entry + reserve > width:
            draw.text((x, y), more, TEXT, font=_font())
            return
        draw.rectangle((x, y + 3, x + SWATCH, y + 3 + SWATCH), fill=legend.colors[index], outline=TEXT)
        draw.text((x + SWATCH + 4, y), legend.names[index], TEXT, font=_font())
        x += entry


def _entry_width(name: str) -> int:
    return SWATCH + 4 + _text_width(name) + GAP


def _text_width(text: str) -> int:
    return int(np.ceil(_font().getlength(text)))


@cache
def _font() -> ImageFont.FreeTypeFont:
    """matplotlib's own font, which has most scripts' letters; Pillow's has Latin ones alone."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), FONT_SIZE)
