"""The metrics of depth papers, from Eigen, Puhrsch, Fergus, NeurIPS 2014, arXiv 1406.2283, section 3.2.

Means go over all pixels of the data set, as the paper defines them. Much code (BTS, AdaBins and what came of them)
averages each image first and then the images: the two differ by a few percent of a value, so say which one you report.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from symerge_dense.tasks.base import DenseTask, Metric
from symerge_dense.tasks.regression import pixel_sums

FRAME = (480, 640)
CROP = (45, 471, 41, 601)  # rows and columns of FRAME
NEAREST, FARTHEST = 1e-3, 10.0  # metres, NYUv2
FACTORS = (1.25, 1.25 ** 2, 1.25 ** 3)


def eigen_crop(size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of an (H,W) map that show what Eigen's crop of the 480 x 640 frame shows, ends rounded."""
    (height, width), (top, bottom, left, right) = size, CROP
    rows = slice(round(top * height / FRAME[0]), round(bottom * height / FRAME[0]))
    return rows, slice(round(left * width / FRAME[1]), round(right * width / FRAME[1]))


class EigenDepth(DenseTask):
    """A depth in metres that can be measured as depth papers do, over the valid pixels inside Eigen's crop.

    The crop is that of a whole NYUv2 frame, at any resolution; frames that were cropped before lose a second border.
    Truth outside 1e-3..10 m is left out, predictions are clamped to it, as public evaluation code has it.
    ``eigen_metrics``: ``abs`` mean |p-g| (m), ``rel`` mean |p-g|/g (fraction), ``rmse`` (m), ``rmse_log`` the same of
    natural logarithms, ``log10`` mean |log10 p - log10 g|, ``delta<k>`` percent with max(p/g, g/p) < 1.25^k.
    """

    eigen_metrics: ClassVar[dict[str, bool]] = {
        "abs": False, "rel": False, "rmse": False, "rmse_log": False, "log10": False,
        "delta1": True, "delta2": True, "delta3": True}

    def eigen_statistics(self, output: Tensor, target: Tensor) -> Tensor:
        """Rows [pixels, sums of |e|, |e|/g, e^2, squared and absolute log ratio, pixels within each factor]."""
        rows, columns = eigen_crop((target.shape[-2], target.shape[-1]))
        depth = target[:, 0, rows, columns]
        mask = self.valid(target)[:, rows, columns] & (depth >= NEAREST) & (depth <= FARTHEST)
        truth = depth.double().clamp(NEAREST, FARTHEST)
        prediction = output[:, 0, rows, columns].double().clamp(NEAREST, FARTHEST)
        error, ratio = (prediction - truth).abs(), (prediction / truth).log().abs()
        close = [(torch.maximum(prediction / truth, truth / prediction) < factor).double() for factor in FACTORS]
        return pixel_sums(mask, error, error / truth, error.square(), ratio.square(), ratio, *close)

    def eigen_summarize(self, total: Tensor) -> dict[str, Metric]:
        """The metrics of summed ``eigen_statistics``, keyed and ordered as ``eigen_metrics``."""
        absolute, relative, square, log_square, log, *close = (total[1:] / total[0]).tolist()
        values = [absolute, relative, square ** 0.5, log_square ** 0.5, log / math.log(10), *(100 * x for x in close)]
        return {name: Metric(value, better)
                for (name, better), value in zip(self.eigen_metrics.items(), values, strict=True)}
