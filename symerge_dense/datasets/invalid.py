"""Depth and normals as files hold them, with all that cannot be true marked invalid the way the tasks expect it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SHORTEST_NORMAL = 0.5  # a shorter one is a blend of opposites or a quantised zero


def known_depth(values: NDArray[Any]) -> NDArray[np.float32]:
    """Depth in metres, any shape, as float32; 0 where it is not positive or not finite."""
    depth = values.astype(np.float32)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def known_normals(values: NDArray[Any]) -> NDArray[np.float32]:
    """Normals (H,W,3) as float32, unchanged; the zero vector where one is not finite or shorter than 0.5."""
    normals = values.astype(np.float32)
    finite = np.isfinite(normals).all(-1, keepdims=True)
    length = np.linalg.norm(np.where(finite, normals, 0).astype(np.float64), axis=-1, keepdims=True)
    return np.where(finite & (length >= SHORTEST_NORMAL), normals, np.float32(0))
