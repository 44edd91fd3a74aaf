"""Resampling of images and targets: from any resolution to any other, of a whole frame or of a window of it.

Windows are fractions of the frame, and pixels are areas (the first one's centre is at 0.5), so that arrays of different
resolution stay aligned.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, reduce
from types import ModuleType
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
ENOUGH = 0.5  # a resampled pixel is valid if valid pixels have at least this share of its weight


class Window(NamedTuple):
    """Part of a frame, in fractions of its height and width.

    Args:
        top: first row, as a fraction of the height.
        left: first column, as a fraction of the width.
        share: fraction of the height, and of the width, that the window spans.
    """

    top: float
    left: float
    share: float


FRAME = Window(0.0, 0.0, 1.0)


@cache
def albumentations_geometry() -> ModuleType:
    """albumentations' geometric functions, imported at first use: they take half of a program's start-up time."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # importing must not ask the network for a newer version
    import albumentations.augmentations.geometric.functional as geometry

    return geometry


def _nearest_index(start: float, share: float, length: int, stored: int) -> NDArray[np.intp]:
    positions = (start + (np.arange(length) + 0.5) / length * share) * stored
    return np.clip(np.floor(positions), 0, stored - 1).astype(np.intp)


def resample_nearest(array: Array, size: tuple[int, int], window: Window = FRAME) -> Array:
    """For each output pixel, the input pixel in which its centre lies; any dtype, new array.

    Args:
        array: (H,W) or (H,W,C).
        size: (H, W) of the output.
        window: part of ``array`` to show.
    """
    rows = _nearest_index(window.top, window.share, size[0], array.shape[0])
    columns = _nearest_index(window.left, window.share, size[1], array.shape[1])
    return array[rows[:, None], columns]


def resize(array: Array, size: tuple[int, int]) -> Array:
    """Area average where the size shrinks, bilinear where it grows; same layout.

    Args:
        array: float or uint8, (H,W) or (H,W,C).
        size: (H, W) of the output.
    """
    if array.shape[:2] == size:
        return array
    shrinks = size[0] <= array.shape[0] and size[1] <= array.shape[1]
    resized = cv2.resize(array, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return resized.reshape(*size, *array.shape[2:])  # cv2 drops a channel axis of length 1


def magnify(array: Array, window: Window) -> Array:
    """Enlarge a window of an array to the array's own size, bilinear.

    Args:
        array: float32 or uint8, (H,W) or (H,W,C).
        window: part of ``array`` to show.
    """
    height, width = array.shape[:2]
    matrix = np.array(
        [
            [window.share, 0, window.left * width + (window.share - 1) / 2],
            [0, window.share, window.top * height + (window.share - 1) / 2],
            [0, 0, 1],
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = albumentations_geometry().warp_affine(array, matrix, flags, 0, cv2.BORDER_REPLICATE, (height, width))
    return np.asarray(warped).reshape(array.shape)


def known(target: Array, invalid_value: float) -> NDArray[np.bool_]:
    """Pixels (H,W) of a stored target that carry a label: finite, and not ``invalid_value`` in every channel.

    Args:
        target: (H,W) or (H,W,C).
        invalid_value: marks a pixel without label.
    """
    channels = np.moveaxis(target.reshape(*target.shape[:2], -1), -1, 0)  # numpy is slow over a short last axis
    finite = reduce(np.logical_and, [np.isfinite(channel) for channel in channels])
    return np.asarray(finite & reduce(np.logical_or, [channel != invalid_value for channel in channels]))


def masked(target: Array, invalid_value: float, resample: Callable[[Array], Array]) -> Array:
    """Resample a float target from its valid pixels only, float32.

    Weights of the neighbours that ``resample`` mixes are renormalised over the valid ones. A pixel with less than half
    of its weight on valid ones becomes ``invalid_value``.

    Args:
        target: (H,W) or (H,W,C).
        invalid_value: marks a pixel without label.
        resample: mixes the pixels of a float32 array, as ``resize`` and ``magnify`` do.
    """
    values, valid = target.astype(np.float32), known(target, invalid_value)
    if valid.all():
        return resample(values)
    layers = values.reshape(*values.shape[:2], -1)
    stack = np.concatenate([np.where(valid[..., None], layers, 0), valid[..., None]], axis=-1, dtype=np.float32)
    mixed = resample(stack)
    weight = mixed[..., -1:]
    result = np.where(weight >= ENOUGH, mixed[..., :-1] / np.maximum(weight, ENOUGH), np.float32(invalid_value))
    return result.reshape(*mixed.shape[:2], *target.shape[2:]).astype(np.float32)
