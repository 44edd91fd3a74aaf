"""Colours for classes: one palette made by hand for the 13 indoor classes of NYUv2, one computed for any number."""

from __future__ import annotations

import colorsys

NYU13_COLORS = (
    (232, 142, 152), (155, 103, 60), (226, 232, 238), (233, 128, 45), (196, 172, 137), (128, 98, 158), (241, 203, 70),
    (214, 85, 160), (70, 140, 90), (160, 60, 62), (52, 64, 92), (140, 170, 190), (98, 196, 226),
)
GOLDEN = 0.6180339887  # successive multiples, modulo 1, never crowd: neighbours in the list differ much in hue


def class_colors(classes: int) -> tuple[tuple[int, int, int], ...]:
    """``classes`` distinct RGB colours, none of them black; always the same for the same number."""
    if classes == len(NYU13_COLORS):
        return NYU13_COLORS
    return tuple(_color(index) for index in range(classes))


def _color(index: int) -> tuple[int, int, int]:
    saturation, value = 0.45 + 0.2 * (index % 3), 0.95 - 0.15 * (index // 3 % 3)
    red, green, blue = colorsys.hsv_to_rgb(index * GOLDEN % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)
