"""Pictures of studies: intervals by row, curves over an option, and scatter plots."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes

from symerge_dense.report.figures.style import ACCENT, COLOURS, INK, MUTED, colours, new_figure, save
from symerge_dense.studies.frame.intervals import Interval

LINE = 0.3  # inches per row


def draw_intervals(path: Path, rows: Mapping[str, Interval], title: str, axis: str) -> None:
    """Draw a dot with its 95 % interval per row, the first on top.

    Args:
        path: PNG to write.
        rows: {label: interval}; one that is undefined has no dot.
        title: above the picture.
        axis: what the numbers are.
    """
    figure = new_figure(8.0, max(2.2, LINE * len(rows) + 1.2))
    place = figure.add_subplot()
    labels = list(rows)[::-1]
    for line, label in enumerate(labels):
        _dot(place, line, rows[label])
    place.set_yticks(range(len(labels)), labels, fontsize=8, color=INK)
    place.set_ylim(-0.6, len(labels) - 0.4)
    place.axvline(0, color=INK, linewidth=0.8)
    _dress(place, title, axis, "")
    place.grid(axis="y", visible=False)
    save(figure, path)


def _dot(place: Axes, line: int, interval: Interval) -> None:
    if not math.isfinite(interval.mean):
        return
    place.plot(interval.mean, line, "o", color=ACCENT, markersize=5)
    if math.isfinite(interval.high - interval.low):
        place.plot([interval.low, interval.high], [line, line], color=ACCENT, linewidth=1.6)
    text = f"{interval.mean:+.2f}"
    place.annotate(text, (interval.mean, line), (0, 5), textcoords="offset points", fontsize=7, color=INK, ha="center")


def draw_curves(
    path: Path, curves: Mapping[str, Mapping[float, Interval]], title: str, axes: tuple[str, str], log: bool = False
) -> None:
    """Draw a curve with a band of 95 % per name.

    Args:
        path: PNG to write.
        curves: {name: {position: interval}}.
        title: above the picture.
        axes: what the positions and the numbers are.
        log: whether positions stand on a logarithmic axis.
    """
    across, up = axes
    draw_panels(path, {up: curves}, title, across, log)


def draw_panels(
    path: Path,
    panels: Mapping[str, Mapping[str, Mapping[float, Interval]]],
    title: str,
    across: str,
    log: bool = False,
) -> None:
    """Draw curves over the same positions side by side, a panel for each number, one legend for all.

    Args:
        path: PNG to write.
        panels: {what the numbers are: curves as ``draw_curves`` takes them}.
        title: above the picture.
        across: what the positions are.
        log: whether positions stand on a logarithmic axis.
    """
    figure = new_figure(7.5 if len(panels) == 1 else 5.0 * len(panels), 4.2)
    places = figure.subplots(1, len(panels), squeeze=False)[0]
    for number, (place, (up, curves)) in enumerate(zip(places, panels.items(), strict=True)):
        _curves(place, curves)
        if log:
            place.set_xscale("log")
        place.axhline(0, color=INK, linewidth=0.8)
        _dress(place, title if number == 0 else "", across, up)
    places[0].legend(fontsize=8, frameon=False)
    save(figure, path)


def _curves(place: Axes, curves: Mapping[str, Mapping[float, Interval]]) -> None:
    shades = colours(list(curves))
    for name, points in curves.items():
        known = sorted((at, one) for at, one in points.items() if math.isfinite(one.mean))
        where, means = [at for at, _ in known], [one.mean for _, one in known]
        place.plot(where, means, "o-", color=shades[name], label=name, linewidth=1.8, markersize=4)
        banded = [(at, one) for at, one in known if math.isfinite(one.high - one.low)]
        low, high = [one.low for _, one in banded], [one.high for _, one in banded]
        place.fill_between([at for at, _ in banded], low, high, color=shades[name], alpha=0.15, linewidth=0)


def draw_scatter(
    path: Path, clouds: Mapping[str, Sequence[tuple[float, float]]], title: str, axes: tuple[str, str]
) -> None:
    """Draw points in a plane, a colour per cloud.

    Args:
        path: PNG to write.
        clouds: {name: points}.
        title: above the picture.
        axes: what the two numbers are.
    """
    figure = new_figure(6.5, 5.0)
    place = figure.add_subplot()
    for index, (name, points) in enumerate(clouds.items()):
        shade = COLOURS[index % len(COLOURS)]
        place.scatter([x for x, _ in points], [y for _, y in points], s=14, color=shade, alpha=0.6, label=name)
    _dress(place, title, *axes)
    place.legend(fontsize=8, frameon=False)
    save(figure, path)


def _dress(place: Axes, title: str, across: str, up: str) -> None:
    place.set_title(title, fontsize=10, color=INK, loc="left")
    place.set_xlabel(across, fontsize=8, color=INK)
    place.set_ylabel(up, fontsize=8, color=INK)
    place.tick_params(labelsize=8, colors=INK, length=3)
    place.grid(color=MUTED, alpha=0.25, linewidth=0.6)
    place.set_axisbelow(True)
    place.spines[["top", "right"]].set_visible(False)
