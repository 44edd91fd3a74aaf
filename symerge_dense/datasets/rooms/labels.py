"""Every label of a frame, computed from its stored fields.

Axes of pictures are x right and y down, those of the camera right, forward and up. Lengths in the picture are percent
of its width, so that they do not depend on the resolution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from symerge_dense.datasets.class_names import ORIENTATIONS
from symerge_dense.datasets.rooms.gbuffer import Pose
from symerge_dense.datasets.rooms.raycast import LIT, SHADOW, leave_room, pixel_rays
from symerge_dense.datasets.rooms.scene import FACES, Camera, focal_length
from symerge_dense.datasets.targets import boundary

Array = NDArray[Any]
VISIBLE = 1e-3  # share of the picture's pixels from which on a thing is counted
TILT = np.deg2rad(30.0)  # a surface this far from level and from upright is slanted


# -- surfaces ---------------------------------------------------------------------------------------------------------
def unit_normals(normals: Array) -> Array:
    """Normals float32 (H,W,3) of length 1.

    Args:
        normals: as stored, (H,W,3).
    """
    values = normals.astype(np.float32)
    return np.asarray(values / np.linalg.norm(values, axis=-1, keepdims=True))


def orientation(normals: Array, pose: Array) -> Array:
    """Index into ``ORIENTATIONS`` int64 (H,W): where a surface faces, with gravity and as the camera is turned.

    Up and down are within 30 degrees of the vertical, upright surfaces within 30 degrees of the horizontal; these face
    the viewer within 45 degrees of the camera's heading, else left or right. The rest is slanted.

    Args:
        normals: (H,W,3), camera axes (right, forward, up).
        pose: stored.
    """
    right, up, forward = Pose.of(pose).camera.axes
    world = unit_normals(normals) @ np.stack([right, forward, up])
    heading = np.array([forward[0], forward[2]]) / np.hypot(forward[0], forward[2])
    back = -(world[..., [0, 2]] @ heading)
    side = world[..., [0, 2]] @ np.array([heading[1], -heading[0]])
    upright = np.where(side > 0, ORIENTATIONS.index("right"), ORIENTATIONS.index("left"))
    upright = np.where(back >= np.abs(side), ORIENTATIONS.index("viewer"), upright)
    level = np.where(world[..., 1] > 0, ORIENTATIONS.index("up"), ORIENTATIONS.index("down"))
    steep = np.abs(world[..., 1])
    classes = np.where(steep <= np.sin(TILT), upright, ORIENTATIONS.index("slanted"))
    return np.where(steep >= np.cos(TILT), level, classes).astype(np.int64)


def height(depth: Array, pose: Array) -> Array:
    """Height above the floor float32 (H,W), metres.

    Args:
        depth: (H,W).
        pose: stored.
    """
    camera = Pose.of(pose).camera
    return np.maximum(np.float32(camera.position[1]) + _rays(camera, depth)[..., 1] * depth, np.float32(0))


def view_angle(normals: Array) -> Array:
    """Cosine float32 (H,W), 0..1, of the angle at which a surface is seen: 1 from the front.

    Args:
        normals: (H,W,3), camera axes (right, forward, up).
    """
    rays = _rays(_upright(), normals)[..., [0, 2, 1]]
    cosine = -(unit_normals(normals) * rays).sum(-1) / np.linalg.norm(rays, axis=-1)
    return np.asarray(np.clip(cosine, 0, 1), np.float32)


def layout(depth: Array, pose: Array) -> Array:
    """Face of the empty room int64 (H,W) that lies behind every pixel, index into ``ROOM_FACES``.

    Args:
        depth: (H,W); only its size counts.
        pose: stored.
    """
    return _empty_room(depth, pose)[1].astype(np.int64)


def layout_depth(depth: Array, pose: Array) -> Array:
    """Depth float32 (H,W) of the empty room, metres.

    Args:
        depth: (H,W); only its size counts.
        pose: stored.
    """
    return np.maximum(_empty_room(depth, pose)[0], depth)  # a tie of a face with what lies flat on it


def light_direction(depth: Array, pose: Array) -> Array:
    """Unit vector float32 (H,W,3) from a surface to the lamp, in camera axes (right, forward, up).

    Args:
        depth: (H,W).
        pose: stored.
    """
    given = Pose.of(pose)
    camera = given.camera
    way = given.lamp - (camera.position + _rays(camera, depth) * depth[..., None])
    way = way @ camera.axes[[0, 2, 1]].T
    return np.asarray(way / np.linalg.norm(way, axis=-1, keepdims=True), np.float32)


# -- things and their edges -------------------------------------------------------------------------------------------
def foreground(things: Array) -> Array:
    """1 on things, 0 on the six faces of the room, float32 (H,W).

    Args:
        things: stored ids (H,W).
    """
    return (things >= len(FACES)).astype(np.float32)


def centre_offset(things: Array) -> Array:
    """Way float32 (H,W,2), x and y, from a pixel to the centre of what is seen of its thing; NaN on the room's faces.

    Args:
        things: stored ids (H,W).
    """
    rows, columns = np.mgrid[: things.shape[0], : things.shape[1]]
    number = things.ravel()
    pixels = np.maximum(np.bincount(number), 1)
    offsets = [np.bincount(number, grid.ravel())[number] / pixels[number] - grid.ravel() for grid in (columns, rows)]
    way = np.stack(offsets, -1).reshape(*things.shape, 2) * (100 / things.shape[1])
    return np.where(foreground(things)[..., None] > 0, way, np.nan).astype(np.float32)


# -- the whole picture ------------------------------------------------------------------------------------------------
def vanishing_direction(depth: Array, pose: Array) -> Array:
    """Unit vector float32 (H,W,2), x and y, towards the point where lines along the room meet; NaN within half a pixel.

    Args:
        depth: (H,W); only its size counts.
        pose: stored.
    """
    height, width = depth.shape
    right, up, forward = Pose.of(pose).camera.axes[:, 2]  # the room's long axis, as the camera sees it
    focal = focal_length(width)
    point = np.array([width / 2 + focal * right / forward, height / 2 - focal * up / forward])
    rows, columns = np.mgrid[:height, :width] + 0.5
    way = point - np.stack([columns, rows], -1)
    length = np.linalg.norm(way, axis=-1, keepdims=True)
    return np.where(length > 0.5, way / np.maximum(length, 0.5), np.nan).astype(np.float32)


def object_count(things: Array) -> Array:
    """Number float32 (H,W), the same everywhere, of things that cover a thousandth of the picture or more.

    Args:
        things: stored ids (H,W).
    """
    pixels = np.bincount(things.ravel())[len(FACES) :]
    return np.full(things.shape, (pixels >= max(VISIBLE * things.size, 1)).sum(), np.float32)


def light_source(depth: Array, pose: Array) -> Array:
    """Unit vector float32 (H,W,3), the same everywhere, from the camera to the lamp (right, forward, up).

    Args:
        depth: (H,W); only its size counts.
        pose: stored.
    """
    given = Pose.of(pose)
    way = given.camera.axes[[0, 2, 1]] @ (given.lamp - given.camera.position)
    return np.broadcast_to((way / np.linalg.norm(way)).astype(np.float32), (*depth.shape, 3))


def _upright() -> Camera:
    return Camera(np.zeros(3), np.eye(3))


def _rays(camera: Camera, picture: Array) -> Array:
    """Rays (H,W,3) of a picture of that size, one unit long along the optical axis."""
    height, width = picture.shape[:2]
    return pixel_rays(camera, (height, width)).T.reshape(height, width, 3)


def _empty_room(depth: Array, pose: Array) -> tuple[Array, Array]:
    given = Pose.of(pose)
    rays = pixel_rays(given.camera, (depth.shape[0], depth.shape[1]))
    distance, faces = leave_room(given.size, given.camera.position, rays)
    return distance.reshape(depth.shape), faces.reshape(depth.shape)


def _share(stored: Array) -> Array:
    return stored.astype(np.float32) / 255


def _lit(light: Array) -> Array:
    return (light == LIT).astype(np.float32)


def _shadowed(light: Array) -> Array:
    return (light == SHADOW).astype(np.float32)


def _whole(stored: Array) -> Array:
    return stored.astype(np.int64)


def _as_it_is(stored: Array) -> Array:
    return stored.astype(np.float32)


LABELS: dict[str, tuple[tuple[str, ...], Callable[..., Array]]] = {
    "segmentation": (("label",), _whole),
    "edges": (("object",), boundary),
    "depth": (("depth",), _as_it_is),
    "normals": (("normals",), unit_normals),
    "albedo": (("albedo",), _share),
    "shading": (("shading",), _share),
    "inverse_depth": (("depth",), lambda depth: 1 / depth),
    "occlusion_edges": (("occlusion",), _as_it_is),
    "orientation": (("normals", "pose"), orientation),
    "height": (("depth", "pose"), height),
    "view_angle": (("normals",), view_angle),
    "layout": (("depth", "pose"), layout),
    "layout_depth": (("depth", "pose"), layout_depth),
    "material": (("pattern",), _whole),
    "curvature": (("curvature",), _as_it_is),
    "light_visibility": (("light",), _lit),
    "cast_shadow": (("light",), _shadowed),
    "light_direction": (("depth", "pose"), light_direction),
    "ambient_occlusion": (("ambient",), _as_it_is),
    "foreground": (("object",), foreground),
    "centre_offset": (("object",), centre_offset),
    "object_count": (("object",), object_count),
    "light_source": (("depth", "pose"), light_source),
    "vanishing_direction": (("depth", "pose"), vanishing_direction),
}
"""{label: (stored fields that it is computed from, function of them)}."""
