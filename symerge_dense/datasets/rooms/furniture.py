"""Furniture as boxes and spheres in its own frame: x right, y up, back at -z (on a wall: at z=0), front at +z."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from symerge_dense.datasets.rooms.primitives import WOODS, Part, Rng, ball, box, cloth, hue, shade, turn, wood
from symerge_dense.datasets.rooms.textures import Texture

BLACK = Texture("plain", (0.06, 0.06, 0.07), (0.1, 0.1, 0.1), 0.3)


# -- things on a wall; y from the piece's centre ----------------------------------------------------------------------
def television(rng: Rng, width: float, at: tuple[float, float, float], item: int) -> list[Part]:
    """Flat television, switched on or off.

    Args:
        rng: random generator.
        width: metres.
        at: bottom centre.
        item: number of the thing within its piece.
    """
    height, (x, y, z), glow = width * 0.58, at, rng.choice([0.0, 0.5])
    return [
        box("tv", (width, height, 0.06), at, BLACK, item),
        box("tv", (width - 0.05, height - 0.05, 0.02), (x, y + 0.025, z + 0.03), _screen(rng), item, glow),
    ]


def _screen(rng: Rng) -> Texture:
    if rng.random() < 0.6:
        return Texture("plain", (0.07, 0.08, 0.1), (0.16, 0.17, 0.2), 1.5)
    return Texture("painting", hue(rng, (0.3, 0.7), (0.6, 0.9)), (0.1, 0.12, 0.3), 0.35, rng.random() * 50)


def picture(rng: Rng) -> list[Part]:
    """Framed painting; hangs with its back at z=0, centre at y=0.

    Args:
        rng: random generator.
    """
    w, h = rng.uniform(0.4, 1.1), rng.uniform(0.35, 0.8)
    bright, dark, rim = hue(rng, (0.3, 0.8), (0.6, 1.0)), hue(rng, (0.2, 0.9), (0.2, 0.9)), 0.08
    art = Texture("painting", bright, dark, rng.uniform(0.15, 0.4), rng.random() * 50)
    return [
        box("picture", (w, h, 0.03), (0, -h / 2, 0.015), wood(rng)),
        box("picture", (w - rim, h - rim, 0.02), (0, -h / 2 + rim / 2, 0.025), art),
    ]


def screen(rng: Rng) -> list[Part]:
    """Television on the wall.

    Args:
        rng: random generator.
    """
    w = rng.uniform(0.8, 1.3)
    return television(rng, w, (0, -w * 0.29, 0.05), 0)


def window(rng: Rng) -> list[Part]:
    """Bright panes with a frame, sometimes curtains.

    Args:
        rng: random generator.
    """
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


# -- things on the floor; y from the floor ----------------------------------------------------------------------------
def _legs(label: str, width: float, depth: float, height: float, thick: float, texture: Texture) -> list[Part]:
    x, z = width / 2 - thick, depth / 2 - thick
    return [box(label, (thick, height, thick), (sx * x, 0, sz * z), texture) for sx in (-1, 1) for sz in (-1, 1)]


def clutter(rng: Rng, width: float, depth: float, height: float, item: int, count: int) -> list[Part]:
    """Small things on a surface: books, boxes, balls, a lamp.

    Args:
        rng: random generator.
        width: of the surface, metres.
        depth: of the surface, metres.
        height: of the surface above the floor, metres.
        item: number of the first thing within its piece.
        count: number of things.
    """
    parts: list[Part] = []
    slots = rng.permutation(np.linspace(-0.5, 0.5, count + 2)[1:-1]) * width
    for k, x in enumerate(slots):
        z, kind = rng.uniform(-0.25, 0.25) * depth, rng.choice(["books", "books", "ball", "box", "lamp"])
        at, texture = (float(x), height, z), cloth(rng, (0.3, 0.9))
        if kind == "books":
            parts += _stack(rng, at, item + k)
        elif kind == "ball":
            parts.append(ball("objects", rng.uniform(0.06, 0.12), at, texture, item + k))
        elif kind == "box":
            size = (rng.uniform(0.08, 0.2), rng.uniform(0.08, 0.3), rng.uniform(0.08, 0.2))
            parts.append(box("objects", size, at, texture, item + k, rotation=turn(rng.uniform(-1, 1))))
        else:
            parts.append(box("objects", (0.05, 0.22, 0.05), at, wood(rng), item + k))
            bulb = Texture("plain", (0.95, 0.9, 0.75), (0.9, 0.8, 0.6))
            parts.append(ball("objects", 0.11, (at[0], height + 0.18, z), bulb, item + k, rng.choice([0.0, 0.7])))
    return parts


def _stack(rng: Rng, at: tuple[float, float, float], item: int) -> list[Part]:
    parts, y = [], at[1]
    for _ in range(rng.integers(2, 6)):
        color = hue(rng, (0.3, 0.85), (0.25, 0.85))
        texture = Texture("plain", color, shade(color, 0.8), 0.1)
        size = (rng.uniform(0.2, 0.3), rng.uniform(0.03, 0.06), rng.uniform(0.15, 0.22))
        parts.append(box("books", size, (at[0], y, at[2]), texture, item, rotation=turn(rng.uniform(-0.4, 0.4))))
        y += size[1]
    return parts


def bed(rng: Rng) -> list[Part]:
    """Frame, blanket, headboard, one or two pillows.

    Args:
        rng: random generator.
    """
    w, d, h = rng.uniform(1.0, 1.8), rng.uniform(1.9, 2.1), rng.uniform(0.4, 0.6)
    frame, sheet = wood(rng), cloth(rng)
    white = Texture("plain", hue(rng, (0, 0.15), (0.8, 0.95)), (0.7, 0.7, 0.7), 0.3)
    parts = [
        box("bed", (w, h / 2, d), (0, 0, 0), frame),
        box("bed", (w - 0.06, h / 2, d - 0.06), (0, h / 2, 0), sheet),
        box("bed", (w, rng.uniform(0.8, 1.1), 0.06), (0, 0, -d / 2 + 0.03), frame),
    ]
    pillows = 1 if w < 1.3 else 2
    for k in range(pillows):
        x = (k - (pillows - 1) / 2) * w / 2
        parts.append(box("objects", (0.55, 0.13, 0.36), (x, h, -d / 2 + 0.3), white, 1 + k, rotation=turn(0, -0.25)))
    return parts


def sofa(rng: Rng) -> list[Part]:
    """Seat, back, two arms, cushions.

    Args:
        rng: random generator.
    """
    w, d, seat, fabric = rng.uniform(1.3, 2.2), rng.uniform(0.8, 0.95), rng.uniform(0.38, 0.46), cloth(rng, (0.05, 0.6))
    back, arm = rng.uniform(0.75, 0.95), rng.uniform(0.14, 0.22)
    parts = [box("sofa", (w, seat, d), (0, 0, 0), fabric), box("sofa", (w, back, 0.22), (0, 0, -d / 2 + 0.11), fabric)]
    parts += [box("sofa", (arm, seat + 0.18, d), (sx * (w - arm) / 2, 0, 0), fabric) for sx in (-1, 1)]
    for k in range(rng.integers(0, 3)):
        x = rng.uniform(-0.5, 0.5) * (w - 0.8)
        at = (x, seat, -d / 2 + 0.33)
        parts.append(box("objects", (0.4, 0.38, 0.12), at, cloth(rng), 1 + k, rotation=turn(0, -0.3)))
    return parts


def chair(rng: Rng) -> list[Part]:
    """Seat on four legs with a back.

    Args:
        rng: random generator.
    """
    w, seat, frame = rng.uniform(0.42, 0.52), rng.uniform(0.42, 0.48), wood(rng)
    top = cloth(rng) if rng.random() < 0.5 else frame
    parts = [*_legs("chair", w, w, seat, 0.045, frame), box("chair", (w, 0.06, w), (0, seat, 0), top)]
    return [*parts, box("chair", (w, rng.uniform(0.3, 0.5), 0.045), (0, seat + 0.08, -w / 2 + 0.03), top)]


def table(rng: Rng) -> list[Part]:
    """Dining, coffee or writing table with things on it.

    Args:
        rng: random generator.
    """
    w, d, h, surface = rng.uniform(0.8, 1.6), rng.uniform(0.5, 0.9), rng.choice([0.42, 0.72, 0.76]), wood(rng)
    parts = [box("table", (w, 0.05, d), (0, h - 0.05, 0), surface)]
    if rng.random() < 0.7:
        parts += _legs("table", w, d, h - 0.05, 0.06, surface)
    else:
        parts += [box("table", (0.05, h - 0.05, d), (sx * (w / 2 - 0.03), 0, 0), surface) for sx in (-1, 1)]
    return parts + clutter(rng, w, d, h, 1, int(rng.integers(1, 5)))


def cabinet(rng: Rng) -> list[Part]:
    """Cupboard, dresser or wardrobe; things stand on the low ones.

    Args:
        rng: random generator.
    """
    w, d, h = rng.uniform(0.5, 1.4), rng.uniform(0.4, 0.55), rng.choice([0.55, 0.8, 1.0, 1.9]) * rng.uniform(0.9, 1.1)
    color, doors = WOODS[rng.integers(len(WOODS))], int(rng.integers(1, 4))
    panels = Texture("tiles", color, shade(color, 0.55), w / doors, 0.47 if doors % 2 else 0.97)
    body = panels if rng.random() < 0.6 else wood(rng)
    top = clutter(rng, w, d, h, 1, int(rng.integers(0, 4))) if h < 1.3 else []
    return [box("furniture", (w, h, d), (0, 0, 0), body), *top]


def bookshelf(rng: Rng) -> list[Part]:
    """Open shelves with rows of books.

    Args:
        rng: random generator.
    """
    w, d, boards, gap, plank = rng.uniform(0.7, 1.4), 0.32, int(rng.integers(3, 6)), rng.uniform(0.32, 0.38), wood(rng)
    h = boards * gap + 0.04
    parts = [box("furniture", (w, h, 0.03), (0, 0, -d / 2 + 0.015), plank)]
    parts += [box("furniture", (0.04, h, d), (sx * (w / 2 - 0.02), 0, 0), plank) for sx in (-1, 1)]
    parts += [box("furniture", (w, 0.04, d), (0, k * gap, 0), plank) for k in range(boards + 1)]
    for k in range(boards):
        row = rng.uniform(0.4, 0.95) * (w - 0.1)
        spines = Texture("spines", hue(rng, (0.2, 0.8), (0.3, 0.9)), (0.1, 0.1, 0.1), rng.uniform(0.04, 0.07), k * 9.3)
        shift, height = (w - 0.1 - row) / 2 * rng.choice([-1, 1]), rng.uniform(0.2, gap - 0.07)
        parts.append(box("books", (row, height, 0.2), (shift, k * gap + 0.04, -0.02), spines, 1 + k))
    return parts


def media(rng: Rng) -> list[Part]:
    """Low stand with a television.

    Args:
        rng: random generator.
    """
    w, h, screen = rng.uniform(1.1, 1.7), rng.uniform(0.4, 0.6), rng.uniform(0.8, 1.2)
    return [
        box("furniture", (w, h, 0.42), (0, 0, 0), wood(rng)),
        box("tv", (0.3, 0.05, 0.2), (0, h, 0), BLACK, 1),
        *television(rng, screen, (0, h + 0.05, 0), 1),
    ]


def plant(rng: Rng) -> list[Part]:
    """Pot with a few green balls.

    Args:
        rng: random generator.
    """
    green = Texture("noise", (0.15, rng.uniform(0.35, 0.5), 0.15), (0.35, 0.55, 0.2), 0.06)
    parts = [box("objects", (0.26, 0.28, 0.26), (0, 0, 0), cloth(rng))]
    for _ in range(rng.integers(3, 6)):
        x, z, y = *rng.uniform(-0.13, 0.13, 2), rng.uniform(0.25, 0.65)
        parts.append(ball("objects", rng.uniform(0.12, 0.2), (x, y, z), green))
    return parts


def toys(rng: Rng) -> list[Part]:
    """A ball or a box on the floor.

    Args:
        rng: random generator.
    """
    r, texture = rng.uniform(0.12, 0.28), cloth(rng, (0.4, 0.9), (0.5, 0.95))
    if rng.random() < 0.5:
        return [ball("objects", r, (0, 0, 0), texture)]
    return [box("objects", (2 * r, rng.uniform(0.2, 0.5), 1.6 * r), (0, 0, 0), texture)]


STANDING: dict[str, Callable[[Rng], list[Part]]] = {
    "bed": bed,
    "sofa": sofa,
    "chair": chair,
    "table": table,
    "cabinet": cabinet,
    "bookshelf": bookshelf,
    "media": media,
    "plant": plant,
    "toys": toys,
}
