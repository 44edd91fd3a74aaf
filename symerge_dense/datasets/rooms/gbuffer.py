"""What further labels need of a scene beside the fields of every frame: light, patterns, curvature, hidden edges."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from symerge_dense.datasets.rooms.raycast import ambient_light, camera_rays, first_hit, look, pixel_rays
from symerge_dense.datasets.rooms.scene import FACES, Camera, Scene, Vector
from symerge_dense.datasets.rooms.textures import KINDS

Array = NDArray[Any]
POSE = 18  # numbers of a ``Pose``
STEP = 0.02  # metres between two surfaces, from which on the nearer one hides the other
HALVINGS = 11  # of the way between two pixels


class Pose(NamedTuple):
    """Where camera, walls and lamp are, in metres and in the room's frame.

    Args:
        camera: the viewer.
        size: (3,) of the room.
        lamp: (3,).
    """

    camera: Camera
    size: Vector
    lamp: Vector

    @classmethod
    def of(cls, stored: Array) -> Pose:
        """The pose that ``gbuffer`` stored.

        Args:
            stored: (18,).
        """
        values = stored.astype(np.float64)
        return cls(Camera(values[:3], values[3:12].reshape(3, 3)), values[12:15], values[15:])


def gbuffer(scene: Scene, size: tuple[int, int]) -> dict[str, Array]:
    """The further fields of one view, exact at pixel centres.

    Args:
        scene: what the camera sees.
        size: (H, W) of the picture.

    Returns:
        ``light`` (H,W): 0 faces away from the lamp, 1 in a shadow, 2 lit; ``pattern`` (H,W): index into ``KINDS``;
        ``curvature`` (H,W): 1/m, 0 on planes; ``ambient`` (H,W): share of the ambient light, 0..1; ``occlusion`` (H,W):
        1 at both pixels where one surface hides another in between; ``pose`` (18,).
    """
    origin, rays = scene.camera.position, pixel_rays(scene.camera, size)
    view = look(scene, origin, rays)
    points = origin.astype(np.float32)[:, None] + rays * view.distance
    textures = [*scene.faces, *(part.texture for part in scene.parts)]
    patterns = np.array([KINDS.index(texture.kind) for texture in textures], np.uint8)
    bent = [1 / part.half[0] if part.sphere else 0.0 for part in scene.parts]
    curvatures = np.array([0.0] * len(FACES) + bent, np.float32)
    return {
        "light": view.light.reshape(size),
        "pattern": patterns[view.ids].reshape(size),
        "curvature": curvatures[view.ids].reshape(size),
        "ambient": ambient_light(scene, points, view.normal).reshape(size),
        "occlusion": _occlusion(scene, view.ids.reshape(size)),
        "pose": np.concatenate([origin, scene.camera.axes.ravel(), scene.size, scene.lamp]).astype(np.float32),
    }


def _occlusion(scene: Scene, ids: Array) -> Array:
    """Pixels uint8 (H,W) beside a step of depth: the place where the surface changes is found by halving the way."""
    found = np.zeros(ids.shape, np.uint8)
    for down, across in ((1, 0), (0, 1)):
        there = ids[down:, across:]
        rows, columns = np.nonzero(ids[: there.shape[0], : there.shape[1]] != there)
        if not rows.size:
            continue
        own, near, far = ids[rows, columns], np.zeros(rows.size, np.float32), np.ones(rows.size, np.float32)
        for _ in range(HALVINGS):
            middle = (near + far) / 2
            same = _depth(scene, ids.shape, rows + down * middle, columns + across * middle)[1] == own
            near, far = np.where(same, middle, near), np.where(same, far, middle)
        depths = [_depth(scene, ids.shape, rows + down * at, columns + across * at)[0] for at in (near, far)]
        step = np.abs(depths[0] - depths[1]) > STEP
        found[rows[step], columns[step]] = found[rows[step] + down, columns[step] + across] = 1
    return found


def _depth(scene: Scene, size: tuple[int, ...], rows: Array, columns: Array) -> tuple[Array, Array]:
    """Depth and surface id at positions in pixels, where 0 is the first pixel's centre."""
    at = [(positions + 0.5).astype(np.float32) for positions in (rows, columns)]
    return first_hit(scene, scene.camera.position, camera_rays(scene.camera, (size[0], size[1]), *at))
