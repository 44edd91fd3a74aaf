"""compare.json and the tables and pictures made from it: Markdown, CSV, PNG and a terminal.

compare.json is an object::

    config, tuning, seeds, adapted_from      what was run; how scales were chosen; source of the transferred layers
    commit, versions, device, delta_m_metrics, blocks {block: title}
    rows                                     one per method:
        method, block, data                  name; its table; data it looked at: 'none', 'unlabelled' or 'labels'
        runs, tasks: {task: {metric: {value, std, higher_is_better}}}, delta_m: {task or 'mean': {value, std}}
        options, note                        used in the merge; what differs from the paper
        tuning: {argument, best, values}     of its scale, if it has one; the criterion's result for each value
        extra_parameters, encoder_passes     beside one backbone and a head per task; per image for all tasks
        seconds, tuning_seconds              of its own work with tuning and without scoring; of tuning alone
        peak_memory_mb                       during that work
        also: {labelled set: {tasks, delta_m}}   the same on further sets of the config (``evaluation.also``)
        transferred: {task or 'mean': ...}   Delta_m of its encoder with the transferred layers
        models, layers                       hashes: of base and experts (row 'experts'), of the layers' source
        error                                instead of the numbers, if the method failed

``std`` exists only with several runs. null stands for an undefined number.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import MINIMAL
from rich.console import Console
from rich.table import Table

from symerge_dense.fileio import write_text
from symerge_dense.report.figures.ranking import draw_ranking
from symerge_dense.report.results import write_results
from symerge_dense.report.run_tables import markdown, number
from symerge_dense.report.table import UNDEFINED

Row = Mapping[str, Any]
COSTS = {
    "data": "data",
    "extra_parameters": "extra weights",
    "encoder_passes": "passes",
    "seconds": "seconds",
    "tuning_seconds": "tuning s",
    "peak_memory_mb": "peak MiB",
}
FILES = ("compare.json", "compare.md", "compare.csv", "compare.png")


def write_comparison(folder: Path, record: Mapping[str, Any]) -> None:
    """Write compare.json, compare.md and compare.csv, each whole or not at all.

    Args:
        folder: where they are written.
        record: the comparison, as described above in this module.
    """
    write_results(folder / "compare.json", record)
    for name, text in (("compare.md", markdown_comparison(record)), ("compare.csv", csv_comparison(record))):
        write_text(folder / name, text)


def draw_comparison(folder: Path, record: Mapping[str, Any]) -> None:
    """Draw compare.png.

    Args:
        folder: where it is written.
        record: the comparison.
    """
    draw_ranking(folder / "compare.png", record)


def blocks(record: Mapping[str, Any]) -> list[tuple[str, list[Row]]]:
    """The tables of a comparison that have rows.

    Args:
        record: the comparison.

    Returns:
        (title, rows) of each table. The experts come first, then the other rows by Delta_m (best first), then those
        without a Delta_m, then failures.
    """
    found = [
        (title, [row for row in record["rows"] if row["block"] == block]) for block, title in record["blocks"].items()
    ]
    return [(title, sorted(rows, key=_order)) for title, rows in found if rows]


def markdown_comparison(record: Mapping[str, Any]) -> str:
    """Markdown: a table per block with Delta_m, every metric and the costs, then the transfer table and notes.

    Further labelled sets have a column of Delta_m there, and a table of every metric each.

    Args:
        record: the comparison.
    """
    shown, also = columns(record), further_sets(record)
    metrics = [f"{task} {metric} {'↑' if better else '↓'}" for task, metric, better in shown]
    headings = ["method", "Δm % ↑", *(f"Δm {name} % ↑" for name in also), *metrics, *COSTS.values()]
    parts = [preamble(record)]
    for title, rows in blocks(record):
        parts.append(f"**{title}**\n\n{markdown([headings, *(_cells(row, shown, also) for row in rows)])}")
    for name in also:
        rows = [row for _, members in blocks(measured_on(record, name)) for row in members if "error" not in row]
        lines = [["method", "Δm % ↑", *metrics], *([row["method"], delta(row), *_metrics(row, shown)] for row in rows)]
        parts.append(f"**{name}: every metric on data.{name}**\n\n{markdown(lines)}")
    moved = transfers(record)
    if len(moved) > 1:
        parts.append(f"**adapted layers on other encoders**\n\n{markdown(moved)}")
    notes = [f"- {row['method']}: {row['note']}" for row in record["rows"] if row.get("note")]
    notes += [f"- {row['method']} failed: {row['error']}" for row in record["rows"] if "error" in row]
    return "\n".join([*parts, *(["\n".join(notes) + "\n"] if notes else [])])


def transfers(record: Mapping[str, Any]) -> list[list[str]]:
    """The transfer table: Delta_m of every encoder with its own heads and with the transferred layers.

    Args:
        record: the comparison.

    Returns:
        The heading, then the rows.
    """
    donor = "SyMerge's layers" if record["adapted_from"] == "symerge" else f"the layers of {record['adapted_from']}"
    rows = [row for _, rows in blocks(record) for row in rows if "transferred" in row]
    return [
        ["method (Δm % ↑)", "with its own heads", f"with {donor}"],
        *([row["method"], delta(row), _signed(row["transferred"]["mean"])] for row in rows),
    ]


def csv_comparison(record: Mapping[str, Any]) -> str:
    """CSV with one line per method; every number and its standard deviation have columns of their own.

    Args:
        record: the comparison.
    """
    shown = columns(record)
    own, also = ["delta_m", *(f"{task}/{metric}" for task, metric, _ in shown)], further_sets(record)
    names = [*own, "delta_m_transferred", *(f"{name}/{column}" for name in also for column in own)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["method", "block", "runs", *(n for name in names for n in (name, f"{name}_std")), *COSTS, "options", "error"]
    )
    for row in record["rows"]:
        entries = [*_entries(row, shown), row.get("transferred", {}).get("mean", {})]
        entries += [entry for name in also for entry in _entries((row.get("also") or {}).get(name, {}), shown)]
        numbers = [value for entry in entries for value in (entry.get("value"), entry.get("std"))]
        writer.writerow(
            [
                row["method"],
                row["block"],
                row["runs"],
                *numbers,
                *(row.get(key) for key in COSTS),
                json.dumps(row.get("options", {})),
                row.get("error", ""),
            ]
        )
    return text.getvalue()


def _entries(row: Row, columns: Sequence[tuple[str, str, bool]]) -> list[Mapping[str, Any]]:
    """Delta_m and metrics of a row, or of one of its further sets; empty ones where it failed."""
    metrics = [row["tasks"][task][metric] if "tasks" in row else {} for task, metric, _ in columns]
    return [row.get("delta_m", {}).get("mean", {}), *metrics]


def print_comparison(record: Mapping[str, Any], console: Console) -> None:
    """Print Delta_m, the headline metric of each task, and costs. The files have every metric.

    Args:
        record: the comparison.
        console: where it is printed.
    """
    console.print(preamble(record), markup=False, soft_wrap=True)
    heads = [column for column in columns(record) if record["delta_m_metrics"].get(column[0]) == column[1]]
    also = further_sets(record)
    deltas, metrics = ["Δm %", *(f"Δm {name} %" for name in also)], [f"{task} {metric}" for task, metric, _ in heads]
    for title, rows in blocks(record):
        headings = ["method", *deltas, *metrics, *COSTS.values()]
        console.print(_table(title, [headings, *(_cells(row, heads, also) for row in rows)]))
    if len(moved := transfers(record)) > 1:
        console.print(_table("adapted layers on other encoders", moved))
    for row in record["rows"]:
        if "error" in row:
            console.print(f"{row['method']} failed: {row['error']}", markup=False, soft_wrap=True)


def _table(title: str, lines: Sequence[Sequence[str]]) -> Table:
    """A table for a terminal, of a heading and rows. The first column is never wrapped."""
    table = Table(title=title, title_justify="left", box=MINIMAL)
    for column, heading in enumerate(lines[0]):
        table.add_column(heading, no_wrap=column == 0, justify="right" if column else "left")
    for line in lines[1:]:
        table.add_row(*line)
    return table


def delta(row: Row) -> str:
    """Mean Delta_m of a row as text, with its standard deviation; 'failed', or a dash for the experts.

    Args:
        row: of compare.json.
    """
    if "error" in row:
        return "failed"
    return _signed(row["delta_m"]["mean"]) if row["delta_m"] else UNDEFINED


def preamble(record: Mapping[str, Any]) -> str:
    """What a reader of the tables must know of how they were made, in Markdown.

    Args:
        record: the comparison.
    """
    count = record["seeds"]
    runs = f" Mean ± standard deviation of {count} runs where the seed matters." if count > 1 else ""
    also = "".join(
        f" Δm {name}: the same on the images of `data.{name}`, against the experts there; nothing is tuned on them."
        for name in further_sets(record)
    )
    return (
        f"Scales are tuned by {record['tuning']}. BatchNorm: `{_batchnorm(record)}`, for all methods alike; its "
        f"images are not counted as data.{runs}{also}\n"
    )


def _batchnorm(record: Mapping[str, Any]) -> str:
    return str((record["config"].get("adaptation") or {}).get("batchnorm", "recalibrate"))


def columns(record: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """(task, metric, whether higher is better) of every metric.

    Args:
        record: the comparison.
    """
    tasks: Mapping[str, Any] = next((row["tasks"] for row in record["rows"] if "tasks" in row), {})
    return [
        (task, metric, entry["higher_is_better"])
        for task, metrics in tasks.items()
        for metric, entry in metrics.items()
    ]


def further_sets(record: Mapping[str, Any]) -> list[str]:
    """Names of the further labelled sets that a comparison was measured on.

    Args:
        record: the comparison.
    """
    return list(next((row.get("also") or {} for row in record["rows"] if "tasks" in row), {}))


def measured_on(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A comparison as if one of its further labelled sets were the only one; failed rows stay.

    Args:
        record: the comparison.
        name: of the set.
    """
    rows = [{**row, **row["also"][name]} if "tasks" in row else row for row in record["rows"]]
    return {**record, "rows": [{key: value for key, value in row.items() if key != "also"} for row in rows]}


def _cells(row: Row, columns: Sequence[tuple[str, str, bool]], also: Sequence[str]) -> list[str]:
    further = [UNDEFINED if "error" in row else delta(row["also"][name]) for name in also]
    return [row["method"], delta(row), *further, *_metrics(row, columns), *(_cost(key, row.get(key)) for key in COSTS)]


def _metrics(row: Row, columns: Sequence[tuple[str, str, bool]]) -> list[str]:
    return [number(row["tasks"][task][metric]) if "tasks" in row else UNDEFINED for task, metric, _ in columns]


def _cost(key: str, value: Any) -> str:
    if value is None:
        return UNDEFINED
    if key == "extra_parameters":
        return f"{value / 1e6:.1f} M" if value >= 1e5 else f"{value / 1e3:.1f} k" if value else "0"
    if key in ("seconds", "tuning_seconds"):
        return f"{value:.1f}"
    return f"{value:.0f}" if isinstance(value, float) else str(value)


def _signed(entry: Mapping[str, Any]) -> str:
    return number(entry, 2, "+")


def _order(row: Row) -> tuple[int, float]:
    if "error" in row:
        return 3, 0.0
    if not row["delta_m"]:
        return 0, 0.0
    value = row["delta_m"]["mean"]["value"]
    return (2, 0.0) if value is None else (1, -value)
