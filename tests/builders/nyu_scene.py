"""A small world of exact geometry, seen by NYUv2's RGB camera: what the tests write in every packaging of it.

Five planes (floor, ceiling, back wall, two side walls) with pictures on them; the image's colours, the labels, the
depth and the normals all break along the same edges, as they do in photographs.
"""

from typing import NamedTuple

import numpy as np

HEIGHT, WIDTH = 480, 640
FX, FY, CX, CY = 518.857901, 519.469611, 325.582449 - 1, 253.736166 - 1  # the toolbox counts pixels from 1
MAP_894_TO_40 = (np.arange(894) % 40 + 1).astype(np.uint8)  # entry i is the class 1..40 of raw label i + 1
SURFACES = {"floor": 2, "ceiling": 22, "back": 1, "left": 8, "right": 9}  # of the 40 classes, counted from 1


class Scene(NamedTuple):
    """One frame at 480x640."""

    image: np.ndarray  # uint8 (H,W,3) RGB
    label40: np.ndarray  # uint8 (H,W), 1..40, 0 unlabelled
    label894: np.ndarray  # uint16 (H,W), 1..894, 0 unlabelled; MAP_894_TO_40 leads to label40
    depth: np.ndarray  # float32 (H,W) metres, valid everywhere
    normal: np.ndarray  # float32 (H,W,3) unit, (x right, z forward, y up), zero where invalid (a border)


def planes(index):
    """{name: (normal as x right, y down, z forward; distance d in n . p = d)}, normals towards the camera."""
    slant = 0.15 + 0.05 * index
    raw = {
        "floor": ((0, -1, 0), -1.2),
        "ceiling": ((0, 1, 0), -1.3 - 0.05 * index),
        "back": ((slant, 0.0, -1), -3.5),
        "left": ((1, 0, 0), -1.6 - 0.1 * index),
        "right": ((-1, 0, -0.1), -1.9),
    }
    return {name: (np.array(n) / np.linalg.norm(n), d / np.linalg.norm(n)) for name, (n, d) in raw.items()}


def scene(index):
    """Frame ``index``; the same for every call."""
    rng = np.random.default_rng(index)
    v, u = np.mgrid[0:HEIGHT, 0:WIDTH]
    rays = np.stack([(u - CX) / FX, (v - CY) / FY, np.ones((HEIGHT, WIDTH))], -1)
    depth, surface = np.full((HEIGHT, WIDTH), np.inf), np.zeros((HEIGHT, WIDTH), np.int64)
    walls = planes(index)
    for number, (normal, distance) in enumerate(walls.values()):
        along = rays @ normal
        z = np.where(along < -1e-6, distance / np.minimum(along, -1e-6), np.inf)
        surface, depth = np.where(z < depth, number, surface), np.minimum(depth, z)
    normal = np.stack([n for n, _ in walls.values()])[surface][..., [0, 2, 1]] * np.array([1, 1, -1])  # y up
    normal[:20] = normal[:, :12] = 0
    label40 = np.array(list(SURFACES.values()), np.uint8)[surface]
    image = rng.integers(60, 200, (len(walls), 3))[surface].astype(np.float64)
    for _ in range(14):  # pictures on the walls
        top, left, size = rng.integers(0, HEIGHT - 90), rng.integers(0, WIDTH - 120), rng.integers(40, 110)
        place = (slice(top, top + size), slice(left, left + size))
        label40[place] = rng.integers(0, 41)
        image[place] = rng.integers(20, 240, 3)
    label40[200:240, 300:340] = 0
    image += rng.normal(0, 2, image.shape)
    label894 = np.where(label40 > 0, label40.astype(np.uint16) + 40 * rng.integers(0, 22), 0).astype(np.uint16)
    return Scene(
        image.round().clip(0, 255).astype(np.uint8),
        label40,
        label894,
        depth.astype(np.float32),
        normal.astype(np.float32),
    )
