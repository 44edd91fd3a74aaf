"""The record and table of a run without labels: how far merged models agree with the experts, which is no accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from symerge_dense.report.record_shapes import AGREEMENT_SHAPE, refuse_misshapen
from symerge_dense.report.results import ROWS, RUN_KEYS, check_results, read_json
from symerge_dense.report.run_tables import markdown
from symerge_dense.report.table import Column, finite, print_columns, print_results

AGREEMENT_ROWS = ("average", "initial", "merged")
"""Rows of ``agreement`` in results.json, in order; titles are those of ``ROWS``."""


def has_labels(results: Mapping[str, Any]) -> bool:
    """Whether a record has labelled metrics; one without labels has ``agreement`` in their place.

    Args:
        results: record of a run.
    """
    return "agreement" not in results


def read_record(path: str | Path) -> dict[str, Any]:
    """Read the record of a run with labels or without.

    Args:
        path: the results.json.

    Raises:
        ValueError: the file is no JSON or lacks a required key.
    """
    results = read_json(path)
    if isinstance(results, Mapping) and not has_labels(results):
        check_agreement(results, str(path))
    else:
        check_results(results, str(path))
    return dict(results)


def check_agreement(results: Mapping[str, Any], source: str = "the results") -> None:
    """Check that the record of a run without labels is complete.

    Args:
        results: the record.
        source: what to call it in an error.

    Raises:
        ValueError: required keys are missing.
    """
    rows = results["agreement"].get("rows") if isinstance(results["agreement"], Mapping) else None
    missing = [key for key in RUN_KEYS if key not in results]
    missing += [f"agreement.rows.{row}" for row in AGREEMENT_ROWS if not isinstance(rows, Mapping) or row not in rows]
    if missing:
        raise ValueError(f"{source} lack {', '.join(missing)}; run the experiment again to write them all.")
    refuse_misshapen(results, AGREEMENT_SHAPE, source)
    rows = results["agreement"]["rows"]
    wanted = _metrics(rows["merged"])
    other = [row for row in AGREEMENT_ROWS if _metrics(rows[row]) != wanted]
    if other:
        raise ValueError(f"{source}: {other[0]} and merged have other tasks or metrics; run the experiment again.")


def _metrics(row: Mapping[str, Any]) -> dict[str, set[str]]:
    return {task: set(metrics) for task, metrics in row["tasks"].items()}


def agreement_columns(results: Mapping[str, Any]) -> list[Column]:
    """Columns of the table: every metric of every task, the expert's decision taken for the truth.

    Args:
        results: record of a run without labels.

    Raises:
        ValueError: the record lacks a required key.
    """
    check_agreement(results)
    rows = results["agreement"]["rows"]
    found = []
    for task, metrics in rows["merged"]["tasks"].items():
        for metric, entry in metrics.items():
            values = {row: finite(rows[row]["tasks"][task][metric]["value"]) for row in AGREEMENT_ROWS}
            found.append(Column(task, metric, entry["higher_is_better"], values))
    return found


def markdown_agreement(results: Mapping[str, Any]) -> str:
    """The table in Markdown.

    Args:
        results: record of a run without labels.

    Raises:
        ValueError: the record lacks a required key.
    """
    shown = agreement_columns(results)
    lines = [["", *(f"{column.task} {column.heading}" for column in shown)]]
    lines += [[ROWS[row], *(column.text(row) for column in shown)] for row in AGREEMENT_ROWS]
    name, found = (results["config"] or {}).get("name", "run"), results["agreement"]
    return (
        f"**{name}**, seed {results['seed']}: agreement with the experts on {found.get('held_out_images')} held-out "
        f"images. No label was read: this is no accuracy.\n\n{markdown(lines)}"
    )


def print_record(results: Mapping[str, Any], console: Console) -> None:
    """Print the table of a run with labels or without; what is best, or agrees best, is bold.

    Args:
        results: record of the run.
        console: where it is printed.

    Raises:
        ValueError: the record lacks a required key.
    """
    if has_labels(results):
        print_results(results, console)
    else:
        shown, count = agreement_columns(results), results["agreement"]["held_out_images"]
        heading = f"agreement with the experts on {count} held-out image{'s' if count != 1 else ''}"
        titles = {row: ROWS[row] for row in AGREEMENT_ROWS}
        print_columns(titles, shown, [], console, f"{heading} (not accuracy: no labels)")
