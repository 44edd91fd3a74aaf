"""Delta_m, the mean relative change of a multi-task model against single-task references.

Maninis, Radosavovic, Kokkinos: Attentive Single-Tasking of Multiple Tasks, CVPR 2019, arXiv 1904.08918, eq. 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Literal

from symerge_dense.evaluation.scores import Scores, scores_from_json, scores_to_json
from symerge_dense.registry import TASKS, nearest
from symerge_dense.tasks.base import DenseTask, Metric

__all__ = ["Scores", "delta_m", "relative_change", "scores_from_json", "scores_to_json"]


def delta_m(scores: Scores, reference: Scores, metrics: Literal["headline", "all"] = "headline",
            tasks: Mapping[str, DenseTask] | None = None) -> dict[str, float]:
    """Percent by which ``scores`` are better (positive) or worse than ``reference``, per task and as ``'mean'``.

    Per task the mean of (-1)^l (M - B) / B * 100 over its headline metric or over ``'all'`` metrics of ``scores``,
    l = 1 where lower is better; ``'mean'`` is the mean over tasks. Headlines come from ``tasks``, or else from the
    registry. A NaN score makes its task and the mean NaN. Raises ValueError for a task or metric that the reference
    lacks, a reference of zero, and no task at all.
    """
    if metrics not in ("headline", "all"):
        raise ValueError(nearest(metrics, ("headline", "all"), "choice of metrics"))
    if not scores:
        raise ValueError("delta_m of no task at all is undefined; give scores of at least one task.")
    changes: dict[str, float] = {}
    for task, measured in scores.items():
        if task not in reference:
            raise ValueError(nearest(task, reference, "task of the reference") + " Measure its expert as well.")
        chosen = measured if metrics == "all" else [_headline(task, tasks)]
        changes[task] = fmean(_change(task, name, measured, reference[task]) for name in chosen)
    return {"mean": fmean(changes.values()), **changes}


def relative_change(value: Metric, reference: Metric) -> float:
    """Percent by which ``value`` is better than ``reference``. Raises ZeroDivisionError for a reference of zero."""
    change = 100 * (value.value - reference.value) / reference.value
    return change if value.higher_is_better else -change


def _change(task: str, name: str, measured: Mapping[str, Metric], reference: Mapping[str, Metric]) -> float:
    for whose, metrics in (("scores", measured), ("reference", reference)):
        if name not in metrics:
            raise ValueError(nearest(name, metrics, f"metric of task {task!r} in the {whose}"))
    try:
        return relative_change(measured[name], reference[name])
    except ZeroDivisionError:
        raise ValueError(f"the reference value of {task}/{name} is 0, so no relative change exists; "
                         f"measure a reference that works, or leave the task out.") from None


def _headline(task: str, tasks: Mapping[str, DenseTask] | None) -> str:
    if tasks is not None and task in tasks:
        return tasks[task].headline
    headline: str = TASKS[task].headline
    return headline
