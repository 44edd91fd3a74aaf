"""Surface normals out of 8-bit pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SHORTEST = 0.5  # a shorter vector is mid-grey, the 0 that 8 bits cannot hold, or a blend of opposites
LONGEST = 1.2  # a longer one is no direction but a colour: some archives paint what has no normal white


def decode_normals(image: NDArray[np.uint8], mask: NDArray[Any] | None = None) -> NDArray[np.float32]:
    """Unit vectors (H,W,3) float32 of the values 0..255 of ``image`` (H,W,3), -1..1 by 2v/255 - 1; channels as stored.

    The pictures of Eigen and Fergus (2015, arXiv 1411.4734) hold R right, G forward, B up, the axes of this package.
    The zero vector marks what is invalid: ``mask`` (H,W) 0, or a vector shorter than 0.5 or longer than 1.2.

    Raises ValueError for an ``image`` that is not uint8 (H,W,3), or a ``mask`` of another size.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"normals are {image.dtype} of shape {image.shape}, expected an 8-bit RGB picture (H, W, 3).")
    if mask is not None and mask.shape != image.shape[:2]:
        raise ValueError(f"the mask of normals is {mask.shape}, the normals are {image.shape[:2]}: they must be equal.")
    vectors = image.astype(np.float32) * np.float32(2 / 255) - 1
    length = np.linalg.norm(vectors, axis=-1)
    valid = (length >= SHORTEST) & (length <= LONGEST)
    if mask is not None:
        valid &= mask != 0
    return np.where(valid[..., None], vectors / np.maximum(length, SHORTEST)[..., None], np.float32(0))
