"""A page of images beside pictures of their labels, a line per image, a block per split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from symerge_dense.report.figures.style import INK, MUTED, new_figure, save
from symerge_dense.tasks.base import DenseTask

Array = NDArray[Any]


class SheetRow(NamedTuple):
    """One image of a sheet.

    Args:
        label: written beside it: its number, or its name.
        pictures: uint8 (H,W,3) by title; None: it cannot be drawn.
    """

    label: str
    pictures: Mapping[str, Array | None]


Blocks = Mapping[str, Sequence[SheetRow]]
LegendEntry = tuple[str, tuple[float, float, float]]
CELL, GAP, MARGIN, NUMBER, BLOCK_GAP = 1.55, 0.04, 0.12, 0.3, 0.1
"""Inches: a picture's width, between pictures, around all, for a line's label, between the splits."""
HEADING, LEGEND_LINE, PATCH, LETTER = 0.46, 0.21, 0.34, 0.068
"""Inches: for the titles, a line of the legend, its colour with the space around it, a letter of it."""
SMALLEST = 0.5  # ratio of a picture's sides: a file of an odd shape must not spoil the page


def class_legend(task: DenseTask, classes: Iterable[int]) -> list[LegendEntry]:
    """Names and colours (0..1) of some classes, in rising order; empty where the task's values are no classes.

    Args:
        task: gives the names and colours.
        classes: their numbers; others, such as that of no label, are left out.
    """
    legend = task.legend()
    shown = sorted({number for number in classes if 0 <= number < len(legend.names)}) if task.class_map else []
    colours = [legend.colors[number] for number in shown]
    return [
        (legend.names[number], (red / 255, green / 255, blue / 255))
        for number, (red, green, blue) in zip(shown, colours, strict=True)
    ]


def draw_sheet(path: str | Path, blocks: Blocks, titles: Sequence[str], legend: Sequence[LegendEntry] = ()) -> None:
    """Draw a page to a PNG: the blocks side by side, a line per image, a column per title, the legend below.

    Args:
        path: PNG file, written whole or not at all.
        blocks: rows by heading. A title that no row of a block has takes no column there.
        titles: in the order of the columns.
        legend: names and colours (0..1).
    """
    columns = {
        name: [title for title in titles if any(title in row.pictures for row in rows)] for name, rows in blocks.items()
    }
    left, lefts, number = MARGIN, dict[str, float](), _label_width(blocks)
    for name in blocks:
        lefts[name] = left
        left += number + len(columns[name]) * (CELL + GAP) + BLOCK_GAP
    width = left - BLOCK_GAP + MARGIN
    height = CELL * _proportion([row for rows in blocks.values() for row in rows])
    lines = _legend_lines(legend, width)
    rows = max(map(len, blocks.values()))
    page = HEADING + rows * (height + GAP) + len(lines) * LEGEND_LINE + (0.1 if lines else 0) + MARGIN
    figure = new_figure(width, page, layout=None)
    for name, block in blocks.items():
        _draw_block(figure, name, block, columns[name], lefts[name] + number, height)
    _draw_legend(figure, lines, HEADING + rows * (height + GAP) + 0.1 + LEGEND_LINE / 2)
    save(figure, path)


def _label_width(blocks: Blocks) -> float:
    return max(NUMBER, 0.12 + LETTER * max(len(row.label) for rows in blocks.values() for row in rows))


def _proportion(rows: Sequence[SheetRow]) -> float:
    """Height over width of the first picture that could be read."""
    shapes = [picture.shape for row in rows for picture in row.pictures.values() if picture is not None]
    return min(max(shapes[0][0] / shapes[0][1], SMALLEST), 1 / SMALLEST) if shapes else 0.75


def _draw_block(
    figure: Figure,
    name: str,
    rows: Sequence[SheetRow],
    titles: Sequence[str],
    left: float,
    height: float,
) -> None:
    """The lines of one split, its pictures from ``left`` inches on, with their labels to the left of them."""
    _write(figure, left, 0.12, name, fontsize=10, fontweight="bold", ha="left", color=INK)
    for column, title in enumerate(titles):
        x = left + column * (CELL + GAP) + CELL / 2
        _write(figure, x, HEADING - 0.12, title, fontsize=8, ha="center", color=MUTED)
    for place, row in enumerate(rows):
        top = HEADING + place * (height + GAP)
        _write(figure, left - 0.07, top + height / 2, row.label, fontsize=8, ha="right", color=INK)
        for column, title in enumerate(titles):
            if title in row.pictures:
                _show(figure, row.pictures[title], left + column * (CELL + GAP), top, height)


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


def _legend_lines(legend: Sequence[LegendEntry], width: float) -> list[list[tuple[LegendEntry, float]]]:
    """Lines of (entry, inches from the left)."""
    lines: list[list[tuple[LegendEntry, float]]] = []
    x = width
    for entry in legend:
        need = PATCH + LETTER * len(entry[0])
        if x + need > width - MARGIN:
            lines.append([])
            x = MARGIN + NUMBER
        lines[-1].append((entry, x))
        x += need
    return lines


def _draw_legend(figure: Figure, lines: Sequence[Sequence[tuple[LegendEntry, float]]], top: float) -> None:
    wide, tall = figure.get_size_inches()
    for place, line in enumerate(lines):
        y = top + place * LEGEND_LINE
        for (name, colour), x in line:
            figure.add_artist(Rectangle((x / wide, 1 - (y + 0.055) / tall), 0.13 / wide, 0.11 / tall, color=colour))
            _write(figure, x + 0.18, y, name, fontsize=8, ha="left", color=INK)


def _write(figure: Figure, x: float, y: float, text: str, **style: Any) -> None:
    """Text centred on ``y``, at inches from the top left corner of the page."""
    wide, tall = figure.get_size_inches()
    figure.text(x / wide, 1 - y / tall, text, va="center", **style)
