"""Delta_m, the mean relative change of a multi-task model against single-task references, as three schools define it.

- ``headline``: one metric per task (Maninis, Radosavovic, Kokkinos, CVPR 2019, arXiv 1904.08918, eq. 4; auto-lambda).
- ``task_mean``: the mean over the published metrics inside a task, then over tasks (LibMTL).
- ``metric_mean``: the mean over the published metrics of all tasks, so that a task with many counts for more (CAGrad,
  Nash-MTL). Those papers print it negated, lower being better; here positive is better, whatever the definition.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean
from typing import Any, Literal, get_args

from symerge_dense.evaluation.scores import Scores
from symerge_dense.progress import say
from symerge_dense.registry import TASKS, did_you_mean
from symerge_dense.tasks.base import DenseTask
from symerge_dense.tasks.metric import Metric

Definition = Literal["headline", "task_mean", "metric_mean"]
DEFINITIONS: tuple[Definition, ...] = get_args(Definition)


def delta_m(
    scores: Scores, reference: Scores, definition: Definition = "headline", tasks: Mapping[str, DenseTask] | None = None
) -> dict[str, float]:
    """Percent by which ``scores`` are better (positive) or worse than ``reference``, per task and as ``'mean'``.

    A metric changes by (-1)^l (M - B) / B * 100, l = 1 where lower is better. A task's entry is the mean over its
    headline, or else its published metrics (``DenseTask.delta_metrics``) that scores and reference both have;
    ``definition`` says which, and what ``'mean'`` goes over. Headline and published metrics come from ``tasks``, or
    else from the registry. A NaN score makes its task and the mean NaN. Raises ValueError for an unknown definition,
    a task that the reference lacks, a task without a metric to compare, a reference of zero, and no task at all.
    """
    if definition not in DEFINITIONS:
        raise ValueError(did_you_mean(str(definition), DEFINITIONS, "definition of Delta_m"))
    if not scores:
        raise ValueError("delta_m of no task at all is undefined; give scores of at least one task.")
    changes: dict[str, list[float]] = {}
    for task, measured in scores.items():
        if task not in reference:
            raise ValueError(did_you_mean(task, reference, "task of the reference") + " Measure its expert as well.")
        about: Any = tasks[task] if tasks is not None and task in tasks else TASKS[task]
        names = [about.headline] if definition == "headline" else _shared(task, about, measured, reference[task])
        changes[task] = [_change(task, name, measured, reference[task]) for name in names]
    means = {task: fmean(values) for task, values in changes.items()}
    every = [change for values in changes.values() for change in values]
    return {"mean": fmean(every if definition == "metric_mean" else means.values()), **means}


def relative_change(value: Metric, reference: Metric) -> float:
    """Percent by which ``value`` is better than ``reference``. Raises ZeroDivisionError for a reference of zero."""
    change = 100 * (value.value - reference.value) / reference.value
    return change if value.higher_is_better else -change


def _shared(task: str, about: DenseTask, measured: Mapping[str, Metric], reference: Mapping[str, Metric]) -> list[str]:
    published = about.delta_metrics or tuple(about.metrics)
    shared = [name for name in published if name in measured and name in reference]
    if not shared:
        raise ValueError(
            f"task {task!r}: none of its metrics {', '.join(published)} is in both the scores "
            f"({', '.join(measured)}) and the reference ({', '.join(reference)}); measure both alike."
        )
    return shared


def _change(task: str, name: str, measured: Mapping[str, Metric], reference: Mapping[str, Metric]) -> float:
    for whose, metrics in (("scores", measured), ("reference", reference)):
        if name not in metrics:
            raise ValueError(did_you_mean(name, metrics, f"metric of task {task!r} in the {whose}"))
    try:
        return relative_change(measured[name], reference[name])
    except ZeroDivisionError:
        raise ValueError(
            f"the reference value of {task}/{name} is 0, so no relative change exists; "
            f"measure a reference that works, or leave the task out."
        ) from None


def delta_by_task(scores: Scores, reference: Scores) -> dict[str, float]:
    """Delta_m per task and as 'mean'; NaN, with a remark, for a task whose expert scores 0: a run goes on over it.

    Args:
        scores: of the model.
        reference: of the experts.
    """
    changes = {}
    for task, measured in scores.items():
        try:
            changes[task] = delta_m({task: measured}, reference)[task]
        except ValueError as error:
            say(f"{task}: {error}", once=True)
            changes[task] = math.nan
    return {"mean": fmean(changes.values()), **changes}
