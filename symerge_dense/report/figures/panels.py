"""Predictions side by side: the labels, the experts and the merged models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from symerge_dense.report.figures.style import ACCENT, INK, new_figure, save

CELL, GAP, BLOCK_GAP, MARGIN, HEADING, LABEL = 2.1, 0.05, 0.16, 0.06, 0.3, 0.26
"""Inches: a picture's width, between pictures, between images, around all, for the titles, for the tasks' names."""


def draw_panels(path: str | Path, rows: Sequence[Mapping[str, Any]], highlight: str = "merged") -> None:
    """Draw a labelled PNG: a block of lines per image, a line per task, a column per model.

    The image is at the left of its block.

    Args:
        path: the file.
        rows: one ``{'image': picture, task: {title: picture, ...}, ...}`` per image. Pictures are uint8 (H,W,3) RGB of
            any size. The titles, for example truth | expert | task arithmetic | merged, become the columns; they must
            be the same, in the same order, for all tasks.
        highlight: title of the column that is framed.

    Raises:
        ValueError: there are no rows, a picture has another type or shape, or titles differ.
    """
    titles = _titles(rows)
    heights = [CELL * row["image"].shape[0] / row["image"].shape[1] for row in rows]
    blocks = [(len(row) - 1) * (height + GAP) + BLOCK_GAP for row, height in zip(rows, heights, strict=True)]
    width = (CELL + GAP) * (len(titles) + 1) + LABEL + 2 * MARGIN
    figure = new_figure(width, sum(blocks) + HEADING + MARGIN, layout=None)
    top = HEADING
    for row, height, block in zip(rows, heights, blocks, strict=True):
        _draw_block(figure, row, titles, top, height, highlight)
        top += block
    for column, title in enumerate(("image", *titles)):
        style: dict[str, Any] = {"color": ACCENT, "fontweight": "bold"} if title == highlight else {"color": INK}
        x, y = (_left(column) + CELL / 2) / width, 1 - (HEADING - 0.08) / figure.get_figheight()
        figure.text(x, y, title, ha="center", va="bottom", fontsize=11, **style)
    save(figure, path)


def _left(column: int) -> float:
    """Inches from the left edge to a column's pictures. The tasks' names are between the image and the rest."""
    return MARGIN + column * (CELL + GAP) + (LABEL if column else 0.0)


def _draw_block(
    figure: Figure, row: Mapping[str, Any], titles: Sequence[str], top: float, height: float, highlight: str
) -> None:
    """One image at the left and a line per task at its right; ``top`` and ``height`` of a line are in inches."""

    def place(line: int, column: int) -> Axes:
        x, y = _left(column), figure.get_figheight() - top - line * (height + GAP) - height
        return figure.add_axes(
            (
                x / figure.get_figwidth(),
                y / figure.get_figheight(),
                CELL / figure.get_figwidth(),
                height / figure.get_figheight(),
            )
        )

    _show(place(0, 0), row["image"], INK)
    for line, task in enumerate(task for task in row if task != "image"):
        for column, title in enumerate(titles, start=1):
            axes = place(line, column)
            _show(axes, row[task][title], ACCENT if title == highlight else INK)
            if column == 1:
                axes.set_ylabel(task, fontsize=10, color=INK)


def _show(place: Axes, picture: np.ndarray, frame: str) -> None:
    """One picture in a thin frame."""
    place.set_xticks([])
    place.set_yticks([])
    place.spines[:].set(color=frame, linewidth=2.0 if frame == ACCENT else 0.5)
    place.imshow(picture, interpolation="nearest" if picture.shape[1] < 300 else "antialiased")


def _titles(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The titles, which must be the same for all rows and tasks. Every picture is checked, too."""
    if not rows:
        raise ValueError("no rows to draw; give at least one {'image': picture, task: {title: picture}}.")
    titles: list[str] = []
    for number, row in enumerate(rows):
        _check_picture(row.get("image"), f"rows[{number}]['image']")
        if len(row) < 2:
            raise ValueError(f"rows[{number}] names no task; add task: {{title: picture}} beside 'image'.")
        for task, pictures in row.items():
            if task == "image":
                continue
            titles = titles or list(pictures)
            if list(pictures) != titles:
                raise ValueError(f"rows[{number}][{task!r}] has titles {list(pictures)}; every task needs {titles}.")
            for title, picture in pictures.items():
                _check_picture(picture, f"rows[{number}][{task!r}][{title!r}]")
    return titles


def _check_picture(picture: Any, name: str) -> None:
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        told = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
        raise ValueError(f"{name} is {told}; a uint8 array (H,W,3) is needed: use the task's colorize().")
