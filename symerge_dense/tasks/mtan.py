"""The metrics of NYUv2 papers that follow MTAN (Liu, Johns, Davison, CVPR 2019, arXiv 1803.10704).

CAGrad, Nash-MTL and others evaluate with the same code. Only conventions differ from a task's own metrics, never names
or units:

- segmentation: a class in neither truth nor prediction is 0/0, so that mIoU is NaN;
- depth: pixels whose target is not 0, and the mean over batches of each batch's mean;
- normals: pixels whose target's components do not sum to 0, target not normalised, and the mean over batches of each
  batch's mean, median and fractions.

A mean of batch means depends on the batch size (MTAN tests with 2), on which images share a batch, and on how
processes share the images: that is the convention itself. A batch without labelled pixel makes it NaN. LibMTL and
FusionBench use these masks, but average depth and normals over all pixels of the data set.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor

from symerge_dense.tasks.base import DenseTask, Metric


class MTANTask(DenseTask):
    """A task that the protocol covers: a second set of what ``DenseTask`` declares for measuring."""

    @abstractmethod
    def mtan_statistics(self, output: Tensor, target: Tensor) -> Tensor:
        """Additive statistics, float64 (N,K), of one batch of the protocol: raw output (N,C,H,W), ground truth."""

    @abstractmethod
    def mtan_summarize(self, total: Tensor) -> dict[str, Metric]:
        """Metrics of summed ``mtan_statistics`` (K,), with the names, order and units of ``summarize``."""

    def mtan_remarks(self, total: Tensor) -> list[str]:
        """Sentences that a reader of the metrics must know."""
        return []


class BatchMeans(MTANTask):
    """A task whose metrics are unweighted means over batches."""

    @abstractmethod
    def mtan_batch(self, output: Tensor, target: Tensor) -> Sequence[float]:
        """Metrics of one batch, ordered as ``metrics``; NaN where no pixel is labelled."""

    def mtan_statistics(self, output: Tensor, target: Tensor) -> Tensor:
        """Row 0: [1 batch, its metrics]; every other row is 0.

        There is one row per image because MMEngine counts records by image (it cuts them to the data set's length).
        """
        rows = output.new_zeros((len(output), 1 + len(self.metrics)), device="cpu").double()
        rows[0] = rows.new_tensor([1.0, *self.mtan_batch(output, target)])
        return rows

    def mtan_summarize(self, total: Tensor) -> dict[str, Metric]:
        """Sums of the batches' metrics over the number of batches."""
        return self.table(*(total[1:] / total[0]).tolist())

    def mtan_remarks(self, total: Tensor) -> list[str]:
        """Why a mean is NaN."""
        return ["NaN under protocol 'mtan': a batch without labelled pixel, or a prediction or target that is NaN; "
                "larger batches or protocol 'default' help against the first"] if total.isnan().any() else []
