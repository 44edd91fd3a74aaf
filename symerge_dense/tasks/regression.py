"""What tasks that predict numbers share: L1 loss and mean absolute error."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from symerge_dense.tasks.base import Array, DenseTask
from symerge_dense.tasks.colors import Legend, keep_black, paint_scale, scale_colors
from symerge_dense.tasks.metric import Metric
from symerge_dense.tasks.storage import PngStorage


class Regression(DenseTask):
    """A non-negative quantity of ``channels`` channels; a negative or non-finite channel makes the pixel invalid.

    The raw output is the value. Metric ``abs``: mean absolute error of the decided value over valid pixels and
    channels, in the unit of the target, whatever ``pixel_loss`` a subclass learns by.
    """

    metrics: ClassVar[dict[str, bool]] = {"abs": False}
    headline: ClassVar[str] = "abs"

    def valid(self, target: Tensor) -> Tensor:
        """Pixels whose every channel is finite and >= 0.

        Args:
            target: (N,C,H,W).
        """
        return ((target >= 0) & target.isfinite()).all(dim=1)

    def pixel_loss(self, output: Tensor, target: Tensor) -> Tensor:
        """L1, averaged over channels; 0 where the target is not finite.

        Args:
            output: raw head output (N,C,h,w).
            target: ground truth or self-label (N,C,h,w).
        """
        return absolute_error(output, target)

    def self_label(self, expert_output: Tensor, soft: bool = True) -> Tensor:
        """The expert's prediction.

        Args:
            expert_output: raw head output (N,C,h,w) of the expert.
            soft: makes no difference.
        """
        return expert_output.detach()

    def statistics(self, output: Tensor, target: Tensor) -> Tensor:
        """Rows [valid pixels, sum of absolute error (mean over channels)].

        Args:
            output: raw head output (N,C,H,W).
            target: (N,C,H,W).
        """
        mask = self.valid(target)
        return pixel_sums(mask, absolute_error(self.decide(output), target).double())

    def summarize(self, total: Tensor) -> dict[str, Metric]:
        """Metric ``abs``, the mean absolute error.

        Args:
            total: sum of the rows of ``statistics``, (2,).
        """
        return self.table(float(total[1] / total[0]))

    @property
    def invalid_value(self) -> float:
        """Any negative number would do."""
        return -1.0

    def limits(self, target: Tensor) -> tuple[float, float] | None:
        """Smallest and largest valid value of the first channel, or None where no pixel is valid.

        Args:
            target: target of ONE image, (C,H,W).
        """
        known = target[0][self.valid(target[None])[0]]
        return (float(known.min()), float(known.max())) if known.numel() else None

    def colorize(self, prediction: Tensor, limits: tuple[float, float] | None = None) -> Array:
        """The first channel on a colour scale, low yellow and high deep blue.

        Args:
            prediction: (C,H,W).
            limits: lowest and highest value, in the target's unit; None takes those of ``prediction``.
        """
        known = self.valid(prediction.detach().float().cpu()[None])[0]
        return keep_black(self._paint(prediction, limits), known)

    def colorize_prediction(self, prediction: Tensor, limits: tuple[float, float] | None = None) -> Array:
        """The first channel on the colour scale; a value outside, a negative one too, has the colour of its end.

        Args:
            prediction: (C,H,W).
            limits: as in ``colorize``.
        """
        return keep_black(self._paint(prediction, limits), prediction.isfinite().all(0))

    def _paint(self, prediction: Tensor, limits: tuple[float, float] | None) -> Array:
        value = prediction.detach().float().cpu()
        return paint_scale(value[0], *(limits or self.limits(value) or (0.0, 1.0)))

    @classmethod
    def metric_unit(cls, metric: str) -> str:
        """That of the task's values, of an absolute error.

        Args:
            metric: its name.
        """
        return cls.unit if metric == "abs" else ""

    def legend(self, limits: tuple[float, float] | None = None) -> Legend:
        """The colour scale.

        Args:
            limits: its ends; None leaves them open.
        """
        low, high = limits or (None, None)
        return Legend(colors=scale_colors(), low=low, high=high, unit=self.unit)

    @property
    def storage(self) -> PngStorage:
        """Thousandths, 16 bits: 0 to 65.534; 0 is stored for 'no label'."""
        return PngStorage("uint16", scale=1e-3, offset=-1e-3, marker=self.invalid_value)


class Positive(Regression):
    """A quantity that is positive wherever it is known; a target <= 0 or not finite is invalid."""

    def valid(self, target: Tensor) -> Tensor:
        """Pixels whose every channel is finite and > 0.

        Args:
            target: (N,C,H,W).
        """
        return ((target > 0) & target.isfinite()).all(dim=1)

    @property
    def invalid_value(self) -> float:
        """No measurement."""
        return 0.0

    @property
    def storage(self) -> PngStorage:
        """Thousandths, 16 bits, 0.001 to 65.535; 0 is stored for 'no label'."""
        return PngStorage("uint16", scale=1e-3, marker=self.invalid_value)


def at_level_of(output: Tensor, plain: Tensor) -> Tensor:
    """Positive raw outputs times one factor per image, with which the median ratio to ``plain`` is 1.

    A resized image looks nearer or farther, but how much of that a network believes depends on its training: on whether
    it goes by the size of things or by their place in the frame. The median over the image measures it.

    Args:
        output: (N,C,h,w).
        plain: of the same pixels, (N,C,h,w).

    Returns:
        float32 (N,C,h,w); an image without a pixel at which both are positive is left as it is.
    """
    output, plain = output.float(), plain.float()
    nothing = output.new_tensor(float("nan"))
    ratios = (plain / output).where((output > 0) & (plain > 0), nothing)
    factors = torch.stack([ratio.nanmedian() for ratio in ratios]).nan_to_num(1.0)
    return output * factors.view(-1, 1, 1, 1)


def absolute_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Absolute error of every pixel, averaged over channels; 0 where the target is not finite.

    Args:
        prediction: (N,C,h,w).
        target: (N,C,h,w).

    Returns:
        float32 (N,h,w).
    """
    target = target.float()
    finite = target.isfinite()
    error = (prediction.float() - target.where(finite, target.new_zeros(()))).abs()
    return error.where(finite, error.new_zeros(())).mean(dim=1)


def pixel_sums(mask: Tensor, *values: Tensor) -> Tensor:
    """Statistics of masked pixels: rows [pixels of ``mask``, sum of each of ``values`` over them].

    Args:
        mask: bool (N,H,W).
        *values: (N,H,W) each.

    Returns:
        float64 (N, 1 + len(values)).
    """
    return torch.stack([mask.sum((1, 2)).double(), *(masked_sum(value, mask) for value in values)], dim=1)


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum of the masked pixels of each image; what lies outside the mask, NaN included, has no effect.

    Args:
        values: (N,H,W).
        mask: bool (N,H,W).

    Returns:
        (N,).
    """
    return values.where(mask, values.new_zeros(())).sum((1, 2))
