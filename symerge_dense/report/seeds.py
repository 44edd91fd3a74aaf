"""Pool several runs of one configuration: mean and standard deviation of every metric over the seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from symerge_dense.progress import say
from symerge_dense.report.results import ROWS, read_results

Results = Mapping[str, Any]


def read_runs(paths: Sequence[str | Path]) -> list[dict[str, Any]]:
    """Read the records of finished runs. A run that is not finished is left out, with a remark.

    Args:
        paths: results.json files, or the folders that hold them.

    Raises:
        ValueError: a folder is no run and has no results.json, or a file is missing or is no record.
    """
    found = []
    for path in map(Path, paths):
        file = path / "results.json" if path.is_dir() else path
        if not file.is_file() and (path / "run.json").is_file():
            say(f"{path} is not finished yet and is left out", aside=True)
            continue
        if not file.is_file():
            above = path if path.is_dir() else path.parent
            near = ", ".join(sorted(str(other) for other in above.glob("*/results.json"))[:5])
            raise ValueError(
                f"{file} is not there; give the results.json of a finished run, or its folder"
                + (f", such as {near}." if near else ".")
            )
        found.append(read_results(file))
    return found


def group(runs: Sequence[Results]) -> dict[str, list[Results]]:
    """Group runs that differ only in their seed.

    Args:
        runs: records.

    Returns:
        ``{title: runs}``; the titles are unique.
    """
    groups: dict[str, list[Results]] = {}
    for run in runs:
        groups.setdefault(_identity(run), []).append(run)
    titles: dict[str, list[Results]] = {}
    for members in groups.values():
        name = str((members[0]["config"] or {}).get("name", "run"))
        count = sum(title.split(" (")[0] == name for title in titles)
        titles[f"{name} ({count + 1})" if count else name] = members
    return titles


def _identity(run: Results) -> str:
    config = {key: value for key, value in (run["config"] or {}).items() if key != "seed"}
    return repr(sorted(config.items(), key=lambda item: item[0]))


def pooled(runs: Sequence[Results]) -> dict[str, Any]:
    """Pool runs into one record.

    Args:
        runs: records of one configuration.

    Returns:
        The first record with the mean of every metric; with two or more runs, each metric has its ``std`` too.

    Raises:
        ValueError: there is no run, or the metrics of the runs differ.
    """
    if not runs:
        raise ValueError("no run to pool; give at least one results.json.")
    first = dict(runs[0])
    for row in ROWS:
        tasks = {
            task: {metric: _pool(runs, row, task, metric) for metric in metrics}
            for task, metrics in first[row]["tasks"].items()
        }
        first[row] = {**first[row], "tasks": tasks}
    first["delta_m"] = {
        row: {"mean": fmean(_number(run["delta_m"][row]["mean"]) for run in runs)} for row in first["delta_m"]
    }
    return first


def _pool(runs: Sequence[Results], row: str, task: str, metric: str) -> dict[str, Any]:
    try:
        entries = [run[row]["tasks"][task][metric] for run in runs]
    except KeyError:
        raise ValueError(
            f"not every run has {row}/{task}/{metric}: they were not measured in the same way; pool runs "
            "of one protocol."
        ) from None
    return {"higher_is_better": entries[0]["higher_is_better"], **spread(_number(entry["value"]) for entry in entries)}


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
