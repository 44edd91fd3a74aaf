"""The table of a run: one row per model, one column per metric, the best merged model of each column in bold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from rich.box import MINIMAL
from rich.console import Console
from rich.table import Table
from rich.text import Text

from symerge_dense.report.results import MERGED_ROWS, ROWS, check_results

UNDEFINED = "–"


class Column(NamedTuple):
    """One column: its heading in two parts, its direction and one value per row (None: undefined)."""

    task: str
    metric: str
    higher_is_better: bool
    values: dict[str, float | None]

    @property
    def heading(self) -> str:
        """The metric and which way is better."""
        return f"{self.metric} {'↑' if self.higher_is_better else '↓'}"

    @property
    def best(self) -> set[str]:
        """The merged rows that hold the best value, judged as it is printed: ties share."""
        sign = 1 if self.higher_is_better else -1
        scores = {row: sign * float(self.text(row)) for row in MERGED_ROWS if self.values[row] is not None}
        return {row for row, score in scores.items() if score == max(scores.values())}

    def text(self, row: str) -> str:
        """The value of ``row``, with as many decimals as the largest of the column leaves for four or five digits."""
        value = self.values[row]
        if value is None:
            return UNDEFINED
        largest = max(abs(number) for number in self.values.values() if number is not None)
        decimals = 4 if largest < 1 else 3 if largest < 10 else 2
        return f"{value:.{decimals}f}"


class DeltaColumn(Column):
    """Delta_m in percent: signed, two decimals, no value for the experts it is measured against."""

    def text(self, row: str) -> str:
        """The value of ``row`` with its sign."""
        value = self.values[row]
        return UNDEFINED if value is None else f"{value:+.2f}"


def task_names(results: Mapping[str, Any]) -> list[str]:
    """The tasks of a run, in the order of its table."""
    return list(results["experts"]["tasks"])


def columns(results: Mapping[str, Any], tasks: Sequence[str] | None = None) -> list[Column]:
    """Columns of the table: every metric of ``tasks`` (None: of all), then the mean Delta_m.

    Raises ValueError where ``results`` lack a required key.
    """
    check_results(results)
    found = []
    for task in task_names(results) if tasks is None else tasks:
        for metric, entry in results["experts"]["tasks"][task].items():
            values = {row: _number(results[row]["tasks"][task][metric]["value"]) for row in ROWS}
            found.append(Column(task, metric, entry["higher_is_better"], values))
    means = {row: _number(results["delta_m"][row]["mean"]) for row in MERGED_ROWS}
    return [*found, DeltaColumn("mean", "Δm %", True, {"experts": None, **means})]


def row_title(results: Mapping[str, Any], row: str) -> str:
    """The row's name; task arithmetic's tells the coefficient it was given, where the results say it."""
    scale = results[row].get("scale")
    return ROWS[row] if scale is None else f"{ROWS[row]} λ={scale:.3g}"


def results_table(results: Mapping[str, Any], tasks: Sequence[str] | None = None) -> Table:
    """The table for a terminal: metrics grouped by task, bold marking the best merged model of each column.

    ``tasks`` picks the tasks to show (None: all). Raises ValueError where ``results`` lack a required key.
    """
    return _table(results, columns(results, tasks))


def print_results(results: Mapping[str, Any], console: Console) -> None:
    """Print the table, in several parts where the console is too narrow for one; each part has Delta_m at its end."""
    *metrics, delta = columns(results)
    part: list[Column] = []
    for group in _groups(metrics):
        whole = _fits(_table(results, [*group, delta]), console)
        for piece in [group] if whole else [[column] for column in group]:
            if part and not _fits(_table(results, [*part, *piece, delta]), console):
                console.print(_table(results, [*part, delta]))
                part = []
            part += piece
    console.print(_table(results, [*part, delta]))


def markdown_table(results: Mapping[str, Any]) -> str:
    """The table in Markdown, one line per row, the best merged model of each column in bold.

    Raises ValueError where ``results`` lack a required key.
    """
    shown = columns(results)
    headings = ["", *(f"{column.task} {column.heading}" for column in shown)]
    lines = [_line(headings), _line(["---", *("---:" for _ in shown)])]
    for row in ROWS:
        cells = [f"**{column.text(row)}**" if row in column.best else column.text(row) for column in shown]
        lines.append(_line([row_title(results, row), *cells]))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _number(value: float | None) -> float | None:
    """A run's own record still has NaN where the file has null."""
    return value if value is not None and math.isfinite(value) else None


def _groups(shown: Sequence[Column]) -> list[list[Column]]:
    """Neighbours of one task together."""
    return [list(group) for _, group in groupby(shown, key=lambda column: column.task)]


def _table(results: Mapping[str, Any], shown: Sequence[Column]) -> Table:
    """One terminal column per task: its metrics stand in it side by side, padded to line up."""
    table = Table(box=MINIMAL, pad_edge=False)
    table.add_column("", no_wrap=True)
    groups = _groups(shown)
    for group in groups:
        heading = "  ".join(column.heading.rjust(_width(column)) for column in group)
        table.add_column(Text(f"{group[0].task}\n{heading}"), justify="right", no_wrap=True)
    for row in ROWS:
        style = "dim" if row == "experts" else ""
        table.add_row(Text(row_title(results, row), style=style), *(_cell(group, row, style) for group in groups))
    return table


def _cell(group: Sequence[Column], row: str, style: str) -> Text:
    numbers = [(column.text(row).rjust(_width(column)), column) for column in group]
    parts = [Text(number, style="bold green" if row in column.best else style) for number, column in numbers]
    return Text("  ").join(parts)


def _width(column: Column) -> int:
    return max(len(column.heading), *(len(column.text(row)) for row in ROWS))


def _fits(table: Table, console: Console) -> bool:
    return table.__rich_measure__(console, console.options.update(max_width=10_000)).maximum <= console.width
