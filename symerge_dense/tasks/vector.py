"""What tasks share that predict vectors of either sign: optical flow, offsets to a centre, coordinates."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from symerge_dense.registry import did_you_mean
from symerge_dense.tasks.base import Array, DenseTask
from symerge_dense.tasks.colors import Legend, keep_black
from symerge_dense.tasks.metric import Metric
from symerge_dense.tasks.regression import absolute_error, pixel_sums


class Vector(DenseTask):
    """A vector of ``channels`` numbers of either sign; one that is not finite makes the pixel invalid.

    So does ``invalid_value`` in every channel, where a subclass makes it a number. Loss: L1, averaged over channels.
    Metrics over all valid pixels, in the unit of the target: ``epe`` mean Euclidean length of the error (the end-point
    error of optical flow), ``abs`` mean absolute error of a channel.

    Attributes:
        components: a name per channel, of which the first ``channels`` count.
        mirrored: the components that change their sign when the image is mirrored left to right.
        in_pixels: whether vectors are measured in the picture, in pixels or shares of it, so that a zoom makes them
            longer.

    Raises:
        ValueError: there are fewer names than channels, or ``mirrored`` has an unknown one.

    >>> class Flow(Vector):
    ...     name, unit, channels, in_pixels = "flow", "px", 2, True
    >>> Flow().flip(np.array([[[3.0, 1.0]]])).tolist()
    [[[-3.0, 1.0]]]
    """

    metrics: ClassVar[dict[str, bool]] = {"epe": False, "abs": False}
    headline: ClassVar[str] = "epe"
    components: ClassVar[tuple[str, ...]] = ("x", "y", "z")
    mirrored: ClassVar[tuple[str, ...]] = ("x",)
    in_pixels: ClassVar[bool] = False

    def __init__(self) -> None:
        names = self.components[: self.channels]
        if len(names) < self.channels:
            raise ValueError(
                f"task {self.name!r} names {len(names)} components {self.components} for {self.channels} channels; "
                "give `components` one name per channel."
            )
        for component in self.mirrored:
            if component not in names:
                raise ValueError(f"task {self.name!r}, mirrored: " + did_you_mean(component, names, "component"))
        self._signs = [-1 if name in self.mirrored else 1 for name in names]

    def valid(self, target: Tensor) -> Tensor:
        """Pixels whose every channel is finite, and not all of them ``invalid_value``.

        Args:
            target: (N,C,H,W).
        """
        return target.isfinite().all(dim=1) & (target != self.invalid_value).any(dim=1)

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
        return self.decide(expert_output.detach())

    def statistics(self, output: Tensor, target: Tensor) -> Tensor:
        """Rows [valid pixels, sum of the error's Euclidean length, sum of its absolute value (mean over channels)].

        Args:
            output: raw head output (N,C,H,W).
            target: (N,C,H,W).
        """
        mask, decided = self.valid(target), self.decide(output)
        length = (decided.double() - target.double()).square().sum(dim=1).sqrt()
        return pixel_sums(mask, length, absolute_error(decided, target).double())

    def summarize(self, total: Tensor) -> dict[str, Metric]:
        """Metrics epe and abs, in the unit of the target.

        Args:
            total: sum of the rows of ``statistics``, (3,).
        """
        return self.table(*(total[1:] / total[0]).tolist())

    @property
    def invalid_value(self) -> float:
        """Not a number, for every number may be a vector's."""
        return float("nan")

    def flip(self, target: Array) -> Array:
        """Change the sign of the ``mirrored`` components.

        Args:
            target: mirrored target (H,W) or (H,W,C).
        """
        turned: Array = target.reshape(*target.shape[:2], -1) * np.asarray(self._signs, target.dtype)
        return np.where(self._marked(target), target, turned.reshape(target.shape))

    def zoom(self, target: Array, scale: float) -> Array:
        """Multiply by ``scale`` where vectors are measured in pixels.

        Args:
            target: zoomed target (H,W) or (H,W,C).
            scale: zoom factor >= 1.
        """
        return np.where(self._marked(target), target, target * target.dtype.type(scale if self.in_pixels else 1))

    def _marked(self, target: Array) -> Array:
        """Pixels that hold ``invalid_value`` in every channel, in a shape that fits ``target``."""
        same = target.reshape(*target.shape[:2], -1) == self.invalid_value
        return np.asarray(same.all(-1)).reshape(*target.shape[:2], *(1 for _ in target.shape[2:]))

    def mirror_output(self, output: Tensor) -> Tensor:
        """Vectors turned back: the ``mirrored`` components change their sign.

        Args:
            output: raw head output (N,C,h,w) of the mirrored image.
        """
        return output.flip(-1) * output.new_tensor(self._signs).view(1, -1, 1, 1)

    def limits(self, target: Tensor) -> tuple[float, float] | None:
        """0 and the length of the longest vector, or None where no pixel is valid.

        Args:
            target: target of ONE image, (C,H,W).
        """
        lengths = target.float().norm(dim=0)[self.valid(target[None])[0]]
        return (0.0, float(lengths.max())) if lengths.numel() else None

    def colorize(self, prediction: Tensor, limits: tuple[float, float] | None = None) -> Array:
        """The direction of the first two components as a hue, their length as its strength; zero is white.

        Args:
            prediction: (C,H,W).
            limits: 0 and the length of the strongest colour; None takes the longest of ``prediction``.
        """
        value = prediction.detach().float().cpu()
        return keep_black(self._paint(value, limits), self.valid(value[None])[0])

    def _paint(self, vectors: Tensor, limits: tuple[float, float] | None) -> Array:
        from matplotlib.colors import hsv_to_rgb  # slow to import, needed for pictures only

        _, longest = limits or self.limits(vectors) or (0.0, 1.0)
        first = vectors[0].nan_to_num()
        second = vectors[1].nan_to_num() if self.channels > 1 else torch.zeros_like(first)
        hue = (torch.atan2(second, first) / (2 * torch.pi)) % 1
        strength = (torch.hypot(first, second) / max(longest, 1e-12)).clamp(0, 1)
        colors = hsv_to_rgb(torch.stack([hue, strength, torch.ones_like(hue)], dim=-1).numpy())
        picture: Array = (colors * 255).round().astype(np.uint8)
        return picture

    @classmethod
    def metric_unit(cls, metric: str) -> str:
        """That of the task's values.

        Args:
            metric: its name.
        """
        return cls.unit

    def legend(self, limits: tuple[float, float] | None = None) -> Legend:
        """Colours of the directions along the first two components.

        Args:
            limits: not used.
        """
        count = min(self.channels, 2)
        names = [f"{sign}{name}" for name in self.components[:count] for sign in "+-"]
        ends = [sign * row for row in torch.eye(self.channels)[:count] for sign in (1, -1)]
        colors = self._paint(torch.stack(ends, dim=1)[:, None], (0.0, 1.0))[0].tolist()
        return Legend(tuple(names), tuple((red, green, blue) for red, green, blue in colors))
