"""The table of a run for a terminal: a row per model, a column per metric, the best merged model of each bold."""

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
    """One column of the table.

    Args:
        task: first part of the heading.
        metric: second part of the heading.
        higher_is_better: False for errors.
        values: by row; None: undefined.
    """

    task: str
    metric: str
    higher_is_better: bool
    values: dict[str, float | None]

    @property
    def heading(self) -> str:
        """The metric, with an arrow for the better direction."""
        return f"{self.metric} {'↑' if self.higher_is_better else '↓'}"

    @property
    def best(self) -> set[str]:
        """The merged rows with the best printed value: several on a tie."""
        sign = 1 if self.higher_is_better else -1
        scores = {row: sign * float(self.text(row)) for row in MERGED_ROWS if self.values[row] is not None}
        return {row for row, score in scores.items() if score == max(scores.values())}

    def text(self, row: str) -> str:
        """A value as text. The largest value of the column decides the decimals: 4 below 1, 3 below 10, else 2.

        Args:
            row: key in results.json.
        """
        value = self.values[row]
        if value is None:
            return UNDEFINED
        largest = max(abs(number) for number in self.values.values() if number is not None)
        decimals = 4 if largest < 1 else 3 if largest < 10 else 2
        return f"{value:.{decimals}f}"


class DeltaColumn(Column):
    """Delta_m in percent: signed, two decimals, no value for the experts it is measured against."""

    def text(self, row: str) -> str:
        """A value as text, with its sign.

        Args:
            row: key in results.json.
        """
        value = self.values[row]
        return UNDEFINED if value is None else f"{value:+.2f}"


def task_names(results: Mapping[str, Any]) -> list[str]:
    """The tasks of a run, in the order of its table.

    Args:
        results: record of the run.
    """
    return list(results["experts"]["tasks"])


def columns(results: Mapping[str, Any], tasks: Sequence[str] | None = None) -> list[Column]:
    """Columns of the table: every metric, then the mean Delta_m.

    Args:
        results: record of the run.
        tasks: names of the tasks to show; None: all.

    Raises:
        ValueError: the record lacks a required key.
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
    """Title of a row. Task arithmetic's includes its coefficient if the record has it.

    Args:
        results: record of the run.
        row: key in results.json.
    """
    scale = results[row].get("scale")
    return ROWS[row] if scale is None else f"{ROWS[row]} λ={scale:.3g}"


def print_results(results: Mapping[str, Any], console: Console) -> None:
    """Print the table. Metrics are grouped by task; the best merged model of each column is bold.

    A narrow console gets it in several parts, each with Delta_m at its end.

    Args:
        results: record of the run.
        console: where it is printed.

    Raises:
        ValueError: the record lacks a required key.
    """
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


def _number(value: float | None) -> float | None:
    """None for NaN, which a record in memory has where the file has null."""
    return value if value is not None and math.isfinite(value) else None


def _groups(shown: Sequence[Column]) -> list[list[Column]]:
    """Neighbouring columns of one task together."""
    return [list(group) for _, group in groupby(shown, key=lambda column: column.task)]


def _table(results: Mapping[str, Any], shown: Sequence[Column]) -> Table:
    """A table with one column per task that holds the task's metrics side by side, padded to line up."""
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
