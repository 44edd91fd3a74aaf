"""Learning curves of an adaptation: loss and mean merging coefficient of every task, by iteration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from symerge_dense.report.figures.style import INK, MUTED, colours, new_figure, save

LOSS, COEFFICIENT = "loss_", "coefficient_mean_"
WINDOW = 0.05
"""Share of a curve's points over which its smoothed line averages."""


def draw_curves(path: str | Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Draw losses (left, raw and smoothed) and mean coefficients (right) of a run as a PNG.

    Args:
        path: the file.
        history: one dict per logged step: ``iteration`` and, if the step has them, ``loss_<task>`` and
            ``coefficient_mean_<task>``. None and NaN are left out.

    Raises:
        ValueError: the history has no such number, or an entry has no ``iteration``.
    """
    lost = [number for number, entry in enumerate(history) if "iteration" not in entry]
    if lost:
        raise ValueError(f"history[{lost[0]}] has no 'iteration'; every entry needs one.")
    colour = colours(_tasks(history))
    figure = new_figure(10.0, 3.8)
    left, right = figure.subplots(1, 2)
    for task in colour:
        _draw_loss(left, *series(history, LOSS + task), colour[task], task)
        steps, values = series(history, COEFFICIENT + task)
        right.plot(steps, values, color=colour[task], linewidth=1.8, label=task, marker=_marker(steps))
    _dress(left, "loss")
    _dress(right, "mean coefficient")
    left.set_ylim(bottom=min(0.0, left.get_ylim()[0]))
    right.set_ylim(-0.02, max(1.02, right.get_ylim()[1]))
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=6, frameon=False, fontsize=9)
    save(figure, path)


def series(history: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Iterations and values of one key of a history, without missing, NaN and infinite ones.

    Args:
        history: as for ``draw_curves``.
        key: for example ``loss_depth``.

    Returns:
        Two arrays of equal length.
    """
    points = [(entry["iteration"], entry[key]) for entry in history if entry.get(key) is not None]
    table = np.array(points, dtype=float).reshape(-1, 2)
    table = table[np.isfinite(table[:, 1])]
    return table[:, 0], table[:, 1]


def smoothed(values: np.ndarray) -> np.ndarray:
    """Centred moving average over 5 % of the points, at least 3; over fewer near the ends.

    Args:
        values: of a curve.
    """
    half = max(1, round(len(values) * WINDOW / 2))
    total = np.concatenate([[0.0], np.cumsum(values)])
    centre = np.arange(len(values))
    first, behind = np.maximum(centre - half, 0), np.minimum(centre + half + 1, len(values))
    return np.asarray((total[behind] - total[first]) / (behind - first))


def _tasks(history: Sequence[Mapping[str, Any]]) -> list[str]:
    """Tasks in the order in which the history first names them."""
    keys = [key for entry in history for key in entry if key.startswith((LOSS, COEFFICIENT))]
    if not keys:
        raise ValueError(f"the history has neither losses nor coefficients; write {LOSS}<task> or {COEFFICIENT}<task>.")
    return list(dict.fromkeys(key.removeprefix(LOSS).removeprefix(COEFFICIENT) for key in keys))


def _draw_loss(place: Axes, steps: np.ndarray, values: np.ndarray, colour: str, task: str) -> None:
    place.plot(steps, values, color=colour, linewidth=0.8, alpha=0.25)
    place.plot(steps, smoothed(values), color=colour, linewidth=1.8, label=task, marker=_marker(steps))


def _marker(steps: np.ndarray) -> str:
    """A single point has no line; show it as a dot."""
    return "o" if len(steps) == 1 else ""


def _dress(place: Axes, title: str) -> None:
    place.set_title(title, fontsize=11, color=INK, loc="left")
    place.set_xlabel("iteration", fontsize=9, color=INK)
    place.tick_params(labelsize=8, colors=INK, length=3)
    place.grid(color=MUTED, alpha=0.25, linewidth=0.6)
    place.set_axisbelow(True)
    place.spines[["top", "right"]].set_visible(False)
    place.spines[["left", "bottom"]].set_color(MUTED)
