"""The dense task contract, which data, training, adaptation, metrics and pictures are written against.

Shape legend: N images, C channels, H x W image size, h x w a head's own resolution, K entries of a statistics row.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from symerge_dense.tasks.metric import Metric
from symerge_dense.tasks.plausibility import outside_classes
from symerge_dense.tasks.predictions import Predictions
from symerge_dense.tasks.storage import Array as Array

MOVES = ("mirror", "zoom", "rotation", "stretch", "warp")
"""What a view can do to the frame: a stretch is a zoom that differs between the axes, a warp is anything else."""


class DenseTask(Predictions):
    """A dense prediction task: one value or vector per pixel.

    What concerns predictions alone is in ``Predictions``: averages of views, files, pictures.

    Attributes:
        name: registry key, sample key and table heading.
        metrics: metric name -> True where higher is better, in table order.
        headline: the metric that enters Delta_m.
        delta_metrics: the published metrics, which enter Delta_m where its definition takes several; None means all.
        interpolation: how a target may be resized: 'nearest', or 'masked' (bilinear over valid neighbours only).
        source: the data set's target that ``derive`` makes this task's labels from; None means the task's own name.
        moves: movements of pixels whose effect on the values is known, out of ``MOVES``: 'mirror' changes them as
            ``flip`` says, 'zoom' as ``zoom`` (a 'stretch' by the mean of both axes), 'rotation' as ``rotate``, 'warp'
            not at all.
        class_map: whether targets are class numbers, (H,W) of an integer type; else they are float32, (H,W) or (H,W,C).
        image_level: whether one label holds for the whole image: targets are then maps that are the same everywhere,
            and the head gives (N,C,1,1).
        channels: C, the number of channels that a head of this task must give.
    """

    image_level: ClassVar[bool] = False
    metrics: ClassVar[dict[str, bool]]
    headline: ClassVar[str]
    delta_metrics: ClassVar[tuple[str, ...] | None] = None
    interpolation: ClassVar[Literal["nearest", "masked"]] = "nearest"
    source: ClassVar[str | None] = None
    moves: ClassVar[frozenset[str]] = frozenset({"mirror", "zoom"})

    # -- learning ---------------------------------------------------------------------------------------------------
    @abstractmethod
    def valid(self, target: Tensor) -> Tensor:
        """Pixels that carry a label.

        Args:
            target: a batch of ground truth, as the data set gives it.

        Returns:
            bool (N,H,W).
        """

    @abstractmethod
    def pixel_loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Loss of every pixel, computed in float32.

        Values at invalid pixels are finite but meaningless; ``loss`` masks them. The loss of a soft label is the
        divergence from it (0 at a match).

        Args:
            output: raw head output (N,C,h,w).
            target: ground truth at the same h x w, or what ``self_label`` returned, in any float precision.

        Returns:
            (N,h,w).
        """

    def loss(self, output: Tensor, target: Tensor, valid: Tensor | None = None, weight: Tensor | None = None) -> Tensor:
        """Mean ``pixel_loss`` over valid pixels, a scalar; 0 with a zero gradient where no pixel is valid.

        Args:
            output: raw head output (N,C,h,w).
            target: ground truth or a self-label, at the same h x w.
            valid: bool (N,h,w), the pixels that count. None takes ``self.valid(target)``, which is right for ground
                truth. A self-label is valid everywhere: pass ``torch.ones`` or the confidence filter's choice.
            weight: (N,h,w), >= 0, for a weighted mean over the valid pixels; None weighs all alike.

        Raises:
            ValueError: output and target do not fit (see ``check``).
        """
        self.check(output, target)
        mask = self.valid(target) if valid is None else valid
        losses = self.pixel_loss(output, target)
        if weight is not None:
            shares = weight.where(mask, weight.new_zeros(()))
            total = torch.where(mask, losses, losses.new_zeros(())) * shares
            return total.sum() / shares.sum().clamp(min=torch.finfo(shares.dtype).tiny)
        return torch.where(mask, losses, losses.new_zeros(())).sum() / mask.sum().clamp(min=1)

    @abstractmethod
    def self_label(self, expert_output: Tensor, soft: bool = True) -> Tensor:
        """The label that the merged model learns from, made of an expert's raw output.

        The label carries no gradient, and must survive a round trip through float16 (a hard class id: through any
        integer type that holds it).

        Args:
            expert_output: raw head output (N,C,h,w) of the expert.
            soft: whether a classification task gives probabilities; regression ignores it.

        Returns:
            Regression: the prediction itself, (N,C,h,w). Classification: soft (N,C,h,w) probabilities, or the hard
            decision in the layout and dtype of ground truth (segmentation int64 (N,h,w), edges float (N,1,h,w) of 0/1).
        """

    def confidence(self, output: Tensor) -> Tensor | None:
        """Confidence in [0,1] per pixel, or None where the task has no such notion.

        Args:
            output: raw head output (N,C,h,w).

        Returns:
            (N,h,w), or None.
        """
        return None

    def entropy(self, output: Tensor) -> Tensor | None:
        """Entropy in nats per pixel, or None where the task predicts no distribution.

        Args:
            output: raw head output (N,C,h,w).

        Returns:
            (N,h,w), or None.
        """
        return None

    def rarity(self, label: Tensor, exponent: float, valid: Tensor) -> Tensor | None:
        """Weights that favour pixels of rare classes, of mean 1 over valid pixels, or None where there are no classes.

        Args:
            label: what ``self_label`` returned, for a whole batch.
            exponent: a class with the share s of all pixels weighs s ** -exponent: 0 weighs all pixels alike, 1 all
                classes.
            valid: bool (N,h,w), the pixels that have a label.

        Returns:
            (N,h,w), or None.
        """
        return None

    # -- measuring --------------------------------------------------------------------------------------------------
    @abstractmethod
    def statistics(self, output: Tensor, target: Tensor) -> Tensor:
        """Additive statistics of each image; sums over any split of a data set, in any order, give the same metrics.

        Args:
            output: raw head output (N,C,H,W).
            target: ground truth of the same size.

        Returns:
            float64 (N,K); K does not depend on the image.
        """

    @abstractmethod
    def summarize(self, total: Tensor) -> dict[str, Metric]:
        """Metrics of summed statistics.

        Args:
            total: sum of the rows of ``statistics``, (K,).

        Returns:
            Metrics keyed and ordered as ``metrics``; NaN where nothing was valid.
        """

    @classmethod
    def metric_unit(cls, metric: str) -> str:
        """Unit of a metric, as printed beside its name: '%', 'm'; empty where it has none.

        Args:
            metric: a name of ``metrics``, or of a protocol's.
        """
        return ""

    def remarks(self, total: Tensor) -> list[str]:
        """Sentences that a reader of the metrics must know; none by default.

        Args:
            total: sum of the rows of ``statistics``, (K,).
        """
        return []

    def table(self, *values: float) -> dict[str, Metric]:
        """Metrics with their names and directions.

        Args:
            *values: one value per entry of ``metrics``, in its order.
        """
        return {
            name: Metric(float(value), better)
            for (name, better), value in zip(self.metrics.items(), values, strict=True)
        }

    def check(self, output: Tensor, target: Tensor) -> None:
        """Check that an output and a target fit the task and each other.

        Args:
            output: raw head output; must be (N,C,h,w) with this task's C.
            target: ground truth or a self-label; must have the same N and h x w.

        Raises:
            ValueError: one of the shapes does not fit.
        """
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
    def derive(self, target: Array) -> Array:
        """This task's target, made from the data set's target that ``source`` names.

        Args:
            target: the data set's target, (H,W) or (H,W,C).

        Returns:
            This task's target, in the same layout rules.
        """
        return target

    def implausible(self, target: Array) -> str | None:
        """What cannot be true of a target, such as depth in another unit. Asked of every target that is read.

        Args:
            target: as ``derive`` gives it, (H,W) or (H,W,C).

        Returns:
            The end of a sentence "<file> is ...": what was found, what is expected and what to do. None where nothing
            is odd. By default, a class map is refused for numbers that are no class.
        """
        return outside_classes(target, self.channels, self.invalid_value) if self.class_map else None

    def rotate(self, target: Array, angle: float) -> Array:
        """Change the values for a rotation about the optical axis; the pixels themselves are already turned.

        Args:
            target: turned target, (H,W) or (H,W,C).
            angle: by which things are turned counter-clockwise, in radians.
        """
        return target
