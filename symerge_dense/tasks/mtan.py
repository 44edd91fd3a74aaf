"""The metrics of NYUv2 papers that follow MTAN (Liu, Johns, Davison, CVPR 2019, arXiv 1803.10704).

Their code shares how a pixel is measured, and only that; names and units are a task's own:

- segmentation: a class in neither truth nor prediction is 0/0, so that mIoU is NaN;
- depth: pixels whose target is not 0;
- normals: pixels whose target's components do not sum to 0; the target is not normalised.

How pixels become one number differs: MTAN, LibMTL and auto-lambda each average in their own way, as
``symerge_dense.evaluation.averaging`` tells. A task says here what they have in common.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor

from symerge_dense.tasks.base import DenseTask, Metric


def labelled(target: Tensor) -> Tensor:
    """The family's mask, bool (N,H,W): the channels of a target (N,C,H,W) do not sum to 0."""
    return target.sum(dim=1) != 0


class MTANTask(DenseTask):
    """A task that the family covers: a second set of what ``DenseTask`` declares for measuring."""

    @abstractmethod
    def mtan_statistics(self, output: Tensor, target: Tensor) -> Tensor:
        """Additive per-image statistics, float64 (N,K), in which every pixel that the family counts weighs the same."""

    @abstractmethod
    def mtan_summarize(self, total: Tensor) -> dict[str, Metric]:
        """Metrics of summed ``mtan_statistics`` (K,), with the names, order and units of ``summarize``."""

    def mtan_remarks(self, total: Tensor) -> list[str]:
        """Sentences that a reader of the metrics must know."""
        return []


class BatchMeans(MTANTask):
    """A task whose metrics some of the family average over batches; the others' come from dataset totals."""

    def mtan_batch(self, output: Tensor, target: Tensor) -> Sequence[float]:
        """Metrics of one batch, ordered as ``metrics``; NaN where no pixel is labelled."""
        total = self.mtan_statistics(output, target).sum(0)
        return [metric.value for metric in self.mtan_summarize(total).values()]
