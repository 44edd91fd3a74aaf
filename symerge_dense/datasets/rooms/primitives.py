"""Boxes and spheres, and their colours and fabrics."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from symerge_dense.datasets.rooms.textures import Color, Kind, Texture

WOODS = ((0.55, 0.36, 0.20), (0.72, 0.53, 0.33), (0.36, 0.22, 0.14), (0.80, 0.68, 0.50), (0.85, 0.84, 0.80))
Rng = np.random.Generator


@dataclass(frozen=True)
class Part:
    """One primitive: an oriented box or a sphere.

    Args:
        label: class name in ``NYU13``.
        center: (3,) metres.
        half: half of the width, height and depth, (3,) metres; a sphere's radius is ``half[0]``.
        texture: of the surface.
        item: tells apart the things that one piece consists of (a pillow on a bed).
        sphere: True for a sphere.
        glow: share of the shading that does not need the lamp, in [0,1].
        rotation: (3,3), the local axes as columns.
    """

    label: str
    center: NDArray[np.float64]
    half: NDArray[np.float64]
    texture: Texture
    item: int = 0
    sphere: bool = False
    glow: float = 0.0
    rotation: NDArray[np.float64] = field(default_factory=lambda: np.eye(3))


def turn(yaw: float, pitch: float = 0.0) -> NDArray[np.float64]:
    """Rotation (3,3): ``pitch`` about x, then ``yaw`` about y.

    Args:
        yaw: radians; takes +z towards +x.
        pitch: radians.
    """
    s, c, sp, cp = np.sin(yaw), np.cos(yaw), np.sin(pitch), np.cos(pitch)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) @ np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])


def box(
    label: str,
    size: tuple[float, float, float],
    at: tuple[float, float, float],
    texture: Texture,
    item: int = 0,
    glow: float = 0.0,
    rotation: NDArray[np.float64] | None = None,
) -> Part:
    """Box that stands on a point.

    Args:
        label: class name in ``NYU13``.
        size: full width, height and depth, metres.
        at: bottom centre, metres.
        texture: of the surface.
        item: as in ``Part``.
        glow: as in ``Part``.
        rotation: about the box's centre, as in ``Part``; None for no rotation.
    """
    center = np.array([at[0], at[1] + size[1] / 2, at[2]])
    rotation = np.eye(3) if rotation is None else rotation
    return Part(label, center, np.array(size, float) / 2, texture, item, glow=glow, rotation=rotation)


def ball(
    label: str, radius: float, at: tuple[float, float, float], texture: Texture, item: int = 0, glow: float = 0.0
) -> Part:
    """Sphere that stands on a point.

    Args:
        label: class name in ``NYU13``.
        radius: metres.
        at: lowest point, metres.
        texture: of the surface.
        item: as in ``Part``.
        glow: as in ``Part``.
    """
    center = np.array([at[0], at[1] + radius, at[2]])
    return Part(label, center, np.full(3, radius), texture, item, True, glow)


def hue(rng: Rng, saturation: tuple[float, float], value: tuple[float, float]) -> Color:
    """Random colour of any hue.

    Args:
        rng: random generator.
        saturation: lowest and highest saturation.
        value: lowest and highest value (brightness).
    """
    return colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))


def shade(color: Color, factor: float) -> Color:
    """The same colour, brighter or darker.

    Args:
        color: RGB in 0..1.
        factor: of every channel; the result is clipped to 0..1.
    """
    return tuple(float(np.clip(c * factor, 0, 1)) for c in color)  # type: ignore[return-value]  # three in, three out


def wood(rng: Rng) -> Texture:
    """A wooden (sometimes painted) surface.

    Args:
        rng: random generator.
    """
    color = shade(WOODS[rng.integers(len(WOODS))], rng.uniform(0.8, 1.15))
    grain = rng.uniform(0.75, 0.9) if max(color) < 0.8 else rng.uniform(0.9, 0.97)  # paint hides the grain
    return Texture("wood", color, shade(color, grain), rng.uniform(0.06, 0.16), rng.random() * 50)


def cloth(rng: Rng, saturation: tuple[float, float] = (0.15, 0.7), value: tuple[float, float] = (0.3, 0.9)) -> Texture:
    """Fabric: plain, striped, checked or mottled.

    Args:
        rng: random generator.
        saturation: lowest and highest saturation of its colour.
        value: lowest and highest value (brightness) of its colour.
    """
    color = hue(rng, saturation, value)
    kinds: tuple[Kind, ...] = ("plain", "plain", "noise", "stripes", "checker")
    kind = kinds[rng.integers(len(kinds))]
    return Texture(kind, color, shade(color, rng.uniform(0.6, 0.8)), rng.uniform(0.12, 0.3), rng.random() * 50)
