"""Random rooms: walls, furniture that stands along them or in the middle, things on the walls, a lamp and a camera."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from symerge_dense.datasets.class_names import NYU13
from symerge_dense.datasets.rooms.furniture import HANGING, STANDING
from symerge_dense.datasets.rooms.primitives import WOODS, Part, Rng, box, hue, shade, turn, wood
from symerge_dense.datasets.rooms.textures import Kind, Texture

Vector = NDArray[np.float64]
FIELD_OF_VIEW = np.deg2rad(60.0)  # horizontal
FACES = ("wall", "wall", "floor", "ceiling", "wall", "wall")  # x=0, x=W, y=0, y=H, z=0, z=L
GAP = 0.04  # metres between pieces of furniture
FREE = ("chair", "chair", "table", "toys", "plant")


class Camera(NamedTuple):
    """Pinhole camera.

    Args:
        position: (3,) metres, in the room's frame.
        axes: (3,3), rows right, up and forward in the room's frame.
    """

    position: Vector
    axes: Vector


@dataclass(frozen=True)
class Scene:
    """Room [0,W] x [0,H] x [0,L] (x right, y up, z away from the camera's end), metres.

    Args:
        size: (W, H, L).
        faces: textures of the six faces, in the order of ``FACES``.
        parts: furniture and what hangs on the walls.
        objects: per part, the id that it shares with the other parts of the same thing; 0..5 are the room's faces.
        lamp: (3,) position of the lamp.
        ambient: strength of the ambient light.
        power: strength of the lamp.
        camera: the viewer.
    """

    size: Vector
    faces: tuple[Texture, ...]
    parts: tuple[Part, ...]
    objects: tuple[int, ...]
    lamp: Vector
    ambient: float
    power: float
    camera: Camera

    @property
    def labels(self) -> NDArray[np.uint8]:
        """Class of every face, then of every part."""
        names = [*FACES, *(part.label for part in self.parts)]
        return np.array([NYU13.index(name) for name in names], np.uint8)


def focal_length(width: int) -> float:
    """Focal length in pixels; the principal point is the picture's centre.

    Args:
        width: of the picture, pixels.
    """
    return float(width / 2 / np.tan(FIELD_OF_VIEW / 2))


class FloorPlan:
    """Places furniture without collisions: rectangles on the floor, intervals on the walls.

    Args:
        rng: random generator.
        size: (W, H, L) of the room, metres.
        camera: nothing is placed on the floor within 1 m of it.
    """

    def __init__(self, rng: Rng, size: Vector, camera: Camera) -> None:
        self.rng, self.size, self.camera = rng, size, camera
        self.taken: list[Vector] = []  # x0, z0, x1, z1
        self.walls: dict[str, list[tuple[float, float]]] = {"far": [], "left": [], "right": []}
        self.parts: list[Part] = []
        self.objects: list[int] = []

    def stand(self, parts: list[Part], free: bool) -> None:
        """Put a piece on the floor; leave it out without an error where there is no space.

        Args:
            parts: the piece in its own frame.
            free: False puts its back at a wall, True puts it anywhere.
        """
        low, high = extent(parts)
        for _ in range(14):
            wall = None if free else str(self.rng.choice(["far", "far", "left", "right"]))
            at, yaw = self._anywhere() if wall is None else self._at_wall(wall, high[0] - low[0], -low[2] + 0.02)
            moved = move(parts, at, yaw)
            first, last = extent(moved)
            rectangle = np.array([first[0], first[2], last[0], last[2]])
            if self._fits(rectangle):
                self.taken.append(rectangle)
                if wall is not None and high[1] > 1.0:
                    axis = 0 if wall == "far" else 2
                    self.walls[wall].append((first[axis], last[axis]))
                return self._add(moved)

    def hang(self, parts: list[Part], height: float) -> None:
        """Put a piece on a wall; leave it out without an error where there is no space.

        Args:
            parts: the piece in its own frame.
            height: of the frame's origin (the centre of most pieces) above the floor, metres.
        """
        low, high = extent(parts)
        for _ in range(10):
            wall = str(self.rng.choice(["far", "far", "left", "right"]))
            at, yaw = self._at_wall(wall, high[0] - low[0], 0.0)
            moved = move(parts, at + np.array([0, height, 0]), yaw)
            first, last = extent(moved)
            axis = 0 if wall == "far" else 2
            span = (first[axis], last[axis])
            if all(span[1] < a or b < span[0] for a, b in self.walls[wall]):
                self.walls[wall].append(span)
                return self._add(moved)

    def _add(self, parts: list[Part]) -> None:
        start = max(self.objects, default=len(FACES) - 1) + 1
        self.parts += parts
        self.objects += [start + part.item for part in parts]

    def _at_wall(self, wall: str, width: float, back: float) -> tuple[Vector, float]:
        length = self.size[0] if wall == "far" else self.size[2]
        near = 0.0 if wall == "far" else 0.25 * length  # the camera never sees what stands beside it
        along = self.rng.uniform(near + width / 2, max(length - width / 2, near + width / 2))
        if wall == "far":
            return np.array([along, 0, self.size[2] - back]), np.pi
        if wall == "left":
            return np.array([back, 0, along]), np.pi / 2
        return np.array([self.size[0] - back, 0, along]), -np.pi / 2

    def _anywhere(self) -> tuple[Vector, float]:
        x, z = self.rng.uniform((0.1, 0.3), (0.9, 0.95)) * self.size[[0, 2]]
        return np.array([x, 0, z]), self.rng.choice(4) * np.pi / 2 + self.rng.normal(0, 0.3)

    def _fits(self, r: Vector) -> bool:
        if min(r[0], r[1], self.size[0] - r[2], self.size[2] - r[3]) < 0:
            return False
        eye = self.camera.position[[0, 2]]
        if np.linalg.norm(np.clip(eye, r[:2], r[2:]) - eye) < 1.0:
            return False
        return all((r[2:] + GAP < t[:2]).any() or (t[2:] + GAP < r[:2]).any() for t in self.taken)


def extent(parts: list[Part]) -> tuple[Vector, Vector]:
    """Lower and upper corner (3,) of the axis-aligned hull of parts.

    Args:
        parts: at least one.
    """
    reach = [part.half if part.sphere else np.abs(part.rotation) @ part.half for part in parts]
    low = np.min([part.center - r for part, r in zip(parts, reach, strict=True)], axis=0)
    return low, np.max([part.center + r for part, r in zip(parts, reach, strict=True)], axis=0)


def move(parts: list[Part], at: Vector, yaw: float) -> list[Part]:
    """The parts turned about the vertical, then shifted.

    Args:
        parts: what to move.
        at: (3,) shift, metres.
        yaw: radians, as in ``turn``.
    """
    turned = turn(yaw)
    return [replace(part, center=turned @ part.center + at, rotation=turned @ part.rotation) for part in parts]


def _camera(rng: Rng, size: Vector) -> Camera:
    position = np.array([rng.uniform(0.25, 0.75) * size[0], rng.uniform(1.2, 1.75), rng.uniform(0.25, 0.9)])
    target = np.array([rng.uniform(0.2, 0.8) * size[0], rng.uniform(0.5, 1.2), rng.uniform(0.75, 1.0) * size[2]])
    forward = (target - position) / np.linalg.norm(target - position)
    level = np.cross([0.0, 1.0, 0.0], forward)
    level /= np.linalg.norm(level)
    roll = rng.normal(0, 0.03)
    right = level * np.cos(roll) + np.cross(forward, level) * np.sin(roll)
    return Camera(position, np.stack([right, np.cross(forward, right), forward]))


def _faces(rng: Rng) -> tuple[Texture, ...]:
    paint = hue(rng, (0.0, 0.35), (0.6, 0.95))
    kinds: tuple[Kind, ...] = ("plain", "plain", "plain", "stripes", "noise")
    kind = kinds[rng.integers(len(kinds))]
    walls = Texture(kind, paint, shade(paint, rng.uniform(0.86, 0.95)), rng.uniform(0.25, 0.6), rng.random() * 50)
    accent = hue(rng, (0.2, 0.6), (0.45, 0.85))
    feature = Texture("plain", accent, shade(accent, 0.9), 0.6) if rng.random() < 0.3 else walls
    white = hue(rng, (0.0, 0.06), (0.85, 0.97))
    ceiling = Texture("plain", white, shade(white, 0.93), 0.8)
    sides = [walls, walls, walls, feature]
    return (sides[0], sides[1], _floor(rng), ceiling, sides[2], sides[3])


def _floor(rng: Rng) -> Texture:
    color = shade(WOODS[rng.integers(4)], rng.uniform(0.7, 1.15))
    kinds: tuple[Kind, ...] = ("planks", "planks", "tiles", "noise", "checker")
    kind = kinds[rng.integers(len(kinds))]
    if kind != "planks":
        color = hue(rng, (0.0, 0.35), (0.35, 0.8))
    period = {"planks": 0.14, "tiles": 0.45, "noise": 0.15, "checker": 0.4}[kind] * rng.uniform(0.8, 1.3)
    return Texture(kind, color, shade(color, rng.uniform(0.6, 0.75)), period, rng.random() * 50)


def _furnish(rng: Rng, plan: FloorPlan, height: float) -> None:
    main = str(rng.choice(["bed", "sofa"]))
    pieces = [main, *rng.permutation(["cabinet", "bookshelf", "media", "cabinet"])[: rng.integers(1, 4)]]
    pieces += ["table", "sofa" if rng.random() < 0.3 else "chair"]
    for name in pieces:
        plan.stand(STANDING[name](rng), free=name == "chair" or (name == "table" and rng.random() < 0.6))
    if rng.random() < 0.35:
        door = wood(rng) if rng.random() < 0.6 else Texture("plain", (0.88, 0.87, 0.84), (0.8, 0.8, 0.78), 0.4)
        plan.hang([box("wall", (0.85, 2.02, 0.05), (0, 0, 0.025), door)], 0.0)
    for name in rng.permutation(["window", "picture", "picture", "screen", "window"])[: rng.integers(2, 5)]:
        plan.hang(HANGING[name](rng), rng.uniform(1.4, 1.65) * height / 2.6)
    for name in rng.choice(FREE, rng.integers(1, 5)):
        plan.stand(STANDING[name](rng), free=True)


def random_scene(rng: Rng) -> Scene:
    """A plausible room: the class of a thing goes with its shape, size, place and colour, but never strictly.

    Args:
        rng: random generator.
    """
    size = rng.uniform((3.0, 2.3, 3.4), (5.5, 3.0, 6.5))
    camera = _camera(rng, size)
    plan = FloorPlan(rng, size, camera)
    _furnish(rng, plan, size[1])
    lamp = size * rng.uniform((0.3, 0.8, 0.25), (0.7, 0.93, 0.7))
    return Scene(
        size,
        _faces(rng),
        tuple(plan.parts),
        tuple(plan.objects),
        lamp,
        rng.uniform(0.38, 0.6),
        rng.uniform(0.8, 1.2),
        camera,
    )
