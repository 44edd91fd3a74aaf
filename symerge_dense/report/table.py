"""Tables for a terminal: a row per model, a column per metric, the best merged model of each bold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from rich.box import MINIMAL
from rich.console import Console
from rich.table import Table
from rich.text import Text

from symerge_dense.report.results import REFERENCES, ROWS, check_results, rows_of

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
        known = [row for row, value in self.values.items() if row not in REFERENCES and value is not None]
        scores = {row: sign * float(self.text(row)) for row in known}
        return {row for row, score in scores.items() if score == max(scores.values())}

    def text(self, row: str) -> str:
        """A value as text; all values of the column have the same decimals.

        Args:
            row: key in results.json.
        """
        value = self.values[row]
        return UNDEFINED if value is None else f"{value:.{decimals(self.values.values())}f}"


class DeltaColumn(Column):
    """Delta_m in percent: signed, two decimals, no value for the experts it is measured against."""

    def text(self, row: str) -> str:
        """A value as text, with its sign.

        Args:
            row: key in results.json.
        """
        value = self.values[row]
        return UNDEFINED if value is None else f"{value:+.2f}"


def decimals(values: Iterable[float | None]) -> int:
    """Decimals of a column, by its largest number: 4 below 1, 3 below 10, else 2.

    Args:
        values: of the column; None is undefined.
    """
    largest = max((abs(value) for value in values if value is not None), default=0.0)
    return 4 if largest < 1 else 3 if largest < 10 else 2


def finite(value: float | None) -> float | None:
    """None for NaN, which a record in memory has where the file has null.

    Args:
        value: of a metric.
    """
    return value if value is not None and math.isfinite(value) else None


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
            values = {row: finite(results[row]["tasks"][task][metric]["value"]) for row in rows_of(results)}
            found.append(Column(task, metric, entry["higher_is_better"], values))
    return [*found, _delta_column("mean", results["delta_m"])]


def also_columns(results: Mapping[str, Any]) -> list[Column]:
    """The mean Delta_m on every further labelled set of a run, one column each; mostly there is none.

    Args:
        results: record of the run.
    """
    return [_delta_column(name, rows["delta_m"]) for name, rows in (results.get("also") or {}).items()]


def _delta_column(heading: str, deltas: Mapping[str, Any]) -> Column:
    means = {row: finite(delta["mean"]) for row, delta in deltas.items()}
    return DeltaColumn(heading, "Δm %", True, {"experts": None, **means})


def row_title(results: Mapping[str, Any], row: str) -> str:
    """Title of a row. Task arithmetic's includes its coefficient if the record has it.

    Args:
        results: record of the run.
        row: key in results.json.
    """
    scale, title = results[row].get("scale"), {**ROWS, **REFERENCES}[row]
    return title if scale is None else f"{title} λ={scale:.3g}"


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
    end = [delta, *also_columns(results)]
    print_columns({row: row_title(results, row) for row in rows_of(results)}, metrics, end, console)


def print_columns(
    titles: Mapping[str, str],
    metrics: Sequence[Column],
    end: Sequence[Column],
    console: Console,
    heading: str | None = None,
) -> None:
    """Print columns as a table, or as several where the console is too narrow for one.

    Args:
        titles: {row: its title}; the experts, which the others are measured against, are dim, however they are asked.
        metrics: columns; neighbours of one task share a heading.
        end: columns at the end of every part.
        console: where it is printed.
        heading: above the first part.
    """
    part: list[Column] = []
    for group in _groups(metrics):
        whole = _fits(_table(titles, [*group, *end]), console)
        for piece in [group] if whole else [[column] for column in group]:
            if part and not _fits(_table(titles, [*part, *piece, *end]), console):
                console.print(_table(titles, [*part, *end], heading))
                part, heading = [], None
            part += piece
    console.print(_table(titles, [*part, *end], heading))


def _groups(shown: Sequence[Column]) -> list[list[Column]]:
    """Neighbouring columns of one task together."""
    return [list(group) for _, group in groupby(shown, key=lambda column: column.task)]


def _table(titles: Mapping[str, str], shown: Sequence[Column], heading: str | None = None) -> Table:
    """A table with one column per task that holds the task's metrics side by side, padded to line up."""
    table = Table(box=MINIMAL, pad_edge=False, title=heading)
    table.add_column("", no_wrap=True)
    groups = _groups(shown)
    for group in groups:
        names = "  ".join(column.heading.rjust(_width(column)) for column in group)
        table.add_column(Text(f"{group[0].task}\n{names}"), justify="right", no_wrap=True)
    for row, title in titles.items():
        style = "dim" if row in REFERENCES else ""
        table.add_row(Text(title, style=style), *(_cell(group, row, style) for group in groups))
    return table


def _cell(group: Sequence[Column], row: str, style: str) -> Text:
    numbers = [(column.text(row).rjust(_width(column)), column) for column in group]
    parts = [Text(number, style="bold green" if row in column.best else style) for number, column in numbers]
    return Text("  ").join(parts)


def _width(column: Column) -> int:
    return max(len(column.heading), *(len(column.text(row)) for row in column.values))


def _fits(table: Table, console: Console) -> bool:
    return table.__rich_measure__(console, console.options.update(max_width=10_000)).maximum <= console.width
