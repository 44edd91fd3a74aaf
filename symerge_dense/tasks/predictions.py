"""What can be done with a task's predictions: views averaged, a mirrored one turned back, a file, a picture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from symerge_dense.tasks.colors import Legend, keep_black
from symerge_dense.tasks.storage import Array, PngStorage


class Predictions(ABC):
    """The part of ``DenseTask`` that speaks of predictions, with defaults that work for any task.

    Attributes:
        name: registry key, sample key and table heading.
        unit: of decided values, as printed beside them ('m'); empty where there is none.
        class_map: whether targets are class numbers, (H,W) of an integer type; else they are float32, (H,W) or (H,W,C).
        channels: C, the number of channels that a head of this task must give.
    """

    name: ClassVar[str]
    unit: ClassVar[str] = ""
    class_map: ClassVar[bool] = False
    channels: int

    @property
    @abstractmethod
    def invalid_value(self) -> float:
        """The value that marks a pixel without label."""

    def decide(self, output: Tensor) -> Tensor:
        """The prediction that metrics and pictures use (class ids, metres, unit vectors).

        Args:
            output: raw head output (N,C,h,w).
        """
        return output

    # -- several views of one image ---------------------------------------------------------------------------------
    def average(self, outputs: Sequence[Tensor], weights: Sequence[float] | None = None) -> tuple[Tensor, Tensor]:
        """One raw output from those of several views of the same images, mapped back to the same pixels.

        Numbers are averaged as they are; a task that predicts probabilities averages these, normals average unit
        vectors. Views that agree give what each of them gives. A task whose outputs have no average raises a
        ValueError here, whatever it is given: several views of it are then refused before any work.

        Args:
            outputs: raw outputs (N,C,h,w), one per view.
            weights: one number >= 0 per view; None weighs all alike.

        Returns:
            The average, a raw output float32 (N,C,h,w), and the variance of what was averaged over the views, summed
            over its channels, float32 (N,h,w).

        Raises:
            ValueError: there are no views, their shapes differ, or the weights do not fit them.
        """
        return moments(outputs, weights)

    def flip(self, target: Array) -> Array:
        """Change the values for a horizontal mirror; the pixels themselves are already mirrored.

        Args:
            target: mirrored target, (H,W) or (H,W,C).
        """
        return target

    def zoom(self, target: Array, scale: float) -> Array:
        """Change the values for a zoom; the pixels themselves are already zoomed.

        Args:
            target: zoomed target, (H,W) or (H,W,C).
            scale: zoom factor >= 1; below 1 for the way back.
        """
        return target

    def mirror_output(self, output: Tensor) -> Tensor:
        """The raw output of an image, from that of the mirrored image: pixels turned back, values as ``flip`` says.

        A class map's channels change places as ``flip`` changes its class numbers. A task whose raw output is no
        value that ``flip`` could change says here what happens to it.

        Args:
            output: raw head output (N,C,h,w) of the horizontally mirrored image.

        Returns:
            (N,C,h,w).
        """
        turned = output.flip(-1)
        if type(self).flip is Predictions.flip:
            return turned
        if self.class_map:
            classes = self.flip(np.arange(self.channels)[None])[0]
            return turned[:, torch.from_numpy(np.argsort(classes)).to(output.device)]
        return _as_targets(turned, self.flip)

    def rescale_output(self, output: Tensor, scale: float, plain: Tensor) -> Tensor:
        """The raw output of an image, from that of the enlarged or reduced image: values as ``zoom`` says.

        A displacement in pixels is divided by the scale. Where an expert's answer to a resized image is not known in
        advance, as for depth, a task compares it with ``plain``. One whose raw output is no value that ``zoom`` could
        change says here what happens to it.

        Args:
            output: raw head output (N,C,h,w) of the resized image, mapped back to the pixels of ``plain``.
            scale: by which the image was enlarged, > 0.
            plain: raw head output (N,C,h,w) of the image itself.

        Returns:
            (N,C,h,w).
        """
        if self.class_map or type(self).zoom is Predictions.zoom:
            return output
        return _as_targets(output, lambda target: self.zoom(target, 1 / scale))

    # -- files and pictures -----------------------------------------------------------------------------------------
    @property
    def storage(self) -> PngStorage:
        """How decided values are kept in a PNG file.

        Class numbers are kept as they are. Else nothing is known of the range: 16 bits from -512 to 512 in steps of
        1/64, as in KITTI's optical flow; a task that knows more says so.
        """
        if self.class_map:
            return PngStorage("uint8", invalid=int(self.invalid_value), marker=self.invalid_value, class_map=True)
        return PngStorage("uint16", scale=1 / 64, offset=-512.0, marker=self.invalid_value)

    def limits(self, target: Tensor) -> tuple[float, float] | None:
        """Colour range for every panel of one image's row; None where the task's range is fixed.

        Args:
            target: target of ONE image, as in a sample.
        """
        return None

    @abstractmethod
    def colorize(self, prediction: Tensor, limits: tuple[float, float] | None = None) -> Array:
        """Paint a target or a decided prediction of ONE image; pixels that are invalid in a target are black.

        Args:
            prediction: a row of ``decide``, or a sample's entry.
            limits: value range that the colours span, for tasks without a fixed one; None takes the image's own.

        Returns:
            uint8 (H,W,3) RGB.
        """

    def colorize_prediction(self, prediction: Tensor, limits: tuple[float, float] | None = None) -> Array:
        """Paint a decided prediction of ONE image; no finite one is black, also where no target could have its value.

        Args:
            prediction: a row of ``decide``.
            limits: as in ``colorize``.

        Returns:
            uint8 (H,W,3) RGB; black means 'no label', or a number that is not finite.
        """
        finite = prediction.detach().isfinite()
        return keep_black(self.colorize(prediction, limits), finite if finite.ndim == 2 else finite.all(0))

    def legend(self, limits: tuple[float, float] | None = None) -> Legend:
        """What the colours of ``colorize`` mean; empty where the task does not say.

        Args:
            limits: the range that the colours span, as given to ``colorize``.
        """
        return Legend(unit=self.unit)


def _as_targets(output: Tensor, change: Callable[[Array], Array]) -> Tensor:
    """Raw outputs (N,C,h,w) whose images were changed in the layout of targets, (h,w) or (h,w,C)."""
    images = [image.permute(1, 2, 0).squeeze(-1).float().cpu().numpy() for image in output.detach()]
    changed = [torch.from_numpy(np.ascontiguousarray(change(image))).reshape(*image.shape[:2], -1) for image in images]
    return torch.stack(changed).permute(0, 3, 1, 2).to(output)


def moments(views: Sequence[Tensor], weights: Sequence[float] | None = None) -> tuple[Tensor, Tensor]:
    """Mean and variance over views.

    Args:
        views: (N,C,h,w) each.
        weights: one number >= 0 per view; None weighs all alike.

    Returns:
        float32 mean (N,C,h,w), and variance (N,h,w), summed over channels.

    Raises:
        ValueError: there are no views, their shapes differ, or the weights do not fit them.
    """
    shapes = [tuple(view.shape) for view in views]
    if not shapes or len(set(shapes)) > 1:
        raise ValueError(f"views of shapes {shapes} have no average; give at least one, all of one shape.")
    given = [1.0] * len(views) if weights is None else [float(weight) for weight in weights]
    if len(given) != len(views) or not all(0 <= weight < float("inf") for weight in given) or not sum(given):
        raise ValueError(f"weights {given} for {len(views)} views; give one number >= 0 per view, not all 0.")
    shares = [weight / sum(given) for weight in given]
    mean = torch.zeros_like(views[0], dtype=torch.float32)
    for share, view in zip(shares, views, strict=True):
        mean += share * view.float()
    variance = torch.zeros_like(mean[:, 0])
    for share, view in zip(shares, views, strict=True):
        variance += share * (view.float() - mean).square().sum(dim=1)
    return mean, variance
