"""What the files of each folder must hold: one look at each file, then a look at what all of them have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from symerge_dense.datasets.targets import INVALID_LABEL, LONGEST_NORMAL, SHORTEST_NORMAL
from symerge_dense.preparation.check.findings import Findings

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


# -- image/ -----------------------------------------------------------------------------------------------------------
SLACK = 1e-3  # of the range, for values that were resampled
COLD = 5  # of 255: mean blue above mean red by more; NYUv2's warm lamps make it 22 the other way


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
            self.warnings.add(
                self.path,
                f"images may be BGR: their mean is ({red:.0f}, {green:.0f}, {blue:.0f}) of "
                "255, but indoor light is warm, NYUv2's (123, 106, 101); look at them",
            )


# -- label/ -----------------------------------------------------------------------------------------------------------
NAMED = 3  # that many wrong labels get a line each, more of them share one


class Labels(Content):
    """Class numbers 0..C-1 of ``class_names``; -1 and 255 are invalid. ``counts``: pixels per class."""

    folder: ClassVar[str] = "label"
    task: ClassVar[str] = "segmentation"

    def __init__(self, path: Path, faults: Findings, warnings: Findings, class_names: tuple[str, ...]) -> None:
        super().__init__(path, faults, warnings)
        self.class_names = class_names
        self.counts = np.zeros(len(class_names), np.int64)
        self._wrong: dict[float, list[Path]] = {}

    def inspect(self, path: Path, array: Array) -> NDArray[np.bool_]:
        """Pixels that carry one of the classes are valid."""
        labels = array.reshape(array.shape[:2])
        valid = (labels >= 0) & (labels < len(self.counts)) & (labels == np.floor(labels))
        self.counts += np.bincount(labels[valid].astype(np.int64), minlength=len(self.counts))
        for value in np.unique(labels[~valid & (labels != -1) & (labels != INVALID_LABEL)]).tolist():
            self._wrong.setdefault(value, []).append(path)
        return valid

    def close(self) -> None:
        """Wrong labels, and classes that never occur."""
        super().close()
        allowed = f"allowed are -1..{len(self.counts) - 1}, and 255 for invalid"
        if len(self._wrong) <= NAMED:
            for value, paths in sorted(self._wrong.items()):
                for path in paths:
                    self.faults.add(path, f"label {value:g}; {allowed}")
        else:
            values = sorted(self._wrong)
            text = f"labels {', '.join(f'{value:g}' for value in values[:NAMED])}, ... {values[-1]:g}; {allowed}"
            for path in sorted({path for paths in self._wrong.values() for path in paths}, key=lambda p: int(p.stem)):
                self.faults.add(path, text)
        absent = [name for name, pixels in zip(self.class_names, self.counts, strict=True) if not pixels]
        if absent and self.files:
            self.warnings.add(self.path, f"classes that never occur: {', '.join(absent)}")


# -- depth/ and normal/ -----------------------------------------------------------------------------------------------
UNITS = {100: "centimetres", 1000: "millimetres", 10000: "tenths of a millimetre"}
USUAL_DEPTH = 2.8  # metres, NYUv2's mean
FARTHEST = 20.0  # metres; no room's median is farther, and no centimetres' median is nearer
NEAREST = 0.3  # metres; a set whose median is nearer is not in metres
STRETCH = 0.05  # of a unit vector's length, by which a file's median may be off
MANY = 0.01  # of a file's pixels
STEP = 3  # pixels between those that a median is taken of


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
            self.faults.add(
                path,
                f"vectors longer than {LONGEST_NORMAL:g}; the white of a mask, decoded?",
                f"{longer:.0%} of the pixels",
            )
