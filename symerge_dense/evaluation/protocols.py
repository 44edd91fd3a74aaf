"""Which conventions a task is measured by: a mask, a way to average, and the columns of the table.

=============  ======================  =================================  =========================================
protocol       pixels                  average                            columns
=============  ======================  =================================  =========================================
default        a task's ``valid``      over pixels                        all of the task
mtan           target does not sum     over batches, unweighted           all of the task
libmtl         to 0, mIoU NaN where    over pixels (FusionBench as well)  all of the task
auto-lambda    a class is absent       over batches, by images            the headline of the task
eigen          inside Eigen's crop     over pixels                        those of depth papers; other tasks: default
=============  ======================  =================================  =========================================

Units never change. Published numbers of the middle three are fractions, or 100 times that; ours are percent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from symerge_dense.evaluation.averaging import over_batches, over_images, over_pixels
from symerge_dense.evaluation.measure import Measure, own
from symerge_dense.registry import TASKS, nearest
from symerge_dense.tasks.base import DenseTask
from symerge_dense.tasks.eigen import EigenDepth
from symerge_dense.tasks.mtan import MTANTask


def depth_papers(task: EigenDepth) -> Measure:
    """Depth as in Eigen et al. 2014, see ``symerge_dense.tasks.eigen``."""
    return Measure(task.eigen_metrics, task.eigen_statistics, task.eigen_summarize, task.remarks)


class Protocol(NamedTuple):
    """``covers``: the class of the tasks that ``convention`` measures; ``others``: what measures the rest, if any."""

    covers: type[Any]
    convention: Callable[[Any], Measure]
    others: Callable[[DenseTask], Measure] | None = None


PROTOCOLS = {
    "default": Protocol(DenseTask, own),
    "mtan": Protocol(MTANTask, over_batches),
    "libmtl": Protocol(MTANTask, over_pixels),
    "auto-lambda": Protocol(MTANTask, over_images),
    "eigen": Protocol(EigenDepth, depth_papers, others=own),
}


def measure(task: DenseTask, protocol: str = "default") -> Measure:
    """How ``protocol`` measures ``task``.

    Raises ValueError for an unknown protocol, and for a task that has no convention under it.
    """
    if protocol not in tuple(PROTOCOLS):
        raise ValueError(nearest(str(protocol), PROTOCOLS, "evaluation protocol"))
    covers, convention, others = PROTOCOLS[protocol]
    if isinstance(task, covers):
        return convention(task)
    if others is None:
        covered = ", ".join(name for name in TASKS if issubclass(TASKS[name], covers))
        raise ValueError(f"task {task.name!r} has no convention under protocol {protocol!r}, which covers {covered}; "
                         f"evaluate with protocol 'default', or leave the task out.")
    return others(task)
