"""The camera of NYUv2, and surface normals from its depth."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]


class Intrinsics(NamedTuple):
    """A pinhole camera; the centre of the first pixel is at (0, 0).

    Args:
        fx: horizontal focal length, pixels.
        fy: vertical focal length, pixels.
        cx: column of the principal point.
        cy: row of the principal point.
    """

    fx: float
    fy: float
    cx: float
    cy: float

    def cropped(self, top: float, left: float) -> Intrinsics:
        """The camera of a picture without its first rows and columns.

        Args:
            top: number of rows that are cut off.
            left: number of columns that are cut off.
        """
        return self._replace(cx=self.cx - left, cy=self.cy - top)

    def scaled(self, sy: float, sx: float) -> Intrinsics:
        """The camera of a resized picture; pixels are areas.

        Args:
            sy: factor of the height.
            sx: factor of the width.
        """
        return Intrinsics(self.fx * sx, self.fy * sy, (self.cx + 0.5) * sx - 0.5, (self.cy + 0.5) * sy - 0.5)


RGB_CAMERA = Intrinsics(518.857901, 519.469611, 325.582449 - 1, 253.736166 - 1)
"""Camera of the 480 x 640 RGB frames, onto which NYUv2 projects its depth (camera_params.m counts pixels from 1)."""

RADIUS = 10  # pixels; a window is 21 x 21, over which the steps of the sensor average out
SHIFTED = 0.005  # a window beside the pixel must fit better than the one around it by this much
ROUGH = 0.03  # a larger relative misfit is a jump or clutter, not a surface
FILLED = 1 / 3  # share of a window that must have depth


def normals_from_depth(depth: Array, intrinsics: Intrinsics) -> NDArray[np.float32]:
    """Unit normals towards the camera, from depth; the zero vector where unknown.

    A plane n . p = d seen through a pinhole has 1/depth = n . ray / d, which is linear in the pixel. So planes are
    fitted to 1/depth by least squares, exactly, in square windows. Each pixel uses the window with the least misfit,
    among the one around it and those that have it on their rim: normals stay sharp at creases and depth jumps.
    Unknown are pixels without depth, and those that no window's plane meets within 3 % of their depth.

    Args:
        depth: (H,W) metres along the optical axis; <= 0 or not finite is invalid.
        intrinsics: of the camera that saw ``depth``.

    Returns:
        float32 (H,W,3), channels (x right, z forward, y up).

    Raises:
        ValueError: ``depth`` is not (H,W).
    """
    if depth.ndim != 2:
        raise ValueError(f"depth of shape {depth.shape}: give (H, W) metres, without a channel axis.")
    known = np.isfinite(depth) & (depth > 0)
    inverse: Floats = np.divide(1.0, depth, out=np.zeros(depth.shape), where=known)
    grid: Array = np.indices(depth.shape)
    rows, columns = grid[0], grid[1]
    slope_x, slope_y, origin, misfit = _planes(inverse, known, rows, columns)
    window = _best_window(misfit, rows, columns)
    slope_x, slope_y, origin, misfit = (layer[window] for layer in (slope_x, slope_y, origin, misfit))
    off = np.abs(slope_x * columns + slope_y * rows + origin - inverse)
    seen = known & (misfit < ROUGH) & (off < ROUGH * inverse)
    forward = origin + slope_x * intrinsics.cx + slope_y * intrinsics.cy
    normal = np.stack([-slope_x * intrinsics.fx, -forward, slope_y * intrinsics.fy], axis=-1)
    length = np.linalg.norm(normal, axis=-1)
    seen &= length > 0
    return np.where(seen[..., None], normal / np.where(seen, length, 1)[..., None], 0).astype(np.float32)


def _planes(inverse: Floats, known: Array, rows: Array, columns: Array) -> tuple[Floats, Floats, Floats, Floats]:
    """Fit a plane to 1/depth in every window; windows are listed by their centre, (H,W).

    Returns slope along x, slope along y, value at pixel (0,0) and relative rms misfit of 1/depth. The misfit is
    infinite where too little of the window has depth.
    """
    flat, ramp = np.ones(2 * RADIUS + 1), np.arange(-RADIUS, RADIUS + 1.0)

    def sums(layer: Floats, across: Floats, down: Floats) -> Floats:
        return cv2.sepFilter2D(layer, cv2.CV_64F, across, down, borderType=cv2.BORDER_CONSTANT)

    weight = known.astype(np.float64)
    count = sums(weight, flat, flat)
    share = 1 / np.maximum(count, 1)
    x, y, z = (sums(weight, ramp, flat) * share, sums(weight, flat, ramp) * share, sums(inverse, flat, flat) * share)
    xx = sums(weight, ramp * ramp, flat) * share - x * x
    yy = sums(weight, flat, ramp * ramp) * share - y * y
    xy = sums(weight, ramp, ramp) * share - x * y
    xz, yz = sums(inverse, ramp, flat) * share - x * z, sums(inverse, flat, ramp) * share - y * z
    zz = sums(inverse * inverse, flat, flat) * share - z * z
    determinant = xx * yy - xy * xy
    fits = (count >= FILLED * flat.size**2) & (determinant > 1)  # 1 pixel^4; it is 0 where the pixels lie on a line
    determinant = np.where(fits, determinant, 1)
    slope_x, slope_y = (xz * yy - yz * xy) / determinant, (yz * xx - xz * xy) / determinant
    variance = np.maximum(zz - slope_x * xz - slope_y * yz, 0)
    misfit = np.where(fits, np.sqrt(variance) / np.where(fits, z, 1), np.inf)
    return slope_x, slope_y, z - slope_x * (x + columns) - slope_y * (y + rows), misfit


def _best_window(misfit: Floats, rows: Array, columns: Array) -> tuple[Array, Array]:
    """For every pixel, row and column of the centre of the window that it uses."""
    height, width = misfit.shape
    padded = np.pad(misfit, RADIUS, constant_values=np.inf)
    best, row, column = misfit - SHIFTED, rows, columns
    for down in (-RADIUS, 0, RADIUS):
        for across in (-RADIUS, 0, RADIUS):
            other = padded[RADIUS + down : RADIUS + down + height, RADIUS + across : RADIUS + across + width]
            better = other < best
            best = np.where(better, other, best)
            row, column = np.where(better, rows + down, row), np.where(better, columns + across, column)
    return row, column
