"""Contents of depth/ and normal/."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from symerge_dense.datasets.invalid import SHORTEST_NORMAL
from symerge_dense.preparation.axes import LONGEST_NORMAL
from symerge_dense.preparation.contents import Content
from symerge_dense.preparation.findings import Findings

Array = NDArray[Any]
UNITS = {100: "centimetres", 1000: "millimetres", 10000: "tenths of a millimetre"}
USUAL_DEPTH = 2.8  # metres, NYUv2's mean
FARTHEST = 20.0    # metres; no room's median is farther, and no centimetres' median is nearer
NEAREST = 0.3      # metres; a set whose median is nearer is not in metres
STRETCH = 0.05     # of a unit vector's length, by which a file's median may be off
MANY = 0.01        # of a file's pixels
STEP = 3           # pixels between those that a median is taken of


class Depths(Content):
    """Metres; 0 is invalid."""

    folder: ClassVar[str] = "depth"
    task: ClassVar[str] = "depth"

    def __init__(self, path: Path, faults: Findings, warnings: Findings) -> None:
        super().__init__(path, faults, warnings)
        self._medians: list[float] = []

    def inspect(self, path: Path, array: Array) -> NDArray[np.bool_]:
        """Pixels with a positive depth are valid."""
        depth = array.reshape(array.shape[:2])
        if depth.min() < 0:
            self.faults.add(path, "negative depth; 0 marks pixels without one", f"down to {depth.min():g}")
        valid: NDArray[np.bool_] = depth > 0
        if valid.any():
            thinned = depth[::STEP, ::STEP]
            self._medians.append(float(np.median(thinned[thinned > 0] if (thinned > 0).any() else depth[valid])))
            if self._medians[-1] > FARTHEST:
                divisor = nearest_unit(self._medians[-1])
                self.faults.add(path, f"{UNITS[divisor]}? divide by {divisor}", f"median {self._medians[-1]:.0f}")
        return valid

    def close(self) -> None:
        """A median too small for metres."""
        super().close()
        if self._medians and self.median < NEAREST:
            self.warnings.add(self.path, f"median {self.median:.3g}: hardly metres; inverse depth, or scaled to 0..1?")

    @property
    def median(self) -> float:
        """Median over the files of their medians, in stored units; NaN without a valid pixel."""
        return float(np.median(self._medians)) if self._medians else float("nan")


def nearest_unit(median: float) -> int:
    """What to divide by so that ``median`` comes closest to an ordinary room's, in ratio: 100, 1000 or 10000."""
    return min(UNITS, key=lambda divisor: abs(np.log(median / divisor / USUAL_DEPTH)))


class Normals(Content):
    """Unit vectors; shorter than 0.5 is invalid."""

    folder: ClassVar[str] = "normal"
    task: ClassVar[str] = "normals"

    def inspect(self, path: Path, array: Array) -> NDArray[np.bool_]:
        """Vectors of at least 0.5 are valid."""
        vectors = array.astype(np.float32)
        lengths = np.sqrt(np.einsum("hwc,hwc->hw", vectors, vectors))
        valid: NDArray[np.bool_] = lengths >= SHORTEST_NORMAL
        if vectors.min() >= 0 and valid.any():
            decoding = "2 v / 255 - 1" if vectors.max() > 1.5 else "2 v - 1"
            self.faults.add(path, f"no component is negative: the colours of a picture? decode by {decoding}")
        elif valid.any():
            self._check_lengths(path, lengths, float(np.median(lengths[valid])))
        return valid

    def _check_lengths(self, path: Path, lengths: Array, median: float) -> None:
        if abs(median - 1) > STRETCH:
            self.faults.add(path, "not of unit length", f"median length {median:.2f}")
            return
        longer = float((lengths > LONGEST_NORMAL).mean())
        if longer > MANY:
            self.faults.add(path, f"vectors longer than {LONGEST_NORMAL:g}; the white of a mask, decoded?",
                            f"{longer:.0%} of the pixels")
