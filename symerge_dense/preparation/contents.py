"""What the files of one folder must hold: one look at each file, then a look at what all of them have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from symerge_dense.preparation.findings import Findings

Array = NDArray[Any]
MOST_INVALID = 0.6  # share of a split's pixels; a task with more of them invalid is hardly taught


class Content(ABC):
    """The files of one folder of a split. ``take`` each, then ``close``.

    ``files`` and ``dtypes`` taken so far; ``low`` and ``high`` of their finite values; ``invalid`` of ``pixels``.
    """

    folder: ClassVar[str]
    task: ClassVar[str]

    def __init__(self, path: Path, faults: Findings, warnings: Findings) -> None:
        self.path, self.faults, self.warnings = path, faults, warnings
        self.dtypes: set[str] = set()
        self.files = self.pixels = self.invalid = 0
        self.low, self.high = np.inf, -np.inf

    def take(self, path: Path, array: Array) -> None:
        """Look at one file (H,W) or (H,W,C) of a numeric dtype."""
        self.files += 1
        self.dtypes.add(str(array.dtype))
        finite = np.isfinite(array)
        if not finite.all():
            self.faults.add(path, "holds NaN or infinite values; fetch or convert this file again")
            array = np.where(finite, array, 0)
        self.low, self.high = min(self.low, float(array.min())), max(self.high, float(array.max()))
        valid = self.inspect(path, array)
        self.pixels += valid.size
        self.invalid += valid.size - int(valid.sum())
        if not valid.any():
            self.warnings.add(path, f"not one valid pixel of {self.task}")

    @abstractmethod
    def inspect(self, path: Path, array: Array) -> NDArray[np.bool_]:
        """Note the faults of one finite file and return its valid pixels (H,W)."""

    def close(self) -> None:
        """Note what only shows in all files together."""
        if len(self.dtypes) > 1:
            self.warnings.add(self.path, f"files of several dtypes: {', '.join(sorted(self.dtypes))}")
        if self.invalid > MOST_INVALID * self.pixels:
            self.warnings.add(self.path, f"{self.invalid_share:.0%} of the pixels carry no {self.task}")

    @property
    def invalid_share(self) -> float:
        """Share of invalid pixels, 0..1; 0 before the first file."""
        return self.invalid / max(self.pixels, 1)
