"""Pool several runs of one configuration: mean and standard deviation of every metric over the seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from symerge_dense.report.differences import names
from symerge_dense.report.results import rows_of

Results = Mapping[str, Any]


def group(runs: Sequence[Results]) -> dict[str, list[Results]]:
    """Group runs that differ only in their seed.

    Args:
        runs: records.

    Returns:
        ``{title: runs}``; the titles are unique and say what differs between groups of one config file.
    """
    groups: dict[str, list[Results]] = {}
    for run in runs:
        groups.setdefault(_identity(run), []).append(run)
    titles = names([members[0]["config"] for members in groups.values()])
    return dict(zip(titles, groups.values(), strict=True))


def _identity(run: Results) -> str:
    config = {key: value for key, value in (run["config"] or {}).items() if key != "seed"}
    return json.dumps(config, sort_keys=True)


def pooled(runs: Sequence[Results]) -> dict[str, Any]:
    """Pool runs into one record.

    Args:
        runs: records of one configuration.

    Returns:
        The first record with the mean of every metric and its parts; with two or more runs, each metric has its ``std``
        too.

    Raises:
        ValueError: there is no run, or the metrics of the runs differ.
    """
    if not runs:
        raise ValueError("no run to pool; give at least one results.json.")
    first = dict(runs[0])
    for row in rows_of(first):
        tasks = {
            task: {metric: _pool(runs, row, task, metric) for metric in metrics}
            for task, metrics in first[row]["tasks"].items()
        }
        first[row] = {**first[row], "tasks": tasks}
    first["delta_m"] = {
        row: {"mean": fmean(_number(run["delta_m"][row]["mean"]) for run in runs)} for row in first["delta_m"]
    }
    return first


def further_sets(runs: Sequence[Results]) -> list[str]:
    """Names of the further labelled sets that every run was measured on.

    Args:
        runs: records.
    """
    return [name for name in runs[0].get("also") or {} if all(name in (run.get("also") or {}) for run in runs)]


def _pool(runs: Sequence[Results], row: str, task: str, metric: str) -> dict[str, Any]:
    try:
        entries = [run[row]["tasks"][task][metric] for run in runs]
    except KeyError:
        raise ValueError(
            f"not every run has {row}/{task}/{metric}: they were not measured in the same way; pool runs "
            "of one protocol."
        ) from None
    parts = {} if any(entry.get("parts") is None for entry in entries) else {"parts": _mean_parts(entries)}
    values = spread(_number(entry["value"]) for entry in entries)
    return {"higher_is_better": entries[0]["higher_is_better"], **values, **parts}


def _mean_parts(entries: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """The mean of every part over runs; None for one that some run has not."""
    found = {name: [entry["parts"].get(name) for entry in entries] for name in entries[0]["parts"]}
    return {name: None if None in values else fmean(values) for name, values in found.items()}


def spread(values: Any) -> dict[str, float]:
    """Mean and sample standard deviation.

    Args:
        values: numbers.

    Returns:
        ``{'value': mean, 'std': ...}``; 'std' only for two or more values, all finite.
    """
    numbers = list(values)
    more = {"std": stdev(numbers)} if len(numbers) > 1 and all(map(math.isfinite, numbers)) else {}
    return {"value": fmean(numbers), **more}


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
