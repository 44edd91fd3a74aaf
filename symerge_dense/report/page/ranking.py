"""Comparisons in the page: the ranking of the methods, and the table with every metric and the costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from symerge_dense.report.comparison_files import COSTS, blocks, columns, further_sets, preamble, transfers
from symerge_dense.report.figures.ranking import WORST
from symerge_dense.report.page.grids import Cell, Heading, grid, marked, number_cell, spaced, words
from symerge_dense.report.page.markup import Markup, minus, tag
from symerge_dense.report.page.plots import bar
from symerge_dense.report.records import Found
from symerge_dense.report.results import unit_of
from symerge_dense.report.table import UNDEFINED

Row = Mapping[str, Any]
OURS = "symerge"
UNITS = {"extra_parameters": "M"}  # the other costs' titles have theirs, or need none


def comparison_part(comparisons: Sequence[tuple[str, Found]]) -> list[Markup]:
    """Every comparison: its ranking and its table.

    Args:
        comparisons: (title, comparison).
    """
    return [_one(title if len(comparisons) > 1 else "", found.content) for title, found in comparisons]


def _one(title: str, record: Mapping[str, Any]) -> Markup:
    rows = [(kind, row) for kind, members in blocks(record) for row in members]
    notes = [f"{row['method']}: {row['note']}" for _, row in rows if row.get("note")]
    notes += [f"{row['method']} failed: {row['error']}" for _, row in rows if "error" in row]
    return tag(
        "div",
        tag("h3", title) if title else None,
        tag("p", preamble(record).replace("`", ""), class_="quiet"),
        tag("div", _ranking(rows), class_="ranking"),
        _table(record, rows),
        _moved(record),
        tag("ul", (tag("li", note) for note in notes), class_="quiet notes") if notes else None,
    )


def _mean(row: Row) -> float | None:
    value = row.get("delta_m", {}).get("mean", {}).get("value")
    return None if value is None else float(value)


def _ranking(rows: Sequence[tuple[str, Row]]) -> Markup:
    known = sorted(
        ((_mean(row) or 0.0, kind, row) for kind, row in rows if _mean(row) is not None), key=lambda r: -r[0]
    )
    low = max(WORST, min([0.0, *(value for value, *_ in known)])) * 1.02
    high = max(0.0, *(value for value, *_ in known)) if known else 0.0
    high = high * 1.02 if high > 0 else -low * 0.02 or 1.0
    kinds = list(dict.fromkeys(kind for kind, _ in rows))
    lines = []
    for value, kind, row in known:
        std = row["delta_m"]["mean"].get("std")
        style = "ours" if row["method"] == OURS else f"k{kinds.index(kind) % 5}"
        drawn = bar(value, low, high, std, style)
        lines.append([words(row["method"]), Cell(drawn, value), number_cell(value, 2, "+", std), words(kind)])
    heads = [Heading("method", number=False), Heading("ranking", better="up"), Heading("Δm", unit="%", better="up")]
    return grid("Δm against the experts; further right is better.", [*heads, Heading("kind", number=False)], lines)


def _table(record: Mapping[str, Any], rows: Sequence[tuple[str, Row]]) -> Markup:
    also = further_sets(record)
    heads = [Heading("method", number=False), Heading("Δm", unit="%", better="up")]
    heads += [Heading(f"Δm {name}", unit="%", better="up") for name in also]
    shown: list[dict[str, Cell]] = []
    measured = [row for _, row in rows if "tasks" in row]
    for task, metric, up in columns(record):
        heads.append(Heading(spaced(metric), task, unit_of(record, task, metric), "up" if up else "down"))
        entries = {row["method"]: row["tasks"][task][metric] for row in measured}
        shown.append(marked(entries, [row["method"] for row in measured if row.get("delta_m")], up))
    heads += [Heading(title, "costs", UNITS.get(key, ""), number=key != "data") for key, title in COSTS.items()]
    heads.append(Heading("kind", number=False))
    lines: tuple[list[list[Cell]], list[list[Cell]]] = ([], [])
    for kind, row in rows:
        further = [_change({**row, **(row.get("also") or {}).get(name, {})}) for name in also]
        first = [words(row["method"]), _change(row), *further]
        metrics = [column.get(row["method"], Cell(UNDEFINED)) for column in shown]
        is_reference = "error" not in row and not row["delta_m"]
        lines[is_reference].append([*first, *metrics, *(_cost(key, row.get(key)) for key in COSTS), words(kind)])
    return grid("Every metric and cost; the experts stay on top.", heads, *lines)


def _change(row: Row) -> Cell:
    if "error" in row:
        return Cell("failed")
    return number_cell(_mean(row), 2, "+", row["delta_m"].get("mean", {}).get("std"))


def _cost(key: str, value: Any) -> Cell:
    if value is None or isinstance(value, str):
        return words(value or UNDEFINED)
    if key == "extra_parameters":
        return number_cell(value / 1e6, 2)._replace(value=float(value))
    return number_cell(float(value), 1 if "seconds" in key else 0)


def _moved(record: Mapping[str, Any]) -> Markup | None:
    heading, *lines = transfers(record)
    if not lines:
        return None
    heads = [Heading(heading[0], number=False), *(Heading(title, unit="%", better="up") for title in heading[1:])]
    cells = [[words(line[0]), *(Cell(minus(text), _number(text)) for text in line[1:])] for line in lines]
    return grid("Adapted layers on other encoders.", heads, cells)


def _number(text: str) -> float | None:
    try:
        return float(text.split(" ")[0])
    except ValueError:
        return None
