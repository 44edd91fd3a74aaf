"""Metrics by published protocols, beside a task's own: the family of MTAN, and Eigen's depth metrics.

MTAN (Liu, Johns, Davison, CVPR 2019, arXiv 1803.10704), LibMTL and auto-lambda measure a pixel in the same way, and
share nothing else; names and units are a task's own:

- segmentation: a class in neither truth nor prediction is 0/0, so that mIoU is NaN;
- depth: pixels whose target is not 0;
- normals: pixels whose target's components do not sum to 0; the target is not normalised.

Each of them averages pixels into one number in its own way, see ``symerge_dense.evaluation.protocols``. A task defines
here what they have in common.

Eigen, Puhrsch, Fergus, NeurIPS 2014, arXiv 1406.2283, section 3.2: means go over all pixels of the data set, as the
paper defines them. Much code (BTS, AdaBins and their successors) averages each image first and then the images: the
two differ by a few percent of a value, so say which one you report.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from symerge_dense.datasets.targets import EIGEN_CROP, NYU_FRAME
from symerge_dense.tasks.base import DenseTask
from symerge_dense.tasks.metric import Metric
from symerge_dense.tasks.regression import pixel_sums


# -- MTAN, LibMTL, auto-lambda ----------------------------------------------------------------------------------------
def labelled(target: Tensor) -> Tensor:
    """The family's mask, bool (N,H,W): the channels of a target do not sum to 0.

    Args:
        target: (N,C,H,W).
    """
    return target.sum(dim=1) != 0


class MTANTask(DenseTask):
    """A task with the MTAN family's metrics: a second set of the measuring methods of ``DenseTask``."""

    @abstractmethod
    def mtan_statistics(self, output: Tensor, target: Tensor) -> Tensor:
        """Additive statistics of each image, in which every pixel that the family counts weighs the same.

        Args:
            output: raw head output (N,C,H,W).
            target: ground truth of the same size.

        Returns:
            float64 (N,K).
        """

    @abstractmethod
    def mtan_summarize(self, total: Tensor) -> dict[str, Metric]:
        """Metrics with the names, order and units of ``summarize``.

        Args:
            total: sum of the rows of ``mtan_statistics``, (K,).
        """

    def mtan_remarks(self, total: Tensor) -> list[str]:
        """Sentences that a reader of the metrics must know; none by default.

        Args:
            total: sum of the rows of ``mtan_statistics``, (K,).
        """
        return []


class BatchMeans(MTANTask):
    """A task whose metrics some members of the family average over batches; the others use dataset totals."""

    def mtan_batch(self, output: Tensor, target: Tensor) -> Sequence[float]:
        """Metrics of one batch.

        Args:
            output: raw head output (N,C,H,W).
            target: ground truth of the same size.

        Returns:
            values ordered as ``metrics``; NaN where no pixel is labelled.
        """
        total = self.mtan_statistics(output, target).sum(0)
        return [metric.value for metric in self.mtan_summarize(total).values()]


# -- depth papers -----------------------------------------------------------------------------------------------------
NEAREST, FARTHEST = 1e-3, 10.0  # metres, NYUv2
FACTORS = (1.25, 1.25**2, 1.25**3)


def eigen_crop(size: tuple[int, int]) -> tuple[slice, slice]:
    """The part of a map that shows what Eigen's crop of the 480 x 640 frame shows, ends rounded.

    Args:
        size: (H, W) of the map.

    Returns:
        rows and columns.
    """
    (height, width), (top, bottom, left, right) = size, EIGEN_CROP
    rows = slice(round(top * height / NYU_FRAME[0]), round(bottom * height / NYU_FRAME[0]))
    return rows, slice(round(left * width / NYU_FRAME[1]), round(right * width / NYU_FRAME[1]))


class EigenDepth(DenseTask):
    """A depth in metres that can be measured as depth papers do, over the valid pixels inside Eigen's crop.

    The crop is that of a whole NYUv2 frame, at any resolution; frames that were cropped before lose a second border.
    As in public evaluation code, truth outside 1e-3..10 m is left out and predictions are clamped to that range.

    Attributes:
        eigen_metrics: ``abs`` mean |p-g| (m), ``rel`` mean |p-g|/g (fraction), ``rmse`` (m), ``rmse_log`` the same of
            natural logarithms, ``log10`` mean |log10 p - log10 g|, ``delta<k>`` percent with
            max(p/g, g/p) < 1.25^k.
    """

    eigen_metrics: ClassVar[dict[str, bool]] = {
        "abs": False,
        "rel": False,
        "rmse": False,
        "rmse_log": False,
        "log10": False,
        "delta1": True,
        "delta2": True,
        "delta3": True,
    }

    def eigen_statistics(self, output: Tensor, target: Tensor) -> Tensor:
        """Rows [pixels, sums of |e|, |e|/g, e^2, squared and absolute log ratio, pixels within each factor].

        Args:
            output: predicted metres (N,1,H,W).
            target: true metres (N,1,H,W).
        """
        rows, columns = eigen_crop((target.shape[-2], target.shape[-1]))
        depth = target[:, 0, rows, columns]
        mask = self.valid(target)[:, rows, columns] & (depth >= NEAREST) & (depth <= FARTHEST)
        truth = depth.double().clamp(NEAREST, FARTHEST)
        prediction = output[:, 0, rows, columns].double().clamp(NEAREST, FARTHEST)
        error, ratio = (prediction - truth).abs(), (prediction / truth).log().abs()
        close = [(torch.maximum(prediction / truth, truth / prediction) < factor).double() for factor in FACTORS]
        return pixel_sums(mask, error, error / truth, error.square(), ratio.square(), ratio, *close)

    def eigen_summarize(self, total: Tensor) -> dict[str, Metric]:
        """Metrics keyed and ordered as ``eigen_metrics``.

        Args:
            total: sum of the rows of ``eigen_statistics``, (K,).
        """
        absolute, relative, square, log_square, log, *close = (total[1:] / total[0]).tolist()
        values = [absolute, relative, square**0.5, log_square**0.5, log / math.log(10), *(100 * x for x in close)]
        return {
            name: Metric(value, better)
            for (name, better), value in zip(self.eigen_metrics.items(), values, strict=True)
        }
