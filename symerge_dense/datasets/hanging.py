"""Things on a wall, as boxes in their own frame: x right, y up from the piece's centre, back at z=0, front +z."""

from __future__ import annotations

from collections.abc import Callable

from symerge_dense.datasets.primitives import Part, Rng, box, hue, shade, wood
from symerge_dense.datasets.texture import Texture

BLACK = Texture("plain", (0.06, 0.06, 0.07), (0.1, 0.1, 0.1), 0.3)


def television(rng: Rng, width: float, at: tuple[float, float, float], item: int) -> list[Part]:
    """Flat television whose bottom centre is ``at``, switched on or off."""
    height, (x, y, z), glow = width * 0.58, at, rng.choice([0.0, 0.5])
    return [box("tv", (width, height, 0.06), at, BLACK, item),
            box("tv", (width - 0.05, height - 0.05, 0.02), (x, y + 0.025, z + 0.03), _screen(rng), item, glow)]


def _screen(rng: Rng) -> Texture:
    if rng.random() < 0.6:
        return Texture("plain", (0.07, 0.08, 0.1), (0.16, 0.17, 0.2), 1.5)
    return Texture("painting", hue(rng, (0.3, 0.7), (0.6, 0.9)), (0.1, 0.12, 0.3), 0.35, rng.random() * 50)


def picture(rng: Rng) -> list[Part]:
    """Framed painting; hangs with its back at z=0, centre at y=0."""
    w, h = rng.uniform(0.4, 1.1), rng.uniform(0.35, 0.8)
    bright, dark, rim = hue(rng, (0.3, 0.8), (0.6, 1.0)), hue(rng, (0.2, 0.9), (0.2, 0.9)), 0.08
    art = Texture("painting", bright, dark, rng.uniform(0.15, 0.4), rng.random() * 50)
    return [box("picture", (w, h, 0.03), (0, -h / 2, 0.015), wood(rng)),
            box("picture", (w - rim, h - rim, 0.02), (0, -h / 2 + rim / 2, 0.025), art)]


def screen(rng: Rng) -> list[Part]:
    """Television on the wall."""
    w = rng.uniform(0.8, 1.3)
    return television(rng, w, (0, -w * 0.29, 0.05), 0)


def window(rng: Rng) -> list[Part]:
    """Bright panes with a frame, sometimes curtains."""
    w, h = rng.uniform(0.9, 1.8), rng.uniform(0.9, 1.4)
    white = Texture("plain", (0.92, 0.92, 0.9), (0.8, 0.8, 0.8), 0.3)
    sky = Texture("noise", hue(rng, (0.0, 0.1), (0.9, 0.97)), (0.6, 0.75, 0.9), 0.7, rng.random() * 50)
    parts = [box("window", (w, h, 0.02), (0, -h / 2, 0.01), sky, glow=rng.uniform(0.55, 0.95))]
    parts += [box("window", (w, 0.06, 0.06), (0, y, 0.03), white) for y in (-h / 2, -0.03, h / 2 - 0.06)]
    parts += [box("window", (0.06, h, 0.06), (x, -h / 2, 0.03), white) for x in (-w / 2 + 0.03, 0, w / 2 - 0.03)]
    if rng.random() < 0.4:
        color = hue(rng, (0.1, 0.6), (0.5, 0.95))
        folds, x = Texture("stripes", color, shade(color, 0.85), 0.09), w / 2 + 0.1
        parts += [box("window", (0.3, h + 0.3, 0.08), (sx * x, -h / 2 - 0.2, 0.06), folds) for sx in (-1, 1)]
    return parts


HANGING: dict[str, Callable[[Rng], list[Part]]] = {"picture": picture, "screen": screen, "window": window}
