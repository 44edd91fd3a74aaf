"""Contents of image/."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from symerge_dense.preparation.contents import Content
from symerge_dense.preparation.findings import Findings

Array = NDArray[Any]
SLACK = 1e-3  # of the range, for values that were resampled
COLD = 5      # of 255: mean blue above mean red by more; NYUv2's warm lamps make it 22 the other way


class Images(Content):
    """RGB in 0..1 as floats, or 0..255 as integers."""

    folder: ClassVar[str] = "image"
    task: ClassVar[str] = "image"

    def __init__(self, path: Path, faults: Findings, warnings: Findings) -> None:
        super().__init__(path, faults, warnings)
        self._colours = np.zeros(3)

    def inspect(self, path: Path, array: Array) -> NDArray[np.bool_]:
        """Every pixel is valid."""
        highest = 1.0 if array.dtype.kind == "f" else 255.0
        low, high = float(array.min()), float(array.max())
        if low < -SLACK * highest or high > (1 + SLACK) * highest:
            remedy = "; divide by 255" if highest == 1 and low >= 0 and 2 < high <= 255 else ""
            self.faults.add(path, f"{array.dtype} images must lie in 0..{highest:g}{remedy}", f"{low:g}..{high:g}")
        self._colours += array.mean((0, 1), dtype=np.float64) * 255 / highest
        return np.ones(array.shape[:2], bool)

    @property
    def mean_colour(self) -> tuple[float, float, float]:
        """Mean (R, G, B) over all images, of 255."""
        red, green, blue = self._colours / max(self.files, 1)
        return float(red), float(green), float(blue)

    def close(self) -> None:
        """More blue than red hints at BGR order."""
        super().close()
        red, green, blue = self.mean_colour
        if blue > red + COLD:
            self.warnings.add(self.path, f"images may be BGR: their mean is ({red:.0f}, {green:.0f}, {blue:.0f}) of "
                                         "255, but indoor light is warm, NYUv2's (123, 106, 101); look at them")
