"""Intrinsic images: a picture is albedo (the colour of the surfaces) times shading (the light that falls on them)."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from symerge_dense.registry import TASKS
from symerge_dense.tasks.base import Array
from symerge_dense.tasks.regression import Regression


class Intrinsic(Regression):
    """A reflectance or light level in 0..1; negative is invalid. Loss: L1 on the raw output. Metric: ``abs``."""

    interpolation: ClassVar[Literal["nearest", "masked"]] = "masked"

    def decide(self, output: Tensor) -> Tensor:
        """The output, clamped to the possible range 0..1.

        Args:
            output: raw head output (N,C,h,w).
        """
        return output.clamp(0, 1)

    def colorize(self, prediction: Tensor, limits: tuple[float, float] | None = None) -> Array:
        """The value itself, 0..1 as 0..255; one channel as grey.

        Args:
            prediction: (C,H,W) with C = 1 or 3.
            limits: not used.
        """
        value = prediction.detach().float().cpu()
        valid = self.valid(value[None])[0]
        pixels = value.where(valid, value.new_zeros(())).clamp(0, 1).mul(255).round().byte()
        picture: Array = pixels.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
        return picture


@TASKS.register_module()
class Albedo(Intrinsic):
    """Surface colour, RGB in 0..1."""

    name: ClassVar[str] = "albedo"
    channels: int = 3


@TASKS.register_module()
class Shading(Intrinsic):
    """Light level, one channel in 0..1."""

    name: ClassVar[str] = "shading"
    channels: int = 1
