"""Scores of a model, and how ``results.json`` stores them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from symerge_dense.registry import TASKS
from symerge_dense.tasks.metric import Metric

Scores = dict[str, dict[str, Metric]]
"""Task name -> metric name -> value and direction."""


def scores_to_json(scores: Mapping[str, Mapping[str, Metric]]) -> dict[str, Any]:
    """Scores as JSON data.

    Args:
        scores: metrics by task and name.

    Returns:
        ``{task: {metric: {"value": float | None, "higher_is_better": bool}}}``; None stands for NaN and infinity. A
        metric with parts has ``"parts": {name: float | None}`` too.
    """
    return {task: {name: _entry(metric) for name, metric in metrics.items()} for task, metrics in scores.items()}


def _entry(metric: Metric) -> dict[str, Any]:
    parts = {} if metric.parts is None else {"parts": dict(metric.parts)}
    value = metric.value if math.isfinite(metric.value) else None
    return {"value": value, "higher_is_better": metric.higher_is_better, **parts}


def scores_from_json(data: Mapping[str, Any]) -> Scores:
    """Scores from JSON data, the inverse of ``scores_to_json`` without parts; None becomes NaN.

    Args:
        data: what ``scores_to_json`` returned.

    Raises:
        ValueError: the data have another form.
    """
    try:
        return {task: {name: _metric(entry) for name, entry in metrics.items()} for task, metrics in data.items()}
    except (AttributeError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(
            f"scores {str(data)[:200]!r} must be {{task: {{metric: {{'value': number or null, "
            f"'higher_is_better': true or false}}}}}}; write them with scores_to_json."
        ) from error


def _metric(entry: Mapping[str, Any]) -> Metric:
    value, better = entry["value"], entry["higher_is_better"]
    if not isinstance(better, bool) or isinstance(value, bool) or not isinstance(value, int | float | None):
        raise TypeError(entry)
    return Metric(math.nan if value is None else float(value), better)


def units(tasks: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Units of metrics, for those that have one.

    Args:
        tasks: metrics by task, as ``scores_to_json`` gives them; the tasks are registered.

    Returns:
        ``{task: {metric: unit}}``.
    """
    found = {task: {name: TASKS[task].metric_unit(name) for name in metrics} for task, metrics in tasks.items()}
    return {task: {name: unit for name, unit in every.items() if unit} for task, every in found.items()}
