"""Tables that a reader can sort: by click, or by the keyboard, for every heading is a button."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple, TypeVar

from symerge_dense.report.page.markup import Markup, joined, minus, tag
from symerge_dense.report.table import UNDEFINED, decimals, finite

LONG = 44  # characters of a text that is broken into lines
Key = TypeVar("Key", bound=Hashable)


class Heading(NamedTuple):
    """The heading of a column.

    Args:
        text: what is in it.
        over: heading above it, which neighbours share.
        unit: of its numbers.
        better: 'up' or 'down', the direction of better numbers; empty where there is none.
        number: whether it holds numbers, which are sorted as such and stand at the right.
    """

    text: str
    over: str = ""
    unit: str = ""
    better: str = ""
    number: bool = True


class Cell(NamedTuple):
    """A cell of a table.

    Args:
        shown: text, a number as text, or markup.
        value: what the cell is sorted by; None sorts a number last.
        std: standard deviation as text, printed smaller.
        best: whether it is the best of its column.
    """

    shown: Any
    value: float | str | None = None
    std: str = ""
    best: bool = False


def grid(
    caption: Any, heads: Sequence[Heading], rows: Sequence[Sequence[Cell]], reference: Sequence[Sequence[Cell]] = ()
) -> Markup:
    """A table in a box that scrolls where it is too wide.

    Args:
        caption: above it.
        heads: one per column.
        rows: cells, one per column; the first names the row.
        reference: rows that stay on top, whatever the others are sorted by.
    """
    over = any(head.over for head in heads)
    lines = [_over(heads)] if over else []
    body = [tag("tbody", map(_row, reference), class_="reference")] if reference else []
    inner = [tag("thead", lines, tag("tr", map(_head, heads))), body, tag("tbody", map(_row, rows), class_="sorted")]
    name = f"t{hashlib.sha256(joined([caption, inner]).encode()).hexdigest()[:12]}"
    table = tag("table", inner, aria_labelledby=name)
    box = tag("div", table, class_="scroll", tabindex="0", role="region", aria_labelledby=name)
    return tag("div", tag("p", caption, id=name, class_="caption"), box, class_="grid")


def _over(heads: Sequence[Heading]) -> Markup:
    groups = [(title, len(list(members))) for title, members in groupby(heads, key=lambda head: head.over)]
    return tag(
        "tr",
        (
            tag("th", title, colspan=count, scope="colgroup", class_="over") if title else tag("td", colspan=count)
            for title, count in groups
        ),
    )


def _head(head: Heading) -> Markup:
    arrow = {"up": "↑", "down": "↓"}.get(head.better)
    said = {"up": "higher is better", "down": "lower is better"}.get(head.better)
    button = tag(
        "button",
        head.text,
        tag("span", f"\N{NO-BREAK SPACE}{head.unit}", class_="unit") if head.unit else None,
        tag("span", f"\N{NO-BREAK SPACE}{arrow}", class_="arrow", title=said) if arrow else None,
        type="button",
    )
    order = "down" if head.better == "up" else "up"
    return tag("th", button, scope="col", class_="number" if head.number else None, data_first=order, aria_sort="none")


def _row(cells: Sequence[Cell]) -> Markup:
    first, *others = cells
    return tag("tr", _cell(first, "th"), (_cell(cell, "td") for cell in others))


def _cell(cell: Cell, kind: str) -> Markup:
    number = cell.value is None or not isinstance(cell.value, str)
    shown = tag("strong", cell.shown) if cell.best else cell.shown
    return tag(
        kind,
        shown,
        tag("span", f"\N{NO-BREAK SPACE}±{cell.std}", class_="std") if cell.std else None,
        scope="row" if kind == "th" else None,
        class_="number" if number and kind == "td" else "long" if len(str(cell.value)) > LONG else None,
        data_v=cell.value,
    )


def words(text: Any) -> Cell:
    """A cell of text.

    Args:
        text: what it says.
    """
    return Cell(text, str(text))


def number_cell(value: float | None, places: int, sign: str = "", std: float | None = None, best: bool = False) -> Cell:
    """A cell of a number; a dash where it is undefined.

    Args:
        value: the number; None or NaN is undefined.
        places: decimals.
        sign: '+' prints the sign of positive numbers.
        std: standard deviation over runs.
        best: whether it is the best of its column.
    """
    if value is None or not math.isfinite(value):
        return Cell(UNDEFINED)
    spread = "" if not std or not math.isfinite(std) else f"{std:.{places}f}"
    return Cell(minus(f"{value:{sign}.{places}f}"), value, spread, best)


def marked(
    entries: Mapping[Key, Mapping[str, Any]],
    compared: Collection[Key],
    up: bool,
    places: int | None = None,
    sign: str = "",
) -> dict[Key, Cell]:
    """Cells of a metric; those with the best printed number are marked.

    Args:
        entries: {row: its ``value`` (None or NaN: undefined) and, with several runs, ``std``}.
        compared: the rows that may be marked.
        up: whether higher is better.
        places: decimals; None for as many as ``decimals`` gives the column.
        sign: '+' prints the sign of positive numbers.
    """
    values = {key: finite(entry["value"]) for key, entry in entries.items()}
    if places is None:
        places = decimals(values.values())
    cells = {key: number_cell(values[key], places, sign, entry.get("std")) for key, entry in entries.items()}
    scores = {
        key: round(value, places) * (1 if up else -1)
        for key, value in values.items()
        if key in compared and value is not None
    }
    best = max(scores.values(), default=0.0)
    return {key: cell._replace(best=scores.get(key) == best) for key, cell in cells.items()}


def spaced(name: str) -> str:
    """A name of code as words, which can be broken into lines: 'pixel_accuracy' as 'pixel accuracy'.

    Args:
        name: of a metric or stage.
    """
    return name.replace("_", " ")
