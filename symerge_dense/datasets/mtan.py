"""The crop of MTAN (Liu et al. 2019, arXiv 1803.10704) and LibMTL, kept to the letter for comparable numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

Array = NDArray[Any]
BILINEAR = frozenset({"normals"})  # every other target is resampled by nearest


class _Named(Protocol):
    @property
    def name(self) -> str: ...


def mtan_crop(frame: tuple[int, int], scale: float, down: float,
              across: float) -> Callable[[Array, _Named | None], Array]:
    """A function that crops int(H/scale) x int(W/scale) at a random place and resizes back.

    ``frame`` (H,W) is the image's size; ``down``, ``across`` in [0,1) choose one of all H-h+1 (W-w+1) offsets. Images
    and normals: bilinear, align_corners=True, nothing renormalised; the rest: nearest, rounding down. The function
    takes an array (H,W[,C]), of any resolution, and its rule (None for the image).
    """
    offsets = [int(part * (length - int(length / scale) + 1))
               for part, length in zip((down, across), frame, strict=True)]

    def crop(array: Array, rule: _Named | None) -> Array:
        size = array.shape[:2]
        extent = [int(length / scale) for length in size]
        first = [min(round(offset * own / full), own - part)
                 for offset, own, full, part in zip(offsets, size, frame, extent, strict=True)]
        piece = array[first[0]:first[0] + extent[0], first[1]:first[1] + extent[1]]
        layers = torch.from_numpy(piece.reshape(*extent, -1).astype(np.float32)).permute(2, 0, 1)[None]
        if rule is None or rule.name in BILINEAR:
            resized = F.interpolate(layers, size, mode="bilinear", align_corners=True)
        else:
            resized = F.interpolate(layers, size, mode="nearest")
        return resized[0].permute(1, 2, 0).reshape(array.shape).numpy()

    return crop
