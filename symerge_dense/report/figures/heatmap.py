"""The merging coefficients as a map of layers x tasks: how much each layer takes from each expert."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from symerge_dense.report.figures.style import INK, MUTED, new_figure, save

LINES = 40
"""Layers per column of the picture. More continue in the next column, so that every label stays readable."""

LINE_HEIGHT, CELL_WIDTH, LETTER_WIDTH = 0.19, 0.62, 0.075  # inches


def draw_heatmap(path: str | Path, coefficients: Mapping[str, Sequence[float]], tasks: Sequence[str]) -> None:
    """Draw the coefficients of every layer (group of tensors) and task as a PNG.

    Colours go from 0 to 1. A value outside has the colour of the nearer end; its number is printed in its cell. A long
    list continues in a column to the right.

    Args:
        path: the file.
        coefficients: name of a group -> its T values, in depth order, the first at the top.
        tasks: names of the T tasks.

    Raises:
        ValueError: there are no groups, or a group does not have one value per task.
    """
    values = _matrix(coefficients, tasks)
    labels = layer_labels(list(coefficients))
    parts = math.ceil(len(labels) / LINES)
    lines = math.ceil(len(labels) / parts)
    letters = max(map(len, labels))
    width = parts * (CELL_WIDTH * len(tasks) + LETTER_WIDTH * letters + 0.25) + 0.9
    slant: dict[str, Any] = {"rotation": 35, "ha": "left"} if _crowded(tasks) else {}
    figure = new_figure(max(width, 4.0), LINE_HEIGHT * lines + 0.9)
    axes = figure.subplots(1, parts, squeeze=False)[0]
    for part, place in enumerate(axes):
        shown = slice(part * lines, (part + 1) * lines)
        image = _draw_part(place, values[shown], labels[shown], lines)
        place.set_xticks(range(len(tasks)), tasks, fontsize=8, color=INK, rotation_mode="anchor", **slant)
    bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02, aspect=30, extend=_extend(values))
    bar.set_label("merging coefficient", fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=8, colors=INK)
    bar.outline.set_visible(False)
    save(figure, path)


def layer_labels(names: Sequence[str]) -> list[str]:
    """Names without the leading dotted parts that all share, and without a common last part such as ``weight``.

    The part before a number stays: ``blocks.0``, not ``0``.

    Args:
        names: of the groups.
    """
    parts = [name.split(".") for name in names]
    if len(set(names)) < 2:
        return list(names)
    while all(len(part) > 1 and not part[1].isdigit() for part in parts) and len({part[0] for part in parts}) == 1:
        parts = [part[1:] for part in parts]
    while all(len(part) > 1 for part in parts) and len({part[-1] for part in parts}) == 1:
        parts = [part[:-1] for part in parts]
    return [".".join(part) for part in parts]


def _draw_part(place: Axes, values: np.ndarray, labels: Sequence[str], lines: int) -> AxesImage:
    """One column of the picture: its layers from the top, room for ``lines`` of them."""
    image = place.imshow(values, cmap="viridis", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    place.set_ylim(lines - 0.5, -0.5)
    place.set_yticks(range(len(labels)), labels, fontsize=7.5, color=INK)
    place.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    place.set_xticks(np.arange(values.shape[1] - 1) + 0.5, minor=True)
    place.set_yticks(np.arange(len(values)) - 0.5, minor=True)
    place.grid(which="minor", color="white", linewidth=1)
    place.tick_params(which="minor", length=0)
    for side in place.spines.values():
        side.set_visible(False)
    for line, column in np.ndindex(*values.shape):
        value = values[line, column]
        shade = MUTED if np.isnan(value) else "white" if value < 0.6 else INK
        place.text(column, line, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color=shade)
    return image


def _matrix(coefficients: Mapping[str, Sequence[float]], tasks: Sequence[str]) -> np.ndarray:
    """Coefficients (layers, T) as numbers; null in a results file is NaN here."""
    if not coefficients:
        raise ValueError("no coefficients to draw; give {group: [one number per task]}.")
    wrong = [name for name, values in coefficients.items() if len(values) != len(tasks)]
    if wrong:
        count = len(coefficients[wrong[0]])
        raise ValueError(f"{wrong[0]!r} has {count} coefficients; one for each of {list(tasks)} is needed.")
    return np.array(list(coefficients.values()), dtype=float)


def _crowded(tasks: Sequence[str]) -> bool:
    return any(len(task) * LETTER_WIDTH > CELL_WIDTH for task in tasks)


def _extend(values: np.ndarray) -> str:
    """Ends of the colour bar that get an arrow because values lie beyond them."""
    below, above = bool(np.nanmin(values) < 0), bool(np.nanmax(values) > 1)
    return {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[below, above]
