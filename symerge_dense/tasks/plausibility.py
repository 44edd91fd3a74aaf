"""What cannot be true of labels: another unit, colours in place of vectors, numbers that are no class.

Each function returns the end of a sentence "<file> is ...": what was found, what is expected and what to do; or None.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from symerge_dense.datasets.targets import SHORTEST_NORMAL

Array = NDArray[Any]
ENOUGH = 4_000  # evenly spaced pixels show a wrong unit; every label that is read is looked at, so few of them
UNIT_TOLERANCE = 0.2  # of a length; resampled normals are a little shorter than 1
COLOUR_TOLERANCE = 0.05  # where no number is negative: colours 0..1 have lengths around 1 too
MOST_NEGATIVE = 0.01  # share of pixels; resampling mixes a marker with depth along edges
ROUNDING = 1e-3  # a resized target may be this much beyond 0 or 1


def outside_classes(target: Array, classes: int, invalid_value: float) -> str | None:
    """Numbers that are neither a class nor 'no label'.

    Args:
        target: class numbers (H,W).
        classes: how many there are.
        invalid_value: marks a pixel without label.
    """
    wrong = (target != invalid_value) & ((target < 0) | (target >= classes))
    if not wrong.any():
        return None
    found = ", ".join(map(str, np.unique(target[wrong])[:5].tolist()))
    return (
        f"a class map with {found}: allowed are 0..{classes - 1}, and {invalid_value:g} for no label; give the task "
        "its number of classes, or change the numbers (map={stored: class} and invalid= of a FolderDataset)."
    )


def too_far(target: Array, limit: float) -> str | None:
    """Millimetres or centimetres in place of metres.

    Args:
        target: metres, (H,W) or (H,W,1); not positive or not finite where unknown.
        limit: highest possible median.
    """
    known = _some(target)
    known = known[np.isfinite(known) & (known > 0)]
    median = float(np.median(known)) if known.size else 0.0
    if median <= limit:
        return None
    return (
        f"{median:.5g} m in the median, above {limit:g} m: depth is in metres, so multiply it by 0.001 if it is in "
        "millimetres (scale=1e-3 of a FolderDataset); if it is right, give the task depth a higher max_median."
    )


def negative(target: Array) -> str | None:
    """Negative depth that marks nothing: one number, such as -1, may mean 'no label', but not many of them.

    Args:
        target: metres, (H,W) or (H,W,1).
    """
    known = _some(target)
    known = known[np.isfinite(known)]
    found, counts = np.unique(known[known < 0], return_counts=True)
    share = (counts.sum() - counts.max()) / known.size if found.size else 0.0
    if share <= MOST_NEGATIVE:
        return None
    return (
        f"negative in {counts.sum() / known.size:.0%} of its pixels, with values {found[0]:.4g}..{found[-1]:.4g} m: "
        "depth is positive where it is known; if the axis points backwards, change the sign (scale=-1 of a "
        "FolderDataset), and store one number where there is no label (invalid=-1 there)."
    )


def not_unit_vectors(target: Array) -> str | None:
    """Vectors of another length than 1, such as normals painted as colours.

    Args:
        target: (H,W,3).
    """
    values = _some(target).astype(np.float64)
    length = np.linalg.norm(values, axis=-1)
    known = np.isfinite(length) & (length >= SHORTEST_NORMAL)
    if not known.any():
        return None
    low, high, remedy = values[known].min(), values[known].max(), "divide each by its length"
    tolerance = UNIT_TOLERANCE if low < 0 else COLOUR_TOLERANCE
    if np.mean(np.abs(length[known] - 1) < tolerance) >= 0.5:
        return None
    if low >= 0:
        white = 255 if 1.5 < high <= 255 else 65535 if high > 255 else 1
        remedy = (
            f"if they are painted as colours, take 2 * value / {white} - 1 (scale=2/{white}, offset=-1 of a "
            "FolderDataset), else divide each by its length"
        )
    return (
        f"{np.median(length[known]):.3g} long in the median, with values {low:.3g}..{high:.3g}: normals are vectors of "
        f"length 1; {remedy}."
    )


def outside_unit_interval(target: Array, invalid_value: float) -> str | None:
    """A probability or a share that is not in 0..1.

    Args:
        target: (H,W) or (H,W,C).
        invalid_value: may occur too; where it is negative, so may any other negative number.
    """
    known = target[np.isfinite(target) & (target != invalid_value)]
    known = known[known >= 0] if invalid_value < 0 else known
    if not known.size or (known.min() >= -ROUNDING and known.max() <= 1 + ROUNDING):
        return None
    white = 255 if known.max() <= 255 else 65535
    return (
        f"{known.min():.4g}..{known.max():.4g}: values must be in 0..1; divide them by their highest possible value "
        f"(such as scale=1/{white} of a FolderDataset)."
    )


def _some(target: Array) -> Array:
    """Evenly spaced pixels of a label, (N,C)."""
    pixels = target.reshape(target.shape[0] * target.shape[1], -1)
    return pixels[:: max(len(pixels) // ENOUGH, 1)]
