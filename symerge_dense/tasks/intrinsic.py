"""Intrinsic images: a picture is albedo (the colour of the surfaces) times shading (the light that falls on them)."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from torch import Tensor

from symerge_dense.registry import TASKS
from symerge_dense.tasks.base import MOVES, Array
from symerge_dense.tasks.colors import DARKEST, Legend
from symerge_dense.tasks.plausibility import outside_unit_interval
from symerge_dense.tasks.regression import Regression
from symerge_dense.tasks.storage import PngStorage


class Intrinsic(Regression):
    """A reflectance or light level in 0..1; negative is invalid. Loss: L1 on the raw output. Metric: ``abs``."""

    interpolation: ClassVar[Literal["nearest", "masked"]] = "masked"
    moves: ClassVar[frozenset[str]] = frozenset(MOVES)

    def implausible(self, target: Array) -> str | None:
        """Values outside 0..1, such as 0..255.

        Args:
            target: (H,W) or (H,W,C).
        """
        return outside_unit_interval(target, self.invalid_value)

    def decide(self, output: Tensor) -> Tensor:
        """The output, clamped to the possible range 0..1.

        Args:
            output: raw head output (N,C,h,w).
        """
        return output.clamp(0, 1)

    def _paint(self, prediction: Tensor, limits: tuple[float, float] | None) -> Array:
        """The value itself, 0..1 as 0..255, one channel as grey."""
        value = prediction.detach().float().cpu()
        levels = value.nan_to_num().clamp(0, 1).mul(255).round().byte().expand(3, -1, -1)
        return np.asarray(levels.permute(1, 2, 0))

    def legend(self, limits: tuple[float, float] | None = None) -> Legend:
        """Grey from 0 to 1; nothing for a colour, which means itself.

        Args:
            limits: not used.
        """
        return Legend(colors=((DARKEST,) * 3, (255,) * 3), low=0.0, high=1.0) if self.channels == 1 else Legend()

    @property
    def storage(self) -> PngStorage:
        """16 bits over 0..1; 65535 is stored for 'no label'."""
        return PngStorage.share(self.invalid_value)


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
