"""Metric depth along the optical axis, in metres."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from symerge_dense.registry import TASKS
from symerge_dense.tasks.base import Array
from symerge_dense.tasks.metric import Metric
from symerge_dense.tasks.plausibility import negative, too_far
from symerge_dense.tasks.protocols import BatchMeans, EigenDepth, labelled
from symerge_dense.tasks.regression import Positive, at_level_of, pixel_sums

SMALLEST_DEPTH = 1e-6  # metres; a ratio needs a positive prediction


@TASKS.register_module()
class Depth(Positive, BatchMeans, EigenDepth):
    """Depth in metres; a target <= 0 or not finite is invalid. Loss: L1 on metres.

    Metrics over all valid pixels of the data set: ``abs`` mean |p-g| (m), ``rel`` mean |p-g|/g (fraction), ``rmse``
    (m), ``delta1`` percent of pixels with max(p/g, g/p) < 1.25 (Eigen et al. 2014, arXiv 1406.2283, section 3.2).

    Args:
        max_median: metres; a target whose median is above it is refused, as one of another unit.

    Raises:
        ValueError: ``max_median`` is not positive.

    >>> task = Depth()
    >>> truth = torch.tensor([[[[2.0, 4.0, 0.0]]]])  # (N,1,H,W); the last pixel has no label
    >>> total = task.statistics(truth + 0.5, truth).sum(0)
    >>> {name: metric.value for name, metric in task.summarize(total).items()}
    {'abs': 0.5, 'rel': 0.1875, 'rmse': 0.5, 'delta1': 50.0}
    """

    name: ClassVar[str] = "depth"
    moves: ClassVar[frozenset[str]] = frozenset({"mirror", "zoom", "rotation", "stretch"})
    unit: ClassVar[str] = "m"
    metrics: ClassVar[dict[str, bool]] = {"abs": False, "rel": False, "rmse": False, "delta1": True}
    delta_metrics: ClassVar[tuple[str, ...] | None] = ("abs", "rel")
    channels: int = 1

    def __init__(self, max_median: float = 100.0) -> None:
        if not max_median > 0:
            raise ValueError(f"max_median={max_median}: give a positive number of metres.")
        self.max_median = max_median

    @classmethod
    def metric_unit(cls, metric: str) -> str:
        """Metres, and percent of pixels within a factor.

        Args:
            metric: its name.
        """
        return cls.unit if metric in ("abs", "rmse") else "%" if metric.startswith("delta") else ""

    def implausible(self, target: Array) -> str | None:
        """A median above ``max_median``, millimetres in place of metres; or many different negative numbers.

        Args:
            target: metres (H,W) or (H,W,1).
        """
        return too_far(target, self.max_median) or negative(target)

    def statistics(self, output: Tensor, target: Tensor) -> Tensor:
        """Rows [valid pixels, sum |e|, sum |e|/g, sum e^2, pixels within a factor 1.25].

        Args:
            output: predicted metres (N,1,H,W).
            target: true metres (N,1,H,W).
        """
        return _sums(output, target, self.valid(target))

    def summarize(self, total: Tensor) -> dict[str, Metric]:
        """Metrics abs (m), rel (fraction), rmse (m), delta1 (percent).

        Args:
            total: sum of the rows of ``statistics``, (5,).
        """
        absolute, relative, square, close = (total[1:] / total[0]).tolist()
        return self.table(absolute, relative, square**0.5, 100 * close)

    def mtan_statistics(self, output: Tensor, target: Tensor) -> Tensor:
        """The same sums as ``statistics``, over pixels whose target is not 0; a negative one counts.

        Args:
            output: predicted metres (N,1,H,W).
            target: true metres (N,1,H,W).
        """
        return _sums(output, target, labelled(target))

    def mtan_summarize(self, total: Tensor) -> dict[str, Metric]:
        """The same metrics as ``summarize``; the family publishes ``abs`` and ``rel`` only.

        Args:
            total: sum of the rows of ``mtan_statistics``, (5,).
        """
        return self.summarize(total)

    def zoom(self, target: Array, scale: float) -> Array:
        """Divide by ``scale``: what looks that many times larger is that many times nearer.

        Args:
            target: metres (H,W).
            scale: zoom factor >= 1.
        """
        return (target / scale).astype(target.dtype)

    def rescale_output(self, output: Tensor, scale: float, plain: Tensor) -> Tensor:
        """The output at the level of the plain image's: one factor per image, see ``at_level_of``.

        Args:
            output: metres (N,1,h,w) of the resized image.
            scale: makes no difference: what a network makes of it is measured.
            plain: metres (N,1,h,w) of the image itself.
        """
        return at_level_of(output, plain)


def _sums(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    truth = target[:, 0].where(mask, target.new_ones(())).double()
    return pixel_sums(mask, *_errors(output[:, 0].double(), truth))


def _errors(prediction: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of every pixel: |e|, |e|/g, e^2, and 1 within a factor 1.25, else 0."""
    error = (prediction - truth).abs()
    positive = prediction.clamp(min=SMALLEST_DEPTH)
    close = torch.maximum(positive / truth, truth / positive) < 1.25
    return error, error / truth, error.square(), close.double()
