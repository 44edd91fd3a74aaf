"""What the runs of a study cost. It stands apart from their results: a clock has no part in those.

costs.json is an object: ``{seconds, runs: [{label, seed, seconds, method_seconds, peak_memory_mb}], commit, versions,
device}``. ``seconds`` is a whole run with reading, scoring, and what earlier runs left to do; ``method_seconds`` and
``peak_memory_mb`` are those of the method alone, None where a run makes none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from symerge_dense.pipeline.run_info import run_facts
from symerge_dense.report.run_tables import markdown
from symerge_dense.report.table import UNDEFINED
from symerge_dense.studies.frame.intervals import Interval, t_interval
from symerge_dense.studies.frame.study import Measured

COLUMNS = {"method_seconds": "seconds", "peak_memory_mb": "peak memory, MiB"}
"""{number: its heading}."""
METHOD = "method"  # of a kept run: what its method cost


def costs_record(measured: Sequence[Measured], kept: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The content of costs.json.

    Args:
        measured: runs.
        kept: what the cache holds of each.
    """
    runs = []
    for one, found in zip(measured, kept, strict=True):
        about = found.get("about", {})
        method = about.get(METHOD, {})  # runs of earlier versions do not say it
        own = {"method_seconds": method.get("seconds"), "peak_memory_mb": method.get("peak_memory_mb")}
        runs.append({"label": one.label, "seed": one.run["seed"], "seconds": about.get("seconds", 0.0), **own})
    return {"seconds": round(sum(run["seconds"] for run in runs), 1), "runs": runs, **run_facts()}


def costs_by_label(costs: Mapping[str, Any]) -> dict[str, dict[str, Interval]]:
    """Intervals over seeds of what methods cost.

    Args:
        costs: content of costs.json.

    Returns:
        {label: {number: interval}}, without numbers that were not measured.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for run in costs["runs"]:
        row = found.setdefault(run["label"], {})
        for name in COLUMNS:
            if run.get(name) is not None:
                row.setdefault(name, []).append(run[name])
    return {label: {name: t_interval(values) for name, values in row.items()} for label, row in found.items()}


def markdown_costs(costs: Mapping[str, Any]) -> str:
    """A table in Markdown: means over seeds of what every row cost.

    Args:
        costs: content of costs.json.
    """
    lines = [["", *COLUMNS.values()]]
    for label, row in costs_by_label(costs).items():
        lines.append([label, *(f"{row[name].mean:.1f}" if name in row else UNDEFINED for name in COLUMNS)])
    return markdown(lines)
