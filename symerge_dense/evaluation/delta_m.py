"""Delta_m, the mean relative change of a multi-task model against single-task references, by three definitions.

- ``headline``: one metric per task (Maninis, Radosavovic, Kokkinos, CVPR 2019, arXiv 1904.08918, eq. 4; auto-lambda).
- ``task_mean``: the mean over the published metrics inside a task, then over tasks (LibMTL).
- ``metric_mean``: the mean over the published metrics of all tasks (CAGrad, Nash-MTL). A task with many metrics counts
  for more. Those papers print it negated, so that lower is better. Here positive is better in all three.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from statistics import fmean
from typing import Any, Literal, NamedTuple, Protocol, get_args

from symerge_dense.evaluation.scores import Scores
from symerge_dense.progress import say
from symerge_dense.registry import TASKS, did_you_mean
from symerge_dense.tasks.metric import Metric

Definition = Literal["headline", "task_mean", "metric_mean"]
DEFINITIONS: tuple[Definition, ...] = get_args(Definition)


class ComparedTask(Protocol):
    """What Delta_m needs to know about a task. ``DenseTask`` has it, as a class and as an object."""

    @property
    def headline(self) -> str:
        """The metric that ``headline`` compares."""

    @property
    def delta_metrics(self) -> tuple[str, ...] | None:
        """The published metrics; None stands for all."""

    @property
    def metrics(self) -> Collection[str]:
        """The names of all metrics."""


class Compared(NamedTuple):
    """What Delta_m needs to know about a task whose class is not at hand.

    Args:
        headline: the metric that ``headline`` compares.
        delta_metrics: the published metrics, which ``task_mean`` and ``metric_mean`` compare.
    """

    headline: str
    delta_metrics: tuple[str, ...]

    @property
    def metrics(self) -> tuple[str, ...]:
        """The published metrics: no others are known."""
        return self.delta_metrics


def published_metrics(task: ComparedTask | type[Any]) -> list[str]:
    """Names of the metrics that ``task_mean`` and ``metric_mean`` compare.

    Args:
        task: a task, or its class.
    """
    return list(task.delta_metrics or task.metrics)


def delta_m(
    scores: Scores,
    reference: Scores,
    definition: Definition = "headline",
    tasks: Mapping[str, ComparedTask] | None = None,
) -> dict[str, float]:
    """Percent by which ``scores`` are better (positive) or worse than ``reference``.

    A metric M changes against its reference B by (-1)^l (M - B) / B * 100, with l = 1 where lower is better.

    Args:
        scores: of the multi-task model.
        reference: of the single-task models, at least for the tasks of ``scores``.
        definition: 'headline', 'task_mean' or 'metric_mean', as described above in this module.
        tasks: headline and published metrics by task name. A task that is not in it is looked up in the registry.

    Returns:
        ``{'mean': percent, task: percent, ...}``. A task's entry is the change of its headline, or the mean change of
        the published metrics that scores and reference both have. A NaN score makes its task and the mean NaN.

    Raises:
        ValueError: the definition is unknown, the reference lacks a task, a task has no metric to compare, a reference
            value is zero, or ``scores`` is empty.

    >>> expert, merged = {"depth": {"abs": Metric(0.50, False)}}, {"depth": {"abs": Metric(0.45, False)}}
    >>> {name: round(change, 6) for name, change in delta_m(merged, expert).items()}
    {'mean': 10.0, 'depth': 10.0}
    """
    if definition not in DEFINITIONS:
        raise ValueError(did_you_mean(str(definition), DEFINITIONS, "definition of Delta_m"))
    if not scores:
        raise ValueError("delta_m of no task at all is undefined; give scores of at least one task.")
    changes: dict[str, list[float]] = {}
    for task, measured in scores.items():
        if task not in reference:
            raise ValueError(did_you_mean(task, reference, "task of the reference") + " Measure its expert as well.")
        about: ComparedTask | type[Any] = tasks[task] if tasks is not None and task in tasks else TASKS[task]
        names = [about.headline] if definition == "headline" else _shared(task, about, measured, reference[task])
        changes[task] = [_change(task, name, measured, reference[task]) for name in names]
    means = {task: fmean(values) for task, values in changes.items()}
    every = [change for values in changes.values() for change in values]
    return {"mean": fmean(every if definition == "metric_mean" else means.values()), **means}


def relative_change(value: Metric, reference: Metric) -> float:
    """Percent by which ``value`` is better than ``reference``.

    Args:
        value: of the model.
        reference: of the model it is compared with.

    Raises:
        ZeroDivisionError: the reference value is zero.
    """
    change = 100 * (value.value - reference.value) / reference.value
    return change if value.higher_is_better else -change


def _shared(
    task: str, about: ComparedTask | type[Any], measured: Mapping[str, Metric], reference: Mapping[str, Metric]
) -> list[str]:
    published = published_metrics(about)
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
    """Delta_m by headline, without an error for a task that has none (its expert scores 0): NaN and a remark.

    Args:
        scores: of the multi-task model.
        reference: of the experts.

    Returns:
        As ``delta_m``. One NaN makes the mean NaN.
    """
    changes = {}
    for task, measured in scores.items():
        try:
            changes[task] = delta_m({task: measured}, reference)[task]
        except ValueError as error:
            say(f"{task}: {error}", once=True)
            changes[task] = math.nan
    return {"mean": fmean(changes.values()), **changes}
