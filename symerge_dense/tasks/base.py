"""What a dense task is: the contract that data, training, adaptation, metrics and pictures are written against.

Shape legend: N images, C channels, H x W image size, h x w a head's own resolution, K entries of a statistics row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor

from symerge_dense.tasks.metric import Metric

Array = NDArray[Any]


class DenseTask(ABC):
    """A dense prediction task: one value or vector per pixel.

    Class attributes say what never changes: ``name`` (registry key, sample key, table heading), ``metrics``
    (metric name -> True where higher is better, in table order), ``headline`` (the metric that enters Delta_m) and
    ``delta_metrics`` (the published ones, which enter Delta_m where a definition of it takes several; None: all).
    ``source`` names the data set's target that ``derive`` makes this task's labels from; None is the task's own name.
    ``interpolation`` is how a target may be resized: 'nearest', or 'masked' (bilinear over valid neighbours only).
    ``channels`` is C, the width that a head of this task must give.
    """

    name: ClassVar[str]
    metrics: ClassVar[dict[str, bool]]
    headline: ClassVar[str]
    delta_metrics: ClassVar[tuple[str, ...] | None] = None
    interpolation: ClassVar[Literal["nearest", "masked"]] = "nearest"
    source: ClassVar[str | None] = None
    channels: int

    # -- learning ---------------------------------------------------------------------------------------------------
    @abstractmethod
    def valid(self, target: Tensor) -> Tensor:
        """Pixels that carry a label: bool (N,H,W), for a batch of ground truth as the data set gives it."""

    @abstractmethod
    def pixel_loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Loss of every pixel, (N,h,w), of a raw head output (N,C,h,w).

        ``target`` is ground truth at the same h x w, or what ``self_label`` returned, in any float precision. Values
        at invalid pixels are finite and of no meaning; ``loss`` masks them. A soft label's loss is the divergence
        from it (0 at a match). Computed in float32.
        """

    def loss(self, output: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """Mean ``pixel_loss`` over ``valid`` pixels (N,h,w), a scalar; 0 with a zero gradient where none is valid.

        ``valid=None`` asks ``self.valid(target)``: right for ground truth. A self-label is valid everywhere: pass
        ``torch.ones`` or the confidence filter's choice. Raises ValueError where output and target do not fit.
        """
        self.check(output, target)
        mask = self.valid(target) if valid is None else valid
        losses = self.pixel_loss(output, target)
        return torch.where(mask, losses, losses.new_zeros(())).sum() / mask.sum().clamp(min=1)

    @abstractmethod
    def self_label(self, expert_output: Tensor, soft: bool = True) -> Tensor:
        """An expert's raw output (N,C,h,w) as the label that the merged model learns from.

        Regression: the prediction itself, (N,C,h,w). Classification: soft (N,C,h,w) probabilities, or hard, the
        decision in the layout and dtype of ground truth (segmentation int64 (N,h,w), edges float (N,1,h,w) of 0/1).
        The label must survive a round trip through float16 (a hard class id: through any integer type that holds it).
        """

    def confidence(self, output: Tensor) -> Tensor | None:
        """Confidence in [0,1] per pixel (N,h,w) of a raw output, or None where the task has no such notion."""
        return None

    def entropy(self, output: Tensor) -> Tensor | None:
        """Entropy in nats per pixel (N,h,w) of a raw output, or None where the task predicts no distribution."""
        return None

    def decide(self, output: Tensor) -> Tensor:
        """Raw output (N,C,h,w) as the prediction that metrics and pictures use (class ids, metres, unit vectors)."""
        return output

    # -- measuring --------------------------------------------------------------------------------------------------
    @abstractmethod
    def statistics(self, output: Tensor, target: Tensor) -> Tensor:
        """Additive per-image statistics, float64 (N,K), of raw output (N,C,H,W) against ground truth.

        Row sums over any split of a data set, in any order, give the same metrics; K does not depend on the image.
        """

    @abstractmethod
    def summarize(self, total: Tensor) -> dict[str, Metric]:
        """Metrics of summed statistics (K,), keyed and ordered as ``metrics``; NaN where nothing was valid."""

    def remarks(self, total: Tensor) -> list[str]:
        """Sentences that a reader of the metrics of summed statistics (K,) must know; none by default."""
        return []

    def table(self, *values: float) -> dict[str, Metric]:
        """``values``, in the order of ``metrics``, with their names and directions."""
        return {
            name: Metric(float(value), better)
            for (name, better), value in zip(self.metrics.items(), values, strict=True)
        }

    def check(self, output: Tensor, target: Tensor) -> None:
        """Raise ValueError unless output is (N,C,h,w) with this task's C and the target has the same N and h x w."""
        if output.ndim != 4 or output.shape[1] != self.channels:
            raise ValueError(
                f"task {self.name!r} takes an output of shape (N, {self.channels}, h, w), got "
                f"{tuple(output.shape)}; give its head channels={self.channels}."
            )
        if target.shape[0] != output.shape[0] or target.shape[-2:] != output.shape[-2:]:
            raise ValueError(
                f"task {self.name!r}: target {tuple(target.shape)} does not fit output "
                f"{tuple(output.shape)}; resize one so that images, height and width agree."
            )

    # -- geometry of one ground-truth target (numpy, as stored in a sample: (H,W) or (H,W,C)) -------------------------
    @property
    @abstractmethod
    def invalid_value(self) -> float:
        """The value that marks a pixel without label."""

    def derive(self, target: Array) -> Array:
        """This task's target, in the same layout rules, from the data set's target named by ``source``."""
        return target

    def flip(self, target: Array) -> Array:
        """Value change under a horizontal mirror; the pixels themselves are already mirrored."""
        return target

    def zoom(self, target: Array, scale: float) -> Array:
        """Value change under a zoom by ``scale`` >= 1; the pixels themselves are already zoomed."""
        return target

    # -- looking ----------------------------------------------------------------------------------------------------
    def limits(self, target: Tensor) -> tuple[float, float] | None:
        """Colour range of ONE image's target, to give every panel of a row; None where the task's range is fixed."""
        return None

    @abstractmethod
    def colorize(self, prediction: Tensor, limits: tuple[float, float] | None = None) -> Array:
        """A decided prediction or a target of ONE image (a row of ``decide``, a sample's entry) as uint8 (H,W,3) RGB.

        Invalid pixels are black. ``limits`` is the value range that the colours span, for tasks without a fixed one;
        None takes the image's own.
        """
