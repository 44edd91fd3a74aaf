"""Which conventions a task is measured by."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from symerge_dense.registry import nearest
from symerge_dense.tasks.base import DenseTask, Metric
from symerge_dense.tasks.mtan import MTANTask

PROTOCOLS = ("default", "mtan")


class Measure(NamedTuple):
    """What a metric needs of a task, with the meaning of the methods of ``DenseTask`` of these names."""

    statistics: Callable[[Tensor, Tensor], Tensor]
    summarize: Callable[[Tensor], dict[str, Metric]]
    remarks: Callable[[Tensor], list[str]]


def measure(task: DenseTask, protocol: str = "default") -> Measure:
    """``task`` by its own rules or by those of ``'mtan'``.

    Raises ValueError for an unknown protocol, and for a task that has no published convention.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(nearest(protocol, PROTOCOLS, "evaluation protocol"))
    if protocol == "default":
        return Measure(task.statistics, task.summarize, task.remarks)
    if not isinstance(task, MTANTask):
        raise ValueError(f"task {task.name!r} has no convention under protocol 'mtan', which covers segmentation, "
                         f"depth and normals; evaluate with protocol 'default', or leave the task out.")
    return Measure(task.mtan_statistics, task.mtan_summarize, task.mtan_remarks)
