"""results.json: the record of a run, and the only source of tables and pictures.

::

    config, seed, commit, versions, device                          what was run, and where
    delta_m_metrics: {task: metric}                                 the headline of each task
    published_metrics: {task: [metric, ...]}                        what Delta_m compares if it takes several metrics
    experts, average, task_arithmetic, initial, merged              one row of the table each, and of experts_views
                                                                    where labels are averages over several views:
        tasks: {task: {metric: {value, higher_is_better, parts}}}   parts: what a mean is made of: {class: value}
    delta_m: {row: {mean, task, ...}}                               percent against the experts, positive is better
    also: {labelled set: {row: {tasks}, delta_m}}                   the same on further sets (``evaluation.also``)
    timings: {stage: seconds}, peak_memory_mb
    coefficients: {group of tensors: [one per task]}, parameters: {backbone, heads: {task: number}}
    coefficient_ranges: {group of tensors: [[lowest, highest] per task]}   where a group has several per task, and
                        ``coefficients`` their means
    plugins: {'task saliency': module}                              which packages registered the tasks, if not this one
    agreement: {held_out_images, adapted_images, rows: {row: {tasks}}}   of a run without labels, in place of the rows
                        and of delta_m: metrics with the expert's decision as target (``report.agreement``)
    units: {task: {metric: unit}}                                   where a metric has one
    panels: [{image: path, tasks: {task: {column: path}}, legends: {task: legend}}]     pictures, beside the file

Files of earlier versions lack ``delta_m_metrics`` or ``published_metrics``, ``plugins``, ``panels``, ``parameters``,
``units``, ``also`` and parts. More keys are allowed: ``task_arithmetic.scale`` is the coefficient of that row.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import symerge_dense
from symerge_dense.fileio import parsed_json, write_text
from symerge_dense.progress import printable
from symerge_dense.report.record_shapes import RESULTS_SHAPE, refuse_misshapen

ROWS = {
    "experts": "experts",
    "average": "average",
    "task_arithmetic": "task arithmetic",
    "initial": "initial merge",
    "merged": "SyMerge",
}
"""Rows of the table, in order: key in results.json -> title."""

MERGED_ROWS = tuple(row for row in ROWS if row != "experts")
"""The rows that are one model for all tasks."""

REFERENCES = {"experts": ROWS["experts"], "experts_views": "experts, several views"}
"""The rows of one network per task; the second only of runs whose labels are averages over several views."""


MEASURED = "measured_on"  # key of a record as ``measured_on`` gives it: the name of the labelled set
RUN_KEYS = ("config", "seed", "commit", "versions", "device", "timings", "peak_memory_mb")


def rows_of(results: Mapping[str, Any]) -> list[str]:
    """Keys of a record's rows, in the order of its table.

    Args:
        results: record of a run with labels.
    """
    return [*(row for row in REFERENCES if row in results), *MERGED_ROWS]


def write_results(path: str | Path, results: Mapping[str, Any]) -> None:
    """Write a record as JSON, whole or not at all. NaN and infinite numbers become null.

    numpy and torch scalars, arrays, tuples and paths are written as their plain counterparts.

    Args:
        path: the file.
        results: the record.

    Raises:
        ValueError: JSON has no form for a value.
    """
    text = json.dumps(plain(results), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def read_json(path: str | Path, what: str = "results.json that a run") -> Any:
    """The content of a record's file, not checked. Texts that could move a terminal's cursor are made harmless.

    Args:
        path: the file.
        what: file to give in its place and who wrote it, for the error.

    Raises:
        ValueError: the file is no JSON.
    """
    try:
        return _harmless(parsed_json(Path(path).read_bytes()))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file ({error}); give the {what} wrote.") from None


def _harmless(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(key): _harmless(item) for key, item in value.items()}
    return [_harmless(item) for item in value] if isinstance(value, list) else value


def check_results(results: Any, source: str = "the results") -> None:
    """Check that a record has everything that a run with labels writes.

    Args:
        results: the record.
        source: what to call it in an error.

    Raises:
        ValueError: the run had no labels, required keys are missing (the text lists all of them), or a part is not
            what it must be.
    """
    if not isinstance(results, Mapping):
        raise ValueError(f"{source} hold a {type(results).__name__}; an object with {', '.join(ROWS)}, ... is needed.")
    if "agreement" in results:
        raise ValueError(
            f"{source} are of a run without labels: they have the agreement with the experts, which is no accuracy, "
            "and none of the metrics asked for; name runs whose config has data.test."
        )
    missing = [key for key in RUN_KEYS if key not in results] + _missing_in_rows(results)
    also = results.get("also")
    for name, rows in also.items() if isinstance(also, Mapping) else ():
        missing += [f"also.{name}.{key}" for key in _missing_in_rows(rows)]
    if missing:
        raise ValueError(f"{source} lack {', '.join(missing)}; run the experiment again to write them all.")
    refuse_misshapen(results, RESULTS_SHAPE, source)


def measured_on(results: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The record of a run as if one of its further labelled sets were the only one.

    Args:
        results: record of the run.
        name: of the set, a key of ``also``.
    """
    kept = {key: value for key, value in results.items() if key != "also"}
    rows = results["also"][name]
    return {
        **kept,
        **{row: {**results[row], **rows[row]} for row in rows_of(rows)},
        "delta_m": rows["delta_m"],
        MEASURED: name,
    }


def unit_of(record: Mapping[str, Any], task: str, metric: str) -> str:
    """The unit of a metric; empty where it has none, or the record does not say.

    Args:
        record: of a run or a comparison.
        task: name of the task.
        metric: of the task.
    """
    return str(((record.get("units") or {}).get(task) or {}).get(metric, ""))


def _missing_in_rows(results: Mapping[str, Any]) -> list[str]:
    """Dotted keys that the rows of a labelled set lack."""
    if not isinstance(results, Mapping):
        return ["its rows"]
    shown = rows_of(results)
    missing = [key for row in {**ROWS, **dict.fromkeys(shown)} for key in _missing_in_row(results, row)]
    deltas = [row for row in shown if row != "experts"]
    return missing + [f"delta_m.{row}.mean" for row in deltas if _at(results, "delta_m", row, "mean") is KeyError]


def _missing_in_row(results: Mapping[str, Any], row: str) -> Iterator[str]:
    """Dotted keys that a row of the table lacks; every row has the metrics of the experts."""
    wanted = _at(results, "experts", "tasks")
    if not isinstance(_at(results, row, "tasks"), Mapping) or not isinstance(wanted, Mapping):
        yield f"{row}.tasks"
        return
    for task, metrics in wanted.items():
        if not isinstance(metrics, Mapping):
            yield f"{row}.tasks.{task}"
            continue
        for metric in metrics:
            keys = [(row, "tasks", task, metric, key) for key in ("value", "higher_is_better")]
            yield from (".".join(key) for key in keys if _at(results, *key) is KeyError)


def _at(tree: Any, *keys: str) -> Any:
    """The entry under nested keys, or the class KeyError if there is none (None is an entry: an undefined number)."""
    for key in keys:
        if not isinstance(tree, Mapping) or key not in tree:
            return KeyError
        tree = tree[key]
    return tree


def plain(value: Any, where: str = "results") -> Any:
    """A value in types that JSON has.

    Args:
        value: of a record, or the record.
        where: its name in an error.

    Raises:
        ValueError: JSON has no form for it.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (np.generic, np.ndarray)) or hasattr(value, "detach"):  # a tensor, without importing torch
        return plain(value.tolist(), where)
    raise ValueError(f"{where} is a {type(value).__name__}, not for JSON; give numbers, text, lists or dicts.")


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of this package, of Python, and of those of ``packages`` that are installed.

    Args:
        packages: names of distributions.
    """
    found = {"symerge_dense": symerge_dense.__version__, "python": platform.python_version()}
    for package in packages:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
