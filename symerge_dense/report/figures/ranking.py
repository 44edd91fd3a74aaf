"""A comparison as a picture: a bar per method, as long as its Delta_m."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from symerge_dense.report.figures.style import ACCENT, COLOURS, INK, MUTED, new_figure, save

LINE = 0.23  # inches per method
WORST = -150.0  # percent: longer bars are cut here, or the others could not be told apart; their number is printed
SHADES = (MUTED, COLOURS[0], COLOURS[2], COLOURS[3], COLOURS[4])


def draw_ranking(path: str | Path, record: Mapping[str, Any], highlight: str = "symerge") -> None:
    """Draw the methods of a comparison by Delta_m as a PNG: best on top, standard deviations as whiskers.

    Each block has a colour. Rows without a Delta_m (failures, the experts) are left out.

    Args:
        path: the file.
        record: contents of compare.json.
        highlight: method with a colour of its own.
    """
    rows = sorted((row for row in record["rows"] if _mean(row) is not None), key=lambda row: _mean(row) or 0.0)
    figure = new_figure(8.5, max(2.6, LINE * len(rows) + 1.2))
    place = figure.add_subplot()
    shades = {**dict(zip(record["blocks"], SHADES, strict=False)), highlight: ACCENT}
    for line, row in enumerate(rows):
        _draw_bar(place, line, row, shades.get(row["method"], shades[row["block"]]))
    place.set_yticks(range(len(rows)), [row["method"] for row in rows], fontsize=8, color=INK)
    for label, row in zip(place.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if row["method"] == highlight else "normal")
    _frame(place, [_mean(row) or 0.0 for row in rows])
    present = [block for block in record["blocks"] if any(row["block"] == block for row in rows)]
    for block in present:
        place.barh(0, 0, color=shades[block], label=record["blocks"][block])
    if rows:
        place.legend(
            fontsize=7.5,
            loc="upper center",
            bbox_to_anchor=(0.45, -0.55 / max(1.4, LINE * len(rows))),
            ncols=2,
            frameon=False,
            labelcolor=INK,
        )
    save(figure, path)


def _draw_bar(place: Axes, line: int, row: Mapping[str, Any], shade: str) -> None:
    """One method: its bar, its standard deviation, and its number beyond the end of both."""
    value = _mean(row) or 0.0
    spread = row["delta_m"]["mean"].get("std")
    end, cut = max(value, WORST), value < WORST
    place.barh(line, end, 0.72, color=shade)
    if spread is not None and not cut:
        place.errorbar(end, line, xerr=spread, ecolor=INK, elinewidth=1, capsize=2, fmt="none")
    if cut:
        place.plot(WORST, line, marker="<", color=shade, markersize=8, clip_on=False)
    text = f"{value:+.1f}" + (f" ± {spread:.1f}" if spread is not None else "")
    side = -1 if value < 0 else 1
    place.annotate(
        text,
        (end + side * (0.0 if cut else spread or 0.0), line),
        (side * (8 if cut else 4), 0),
        textcoords="offset points",
        va="center",
        ha="right" if side < 0 else "left",
        fontsize=7,
        color=INK,
    )


def _frame(place: Axes, values: Sequence[float]) -> None:
    lowest, highest = max(WORST, min([*values, 0.0])), max([*values, 0.0])
    if lowest == highest:
        lowest = -1.0
    room = 0.14 * (highest - lowest)  # for the numbers
    place.set_xlim(lowest - room * (lowest < 0), highest + room * (highest > 0))
    place.axvline(0, color=INK, linewidth=0.8)
    place.set_xlabel("Δm in percent against the experts: further right is better", fontsize=8, color=INK)
    place.tick_params(axis="x", labelsize=8, colors=INK)
    place.tick_params(axis="y", length=0)
    place.margins(y=0.01)
    place.grid(axis="x", color="#e3e6ea", linewidth=0.7)
    place.set_axisbelow(True)
    place.spines[["top", "right", "left"]].set_visible(False)


def _mean(row: Mapping[str, Any]) -> float | None:
    value: float | None = row.get("delta_m", {}).get("mean", {}).get("value")
    return value
