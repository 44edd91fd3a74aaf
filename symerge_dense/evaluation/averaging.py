"""How the published code of MTAN's family turns pixels into one number of a data set: three rules, one mask.

Depth and normals only: all of them take segmentation from one confusion matrix of the data set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from symerge_dense.evaluation.measure import Measure, only
from symerge_dense.tasks.base import Metric
from symerge_dense.tasks.mtan import BatchMeans, MTANTask


def over_pixels(task: MTANTask) -> Measure:
    """LibMTL and FusionBench: mean, median and fractions over all labelled pixels; batches do not matter.

    LibMTL weighs a depth batch's mean with its number of labelled pixels, which is that mean, but for a batch without
    any: there its 0 * NaN is NaN, and ours has no effect. The median is read from a histogram of 0.01-degree bins and
    so within 0.005 degree of the exact one; everything else is exact.
    """
    return Measure(task.metrics, task.mtan_statistics, task.mtan_summarize, task.mtan_remarks)


def over_batches(task: MTANTask) -> Measure:
    """MTAN, CAGrad and Nash-MTL: the mean over batches of each batch's mean, median and fractions, unweighted."""
    return _batchwise(task, lambda images: 1.0)


def over_images(task: MTANTask) -> Measure:
    """auto-lambda: the same with each batch weighing as many as it has images. It computes one metric per task.

    Its running mean says so where all batches but the last have the same size, as a loader's do.
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

    It depends on the batch size (MTAN tests with 2, auto-lambda with 4), on which images share a batch, and on how
    processes share the images: that is the convention itself. A batch without labelled pixel makes it NaN.
    """

    task: BatchMeans
    weight: Callable[[int], float]

    def statistics(self, output: Tensor, target: Tensor) -> Tensor:
        """Row 0: [weight of the batch, weight times its metrics]; every other row is 0.

        There is one row per image because MMEngine counts records by image (it cuts them to the data set's length).
        """
        rows = output.new_zeros((len(output), 1 + len(self.task.metrics)), device="cpu").double()
        rows[0] = self.weight(len(output)) * rows.new_tensor([1.0, *self.task.mtan_batch(output, target)])
        return rows

    def summarize(self, total: Tensor) -> dict[str, Metric]:
        """Weighted sums of the batches' metrics over the sum of weights."""
        return self.task.table(*(total[1:] / total[0]).tolist())

    def remarks(self, total: Tensor) -> list[str]:
        """Why a mean is NaN."""
        return ["NaN in a mean over batches: a batch without labelled pixel, or a prediction or target that is NaN; "
                "larger batches or protocol 'libmtl' help against the first"] if total.isnan().any() else []
