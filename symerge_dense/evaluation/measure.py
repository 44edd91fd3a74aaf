"""What it takes to measure a task: one convention, as functions."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from torch import Tensor

from symerge_dense.tasks.base import DenseTask, Metric


class Measure(NamedTuple):
    """A convention for one task: ``metrics`` (name -> True where higher is better, in table order) and how to get them.

    The functions have the meaning of the methods of ``DenseTask`` of these names.
    """

    metrics: dict[str, bool]
    statistics: Callable[[Tensor, Tensor], Tensor]
    summarize: Callable[[Tensor], dict[str, Metric]]
    remarks: Callable[[Tensor], list[str]]


def own(task: DenseTask) -> Measure:
    """The task's own rules."""
    return Measure(task.metrics, task.statistics, task.summarize, task.remarks)


def only(measure: Measure, names: Collection[str]) -> Measure:
    """``measure`` without the metrics that are not in ``names``."""

    def summarize(total: Tensor) -> dict[str, Metric]:
        return {name: metric for name, metric in measure.summarize(total).items() if name in names}

    metrics = {name: better for name, better in measure.metrics.items() if name in names}
    return measure._replace(metrics=metrics, summarize=summarize)
