"""A few images over and over and most others never: what a camera collects that hardly ever moves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from symerge_dense.datasets.transforms import Augment, TargetRule
from symerge_dense.datasets.wrapper import Wrapper
from symerge_dense.registry import DATASETS


@DATASETS.register_module()
class LongTailed(Wrapper):
    """A data set of the same length in which the copies of an image fall with its number, by Zipf's law.

    Image k, from 0, has a share of 1 / (k + 1) ** exponent. With exponent 1, 200 images are 94 different ones, the
    first of them 34 times; with exponent 2 they are 21, the first 122 times.

    Args:
        dataset: spec of the data set, ``dict(type=...)``.
        exponent: 0 takes every image once, in its place; the larger, the fewer images dominate.
        tasks: as in ``DenseDataset``.
        augment: as in ``DenseDataset``.
        seed: of the augmentation.

    Raises:
        ValueError: ``exponent`` is negative or not finite.
    """

    def __init__(
        self,
        dataset: Mapping[str, Any],
        exponent: float = 1.0,
        tasks: Mapping[str, TargetRule | dict[str, Any]] | None = None,
        augment: Augment | dict[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        if not isinstance(exponent, int | float) or not 0 <= exponent < math.inf:
            raise ValueError(f"exponent={exponent!r}: give a number of at least 0; 0 takes every image once.")
        super().__init__(dataset, tasks, augment, seed)
        count = len(self.source)
        ends = np.cumsum(np.arange(1, count + 1, dtype=np.float64) ** -exponent)
        self.numbers = np.searchsorted(ends / ends[-1], (np.arange(count) + 0.5) / count)
        """Number of every image in ``dataset``, ascending."""

    def number(self, index: int) -> int:
        return int(self.numbers[index])
