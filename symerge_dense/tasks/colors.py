"""What colours mean: classes, the scale of a number, and black, which means 'no label' and nothing else."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from symerge_dense.tasks.storage import Array

Color = tuple[int, int, int]
SCALE = "plasma_r"  # matplotlib's name of the colours of a number: low yellow, high deep blue
DARKEST = 40  # of 255, the brightest channel of a valid pixel's colour
NYU13_COLORS = (
    (232, 142, 152),
    (155, 103, 60),
    (226, 232, 238),
    (233, 128, 45),
    (196, 172, 137),
    (128, 98, 158),
    (241, 203, 70),
    (214, 85, 160),
    (70, 140, 90),
    (160, 60, 62),
    (52, 64, 92),
    (140, 170, 190),
    (98, 196, 226),
)
GOLDEN = 0.6180339887  # its multiples modulo 1 spread evenly, so that neighbours in the list differ much in hue


@dataclass(frozen=True)
class Legend:
    """What the colours of a task's pictures mean: names, or a scale.

    Args:
        names: of the classes or directions, one per colour; empty for a scale.
        colors: RGB, 0..255; those of a scale go from its low end to its high end.
        low: value at the low end of a scale; None for names.
        high: value at the high end of a scale; None for names.
        unit: of ``low`` and ``high``.
    """

    names: tuple[str, ...] = ()
    colors: tuple[Color, ...] = ()
    low: float | None = None
    high: float | None = None
    unit: str = ""


def scale_colors() -> tuple[Color, ...]:
    """The 256 RGB colours of a scale, from low to high."""
    from matplotlib import colormaps  # slow to import, needed for pictures only

    red, green, blue, _ = colormaps[SCALE](np.arange(256), bytes=True).T.tolist()
    return tuple(zip(red, green, blue, strict=True))


def paint_scale(values: Tensor, low: float, high: float) -> Array:
    """Numbers as colours of the scale; those outside get the colour of its end, infinite ones too.

    Args:
        values: (H,W); NaN counts as 0.
        low: value at the low end.
        high: value at the high end.

    Returns:
        uint8 (H,W,3) RGB.
    """
    level = ((values.nan_to_num() - low) / max(high - low, 1e-12)).clamp(0, 1)
    picture: Array = np.asarray(scale_colors(), np.uint8)[(level * 256).int().clamp(max=255).numpy()]
    return picture


def keep_black(picture: Array, valid: Array | Tensor) -> Array:
    """Keep black for what has no label: all other pixels become black, dark colours become a little brighter.

    Args:
        picture: uint8 (...,3) RGB.
        valid: bool (...), pixels that carry a label.

    Returns:
        uint8 (...,3) RGB; the brightest channel of a valid pixel is at least ``DARKEST``.
    """
    lift = (DARKEST - picture.max(-1, keepdims=True).astype(np.int64)).clip(0)
    known = np.asarray(valid.cpu() if isinstance(valid, torch.Tensor) else valid)[..., None]
    return np.where(known, picture + lift, 0).astype(np.uint8)


def class_colors(classes: int) -> tuple[tuple[int, int, int], ...]:
    """Distinct RGB colours, none of them black; always the same for the same number.

    Args:
        classes: number of colours.
    """
    if classes == len(NYU13_COLORS):
        return NYU13_COLORS
    return tuple(_color(index) for index in range(classes))


def _color(index: int) -> tuple[int, int, int]:
    saturation, value = 0.45 + 0.2 * (index % 3), 0.95 - 0.15 * (index // 3 % 3)
    red, green, blue = colorsys.hsv_to_rgb(index * GOLDEN % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)
