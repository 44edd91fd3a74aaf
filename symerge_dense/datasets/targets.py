"""What data sets share about targets: invalid values, cleaned depth and normals, edge maps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

INVALID_LABEL = 255  # class of a pixel without one
SHORTEST_NORMAL = 0.5  # a shorter one is a blend of opposites, or the mid-grey that 8 bits store for zero
LONGEST_NORMAL = 1.2  # a longer one is a colour: white painted around a mask decodes to a length of 1.7
NYU_FRAME = (480, 640)  # rows and columns of NYUv2's original frames
EIGEN_CROP = (45, 471, 41, 601)
"""First row, end row, first column, end column of the part of an ``NYU_FRAME`` that depth papers test on (426 x 560;
Eigen et al. 2014, arXiv 1406.2283)."""


def known_depth(values: NDArray[Any]) -> NDArray[np.float32]:
    """Depth as float32; 0 where it is not positive or not finite.

    Args:
        values: metres, any shape.
    """
    depth = values.astype(np.float32)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def known_normals(values: NDArray[Any]) -> NDArray[np.float32]:
    """Normals as float32, unchanged; the zero vector where one is not finite or shorter than 0.5.

    Args:
        values: (H,W,3).
    """
    normals = values.astype(np.float32)
    finite = np.isfinite(normals).all(-1, keepdims=True)
    length = np.linalg.norm(np.where(finite, normals, 0).astype(np.float64), axis=-1, keepdims=True)
    return np.where(finite & (length >= SHORTEST_NORMAL), normals, np.float32(0))


def boundary(regions: NDArray[np.integer[Any]], valid: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """Edge map of a region map: 1 where a 4-neighbour belongs to another region.

    Both sides of a boundary are marked, so a line is two pixels wide. A boundary towards an invalid pixel is unknown
    and therefore no edge.

    Args:
        regions: region ids (H,W).
        valid: pixels (H,W) whose region is known; None for all.

    Returns:
        float32 (H,W): 1 on edges, 0 elsewhere, 255 where ``valid`` is False.
    """
    known = np.ones(regions.shape, bool) if valid is None else valid
    edges = np.zeros(regions.shape, bool)
    across = (regions[:, 1:] != regions[:, :-1]) & known[:, 1:] & known[:, :-1]
    down = (regions[1:] != regions[:-1]) & known[1:] & known[:-1]
    edges[:, 1:] |= across
    edges[:, :-1] |= across
    edges[1:] |= down
    edges[:-1] |= down
    return np.where(known, edges, INVALID_LABEL).astype(np.float32)
