"""A measured number and its direction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Metric(NamedTuple):
    """A measured value and its direction.

    Args:
        value: in the metric's own unit; NaN where nothing was measured.
        higher_is_better: False for errors.
        parts: what a mean is made of, in the same unit, by name: the classes of mIoU. None for one that was
            not measured, and for a metric without parts.

    >>> Metric(0.57, higher_is_better=False).value
    0.57
    """

    value: float
    higher_is_better: bool
    parts: Mapping[str, float | None] | None = None
