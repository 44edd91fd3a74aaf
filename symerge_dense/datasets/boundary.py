"""Edges as the boundary between regions of an integer map: one definition for every data set."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def boundary(regions: NDArray[np.integer[Any]], valid: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """Edge map (H,W): 1 where a 4-neighbour belongs to another region, else 0; 255 where ``valid`` is False.

    Both sides of a boundary are marked, so a line is two pixels wide. A boundary towards an invalid pixel is unknown
    and therefore no edge.
    """
    known = np.ones(regions.shape, bool) if valid is None else valid
    edges = np.zeros(regions.shape, bool)
    across = (regions[:, 1:] != regions[:, :-1]) & known[:, 1:] & known[:, :-1]
    down = (regions[1:] != regions[:-1]) & known[1:] & known[:-1]
    edges[:, 1:] |= across
    edges[:, :-1] |= across
    edges[1:] |= down
    edges[:-1] |= down
    return np.where(known, edges, 255).astype(np.float32)
