"""Edge maps: what an image, its labels, its depth and its normals have in common."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from symerge_dense.datasets.boundary import boundary
from symerge_dense.datasets.invalid import SHORTEST_NORMAL
from symerge_dense.datasets.numbered import INVALID_LABEL

Array = NDArray[Any]
Strength = NDArray[np.float32]
SIZE = (36, 48)  # rows, columns of an edge map: coarse enough to forgive labels that are drawn a few pixels off
WORKING = 100    # rows that are enough to find edges at; larger files are thinned to no fewer
SHARPEST = 0.2   # relative second difference of 1/depth from which a jump is a jump, however far


def edge_map(folder: str, array: Array) -> Strength:
    """Where a stored file of ``folder`` (image, label, depth, normal) changes: float32 (36,48), >= 0.

    Image: gradient of the luminance. Label: share of class borders. Depth: second differences of 1/depth, which are 0
    on every plane, relative to it. Normals: length of the differences. Nothing is an edge beside an invalid pixel.
    """
    step = max(array.shape[0] // WORKING, 1)
    layers = array[::step, ::step].reshape(*array[::step, ::step].shape[:2], -1).astype(np.float32)
    layers = np.nan_to_num(layers, nan=0, posinf=0, neginf=0)
    strength = {"image": _image, "label": _label, "depth": _depth, "normal": _normal}[folder](layers)
    return np.sqrt(cv2.resize(strength, SIZE[::-1], interpolation=cv2.INTER_AREA))


def _image(layers: Strength) -> Strength:
    down, across = np.gradient(cv2.blur(layers.mean(-1), (3, 3)))
    return np.hypot(down, across)


def _label(layers: Strength) -> Strength:
    labels = layers[..., 0].astype(np.int64)
    edges = boundary(labels, (labels >= 0) & (labels != INVALID_LABEL))
    return np.where(edges == 1, edges, np.float32(0))


def _depth(layers: Strength) -> Strength:
    depth = layers[..., 0]
    inverse = np.divide(1, depth, out=np.zeros_like(depth), where=depth > 0)
    bend = np.zeros_like(depth)
    bend[1:-1] += np.abs(inverse[2:] + inverse[:-2] - 2 * inverse[1:-1])
    bend[:, 1:-1] += np.abs(inverse[:, 2:] + inverse[:, :-2] - 2 * inverse[:, 1:-1])
    return np.where(_surrounded(depth > 0), np.minimum(bend * depth, SHARPEST), np.float32(0)).astype(np.float32)


def _normal(layers: Strength) -> Strength:
    change = np.zeros(layers.shape[:2], np.float32)
    change[1:] += np.linalg.norm(layers[1:] - layers[:-1], axis=-1)
    change[:, 1:] += np.linalg.norm(layers[:, 1:] - layers[:, :-1], axis=-1)
    return np.where(_surrounded(np.linalg.norm(layers, axis=-1) >= SHORTEST_NORMAL), change, np.float32(0))


def _surrounded(known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Known pixels whose eight neighbours are known too."""
    return cv2.erode(known.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
