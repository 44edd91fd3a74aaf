"""Analytic ray casting of a room: boxes and spheres, one point lamp with hard shadows, ambient light."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from symerge_dense.datasets.rooms.primitives import Part
from symerge_dense.datasets.rooms.scene import FACES, Camera, Scene, focal_length
from symerge_dense.datasets.targets import boundary

Array = NDArray[np.float32]
Ids = NDArray[np.int16]
SHADOW_GAP = 2e-3  # of the way to the lamp: a surface must not shade itself
EXPOSURE = 1.7
AWAY, SHADOW, LIT = range(3)  # a surface faces away from the lamp, faces it with something in between, or sees it
SUBPIXELS = ((-0.375, -0.125), (0.125, -0.375), (0.375, 0.125), (-0.125, 0.375))


class Surface(NamedTuple):
    """What n rays see.

    Args:
        distance: (n,) in ray lengths.
        ids: (n,) surface ids: the six faces of the room, then the parts of the scene.
        normal: (3,n) unit vectors.
        albedo: (3,n).
        shading: (n,).
        light: (n,) ``AWAY``, ``SHADOW`` or ``LIT``.
    """

    distance: Array
    ids: Ids
    normal: Array
    albedo: Array
    shading: Array
    light: NDArray[np.uint8]


def camera_rays(camera: Camera, size: tuple[int, int], rows: Array, columns: Array) -> Array:
    """Rays (3,n) through pixel positions, one unit long along the optical axis.

    Args:
        camera: where the rays start.
        size: (H, W) of the picture.
        rows: (n,) positions in pixels; 0.5 is the first pixel's centre.
        columns: (n,) positions in pixels.
    """
    focal = focal_length(size[1])
    inside = np.stack([(columns - size[1] / 2) / focal, (size[0] / 2 - rows) / focal, np.ones_like(rows)])
    return np.asarray(camera.axes.T @ inside, np.float32)


def pixel_rays(camera: Camera, size: tuple[int, int]) -> Array:
    """Rays (3,H*W) through the centres of all pixels, row by row; see ``camera_rays``.

    Args:
        camera: where the rays start.
        size: (H, W) of the picture.
    """
    rows, columns = (grid.ravel() + np.float32(0.5) for grid in np.mgrid[: size[0], : size[1]].astype(np.float32))
    return camera_rays(camera, size, rows, columns)


def _enter(part: Part, origin: NDArray[np.float64], rays: Array) -> Array:
    """Distance (n,) in ray lengths at which each ray enters ``part``; infinite where it misses."""
    start = (part.rotation.T @ (origin - part.center)).astype(np.float32)[:, None]
    local = part.rotation.T.astype(np.float32) @ rays
    if part.sphere:
        a, b = (local * local).sum(0), (local * start).sum(0)
        gap = b * b - a * (float((start * start).sum()) - np.float32(part.half[0]) ** 2)
        near = (-b - np.sqrt(np.maximum(gap, 0))) / a
        return np.asarray(np.where((gap > 0) & (near > 0), near, np.inf), np.float32)
    inverse = 1 / np.where(np.abs(local) < 1e-9, np.float32(1e-9), local)
    middle, reach = -start * inverse, part.half.astype(np.float32)[:, None] * np.abs(inverse)
    first, last = (middle - reach).max(0), (middle + reach).min(0)
    return np.asarray(np.where((first <= last) & (first > 0), first, np.inf), np.float32)


def _candidates(part: Part, origin: NDArray[np.float64], rays: Array, squared: Array) -> NDArray[np.intp]:
    """Rays that meet the part's bounding sphere."""
    to, radius = part.center - origin, part.half[0] if part.sphere else np.linalg.norm(part.half)
    outside = float(to @ to - radius * radius)
    if outside <= 0:
        return np.arange(rays.shape[1])
    along = to.astype(np.float32) @ rays
    return np.flatnonzero((along > 0) & (along * along >= np.float32(outside) * squared))


def _nearest(scene: Scene, origin: NDArray[np.float64], rays: Array, limit: Array, ids: Ids) -> tuple[Array, Ids]:
    """Nearest part in front of ``limit`` (n,); ``limit`` and ``ids`` keep their values where no part is nearer."""
    squared = (rays * rays).sum(0)
    for number, part in enumerate(scene.parts, start=len(FACES)):
        index = _candidates(part, origin, rays, squared)
        if not index.size:
            continue
        distance = _enter(part, origin, rays[:, index])
        nearer = distance < limit[index]
        limit[index[nearer]], ids[index[nearer]] = distance[nearer], number
    return limit, ids


def leave_room(size: NDArray[np.float64], origin: NDArray[np.float64], rays: Array) -> tuple[Array, Ids]:
    """Distance (n,) in ray lengths at which each ray meets a face of an empty room, and which of the six that is.

    Args:
        size: (3,) of the room, as in ``Scene``.
        origin: (3,) start of the rays, in the room.
        rays: (3,n).
    """
    ahead = rays > 0
    gap = np.where(ahead, size[:, None], 0).astype(np.float32) - origin.astype(np.float32)[:, None]
    with np.errstate(divide="ignore"):
        distance = np.where(rays == 0, np.inf, gap / rays).astype(np.float32)
    axis = distance.argmin(0)
    ray = np.arange(rays.shape[1])
    return distance[axis, ray], (2 * axis + ahead[axis, ray]).astype(np.int16)


def _face_surface(scene: Scene, face: int, points: Array) -> tuple[Array, Array, float]:
    normal = np.zeros_like(points)
    normal[face // 2] = -1.0 if face % 2 else 1.0
    u, v = {0: (points[2], points[1]), 1: (points[0], points[2]), 2: (points[0], points[1])}[face // 2]
    return normal, np.asarray(scene.faces[face].albedo(u, v), np.float32), 0.0


def _part_surface(part: Part, points: Array) -> tuple[Array, Array, float]:
    local = part.rotation.T.astype(np.float32) @ (points - part.center.astype(np.float32)[:, None])
    if part.sphere:
        normal = local / np.float32(part.half[0])
        u, v = np.arctan2(local[0], local[2]) * np.float32(part.half[0]), local[1]
    else:
        axis = (np.abs(local) / part.half.astype(np.float32)[:, None]).argmax(0)
        ray = np.arange(axis.size)
        normal = np.zeros_like(local)
        normal[axis, ray] = np.sign(local[axis, ray])
        u, v = local[np.where(axis == 0, 2, 0), ray], local[np.where(axis == 1, 2, 1), ray]
    turned = np.asarray(part.rotation.astype(np.float32) @ normal, np.float32)
    return turned, np.asarray(part.texture.albedo(u, v), np.float32), part.glow


def ambient_light(scene: Scene, points: Array, normal: Array) -> Array:
    """Share (n,) of the ambient light that corners leave: each face darkens what is close and not parallel to it.

    Args:
        scene: the room.
        points: (3,n) on surfaces.
        normal: (3,n) unit vectors.
    """
    light = np.ones(points.shape[1], np.float32)
    for axis in range(3):
        for gap, slope in ((points[axis], normal[axis]), (np.float32(scene.size[axis]) - points[axis], -normal[axis])):
            light *= 1 - np.float32(0.3) * np.clip(1 - slope, 0, 1) * np.exp(-4 * np.maximum(gap, 0))
    return light


def _lamp(scene: Scene, points: Array, normal: Array) -> tuple[Array, NDArray[np.uint8]]:
    """Light (n,) that comes straight from the lamp, and whether a surface faces it and sees it."""
    beam = points - scene.lamp.astype(np.float32)[:, None]
    length = np.sqrt((beam * beam).sum(0))
    facing = np.maximum(-(beam * normal).sum(0) / length, 0)
    lit = np.flatnonzero(facing > 0)
    reach = np.full(lit.size, 1 - SHADOW_GAP, np.float32)
    _, blocker = _nearest(scene, scene.lamp, beam[:, lit], reach, np.full(lit.size, -1, np.int16))
    light = np.full(length.size, AWAY, np.uint8)
    light[lit] = np.where(blocker >= 0, SHADOW, LIT)
    facing[lit[blocker >= 0]] = 0
    return np.asarray(np.float32(scene.power) * facing / (1 + (length / 4) ** 2)), light


def _shade(scene: Scene, points: Array, normal: Array, glow: Array) -> tuple[Array, NDArray[np.uint8]]:
    """Shading (n,) in [0,1]: ambient light, plus the lamp where nothing is in between, plus the surface's own glow."""
    direct, light = _lamp(scene, points, normal)
    ambient = np.float32(scene.ambient) * (0.95 + 0.05 * normal[1]) * ambient_light(scene, points, normal)
    exposed = 1 - np.exp(np.float32(-EXPOSURE) * (ambient + direct))  # highlights stay below 1 without a plateau
    return np.asarray(glow + (1 - glow) * exposed, np.float32), light


def first_hit(scene: Scene, origin: NDArray[np.float64], rays: Array) -> tuple[Array, Ids]:
    """Distance (n,) in ray lengths to the first surface, and its id, as in ``Surface``.

    Args:
        scene: what can be seen.
        origin: (3,) start of the rays.
        rays: (3,n).
    """
    return _nearest(scene, origin, rays, *leave_room(scene.size, origin, rays))


def look(scene: Scene, origin: NDArray[np.float64], rays: Array) -> Surface:
    """Follow rays to the first surface.

    Args:
        scene: what can be seen.
        origin: (3,) start of the rays.
        rays: (3,n).
    """
    distance, ids = first_hit(scene, origin, rays)
    points = origin.astype(np.float32)[:, None] + rays * distance
    normal, albedo, glow = np.empty_like(points), np.empty_like(points), np.zeros_like(distance)
    order = np.argsort(ids, kind="stable")
    starts = np.flatnonzero(np.diff(ids[order], prepend=-1))
    for index in np.split(order, starts[1:]):
        number = int(ids[index[0]])
        if number < len(FACES):
            found = _face_surface(scene, number, points[:, index])
        else:
            found = _part_surface(scene.parts[number - len(FACES)], points[:, index])
        normal[:, index], albedo[:, index], glow[index] = found
    return Surface(distance, ids, normal, albedo, *_shade(scene, points, normal, glow))


def _smooth(scene: Scene, size: tuple[int, int], view: Surface) -> None:
    """Anti-alias in place: where neighbours differ, albedo and shading become the mean of four rays per pixel."""
    busy = boundary(view.ids.reshape(size)) > 0
    for values, step in ((view.albedo.sum(0), 0.2), (view.shading, 0.08)):
        grid = values.reshape(size)
        busy[:, :-1] |= np.abs(np.diff(grid, axis=1)) > step
        busy[:-1] |= np.abs(np.diff(grid, axis=0)) > step
    rows, columns = np.nonzero(busy)
    if not rows.size:
        return
    offsets = np.array(SUBPIXELS, np.float32) + 0.5
    points = np.stack([rows, columns], 1)[:, None, :] + offsets
    rays = camera_rays(scene.camera, size, points[..., 0].ravel(), points[..., 1].ravel())
    fine = look(scene, scene.camera.position, rays)
    index = np.flatnonzero(busy)
    view.albedo[:, index] = fine.albedo.reshape(3, -1, len(SUBPIXELS)).mean(2)
    view.shading[index] = fine.shading.reshape(-1, len(SUBPIXELS)).mean(1)


def render(scene: Scene, size: tuple[int, int]) -> dict[str, NDArray[Any]]:
    """All labels of one view, exact at pixel centres.

    Args:
        scene: what the camera sees.
        size: (H, W) of the picture.

    Returns:
        Arrays (H,W) or (H,W,3): ``albedo``, ``shading`` in [0,1] (their product is the noise-free image), ``depth``
        along the optical axis (m), ``normals`` in camera axes (right, forward, up), ``label`` (index into NYU13),
        ``object`` (id of the thing seen).
    """
    view = look(scene, scene.camera.position, pixel_rays(scene.camera, size))
    _smooth(scene, size, view)
    right, up, forward = scene.camera.axes.astype(np.float32)
    normals = np.stack([right, forward, up]) @ view.normal
    things = np.array([*range(len(FACES)), *scene.objects], np.uint8)
    return {
        "albedo": view.albedo.T.reshape(*size, 3),
        "shading": view.shading.reshape(size),
        "depth": view.distance.reshape(size),
        "normals": normals.T.reshape(*size, 3),
        "label": scene.labels[view.ids].reshape(size),
        "object": things[view.ids].reshape(size),
    }
