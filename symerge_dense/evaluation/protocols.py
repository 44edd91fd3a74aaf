"""Published conventions of measuring a task: which pixels count, how to average, which metrics to report.

=============  ======================  =================================  =========================================
protocol       pixels                  average                            columns
=============  ======================  =================================  =========================================
default        a task's ``valid``      over pixels                        all of the task
mtan           target does not sum     over batches, unweighted           all of the task
libmtl         to 0, mIoU NaN where    over pixels (FusionBench as well)  all of the task
auto-lambda    a class is absent       over batches, by images            the headline of the task
eigen          inside Eigen's crop     over pixels                        those of depth papers; other tasks: default
=============  ======================  =================================  =========================================

Units never change: shares are in percent. Published numbers of the middle three are fractions, or 100 times that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from symerge_dense.registry import TASKS, did_you_mean
from symerge_dense.tasks.base import DenseTask
from symerge_dense.tasks.metric import Metric
from symerge_dense.tasks.protocols import BatchMeans, EigenDepth, MTANTask


class Measure(NamedTuple):
    """A convention for one task. The functions mean the same as the methods of ``DenseTask`` with these names.

    Args:
        metrics: name -> True where higher is better, in table order.
        statistics: raw output (N,C,H,W), target -> additive statistics (N,K), one row per image.
        summarize: summed statistics (K,) -> metrics.
        remarks: summed statistics (K,) -> sentences that a reader must know.
    """

    metrics: dict[str, bool]
    statistics: Callable[[Tensor, Tensor], Tensor]
    summarize: Callable[[Tensor], dict[str, Metric]]
    remarks: Callable[[Tensor], list[str]]


def own(task: DenseTask) -> Measure:
    """The task's own rules.

    Args:
        task: any task.
    """
    return Measure(task.metrics, task.statistics, task.summarize, task.remarks)


def only(measure: Measure, names: Collection[str]) -> Measure:
    """A measure with some of its metrics only.

    Args:
        measure: the complete measure.
        names: of the metrics to keep.
    """

    def summarize(total: Tensor) -> dict[str, Metric]:
        return {name: metric for name, metric in measure.summarize(total).items() if name in names}

    metrics = {name: better for name, better in measure.metrics.items() if name in names}
    return measure._replace(metrics=metrics, summarize=summarize)


# -- three ways to average over a data set, as MTAN and its successors do it; they share one mask ---------------------
def over_pixels(task: MTANTask) -> Measure:
    """LibMTL and FusionBench: mean, median and fractions over all labelled pixels; batches do not matter.

    LibMTL weights the depth error of a batch by its number of labelled pixels, which gives the same mean. The exception
    is a batch without any: LibMTL's mean is then NaN (0 * NaN), and ours ignores the batch. The median is read from a
    histogram of 0.01-degree bins, so it is within 0.005 degree of the exact one. Everything else is exact.

    Args:
        task: a task with MTAN's metrics.
    """
    return Measure(task.metrics, task.mtan_statistics, task.mtan_summarize, task.mtan_remarks)


def over_batches(task: MTANTask) -> Measure:
    """MTAN, CAGrad and Nash-MTL: the unweighted mean, over batches, of each batch's mean, median and fractions.

    Args:
        task: a task with MTAN's metrics.
    """
    return _batchwise(task, lambda images: 1.0)


def over_images(task: MTANTask) -> Measure:
    """auto-lambda: as ``over_batches``, with a batch weighted by its number of images, and one metric per task.

    auto-lambda computes a running mean, which is the same if all batches but the last have the same size.

    Args:
        task: a task with MTAN's metrics.
    """
    return only(_batchwise(task, float), (task.headline,))


def _batchwise(task: MTANTask, weight: Callable[[int], float]) -> Measure:
    if not isinstance(task, BatchMeans):
        return over_pixels(task)
    rule = _BatchAverage(task, weight)
    return Measure(task.metrics, rule.statistics, rule.summarize, rule.remarks)


@dataclass(frozen=True)
class _BatchAverage:
    """Mean of a task's results on single batches, weighted by ``weight`` (number of images -> weight).

    By its definition, it depends on the batch size (MTAN tests with 2, auto-lambda with 4), on which images share a
    batch, and on how processes share the images. A batch without labelled pixels makes it NaN.
    """

    task: BatchMeans
    weight: Callable[[int], float]

    def statistics(self, output: Tensor, target: Tensor) -> Tensor:
        """Row 0: [weight of the batch, weight times its metrics]; every other row is 0.

        There is one row per image because MMEngine cuts the records to the data set's length.
        """
        rows = output.new_zeros((len(output), 1 + len(self.task.metrics)), device="cpu").double()
        rows[0] = self.weight(len(output)) * rows.new_tensor([1.0, *self.task.mtan_batch(output, target)])
        return rows

    def summarize(self, total: Tensor) -> dict[str, Metric]:
        """Weighted sums of the batches' metrics over the sum of weights."""
        return self.task.table(*(total[1:] / total[0]).tolist())

    def remarks(self, total: Tensor) -> list[str]:
        """Why a mean is NaN."""
        return (
            [
                "NaN in a mean over batches: a batch without labelled pixel, or a prediction or target that is NaN; "
                "larger batches or protocol 'libmtl' help against the first"
            ]
            if total.isnan().any()
            else []
        )


# -- the protocols ----------------------------------------------------------------------------------------------------
def depth_papers(task: EigenDepth) -> Measure:
    """Depth as in Eigen et al. 2014, see ``symerge_dense.tasks.protocols``.

    Args:
        task: depth in metres.
    """
    return Measure(task.eigen_metrics, task.eigen_statistics, task.eigen_summarize, task.remarks)


class Protocol(NamedTuple):
    """A protocol: which convention measures which tasks.

    Args:
        covers: class of the tasks that ``convention`` measures.
        convention: task -> measure.
        others: measures all other tasks; None: the protocol does not cover them.
    """

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
    """The measure of a task under a protocol.

    Args:
        task: the task.
        protocol: 'default', 'mtan', 'libmtl', 'auto-lambda' or 'eigen'.

    Raises:
        ValueError: the protocol is unknown or does not cover the task.
    """
    if protocol not in tuple(PROTOCOLS):
        raise ValueError(did_you_mean(str(protocol), PROTOCOLS, "evaluation protocol"))
    covers, convention, others = PROTOCOLS[protocol]
    if isinstance(task, covers):
        return convention(task)
    if others is None:
        covered = ", ".join(name for name in TASKS if issubclass(TASKS[name], covers))
        raise ValueError(
            f"task {task.name!r} has no convention under protocol {protocol!r}, which covers {covered}; "
            f"evaluate with protocol 'default', or leave the task out."
        )
    return others(task)
