"""Check the contents of each folder: every file by itself, then all of them together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from symerge_dense.datasets.targets import INVALID_LABEL, LONGEST_NORMAL, SHORTEST_NORMAL
from symerge_dense.preparation.check.findings import Findings

Array = NDArray[Any]
MOST_INVALID = 0.6  # share of a split's pixels; with more of them invalid, a task hardly learns


class Content(ABC):
    """The files of one folder of a split. Call ``take`` for each file, then ``close``.

    ``files`` and ``dtypes`` count what was taken so far, ``low`` and ``high`` are the extremes of its finite values,
    and ``invalid`` of its ``pixels`` carry no label.

    Args:
        path: the folder.
        faults: faults are added here.
        warnings: warnings are added here.
    """

    folder: ClassVar[str]
    task: ClassVar[str]

    def __init__(self, path: Path, faults: Findings, warnings: Findings) -> None:
        self.path, self.faults, self.warnings = path, faults, warnings
        self.dtypes: set[str] = set()
        self.files = self.pixels = self.invalid = 0
        self.low, self.high = np.inf, -np.inf

    def take(self, path: Path, array: Array) -> None:
        """Check one file.

        Args:
            path: the file, for messages.
            array: its contents (H,W) or (H,W,C), of a numeric dtype.
        """
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
        """Add the faults of one file.

        Args:
            path: the file, for messages.
            array: its contents (H,W) or (H,W,C), all finite.

        Returns:
            Its valid pixels, bool (H,W).
        """

    def close(self) -> None:
        """Add what only all files together show."""
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
COLD = 5  # of 255, by which mean blue may exceed mean red; in NYUv2, with its warm lamps, red exceeds blue by 22


class ImageFiles(Content):
    """RGB in 0..1 as floats, or 0..255 as integers.

    Args:
        path: the folder.
        faults: faults are added here.
        warnings: warnings are added here.
    """

    folder: ClassVar[str] = "image"
    task: ClassVar[str] = "image"

    def __init__(self, path: Path, faults: Findings, warnings: Findings) -> None:
        super().__init__(path, faults, warnings)
        self._colours = np.zeros(3)

    def inspect(self, path: Path, array: Array) -> NDArray[np.bool_]:
        """Add the faults of one file. Every pixel is valid.

        Args:
            path: the file, for messages.
            array: its contents (H,W,3), all finite.
        """
        highest = 1.0 if array.dtype.kind == "f" else 255.0
        low, high = float(array.min()), float(array.max())
        if low < -SLACK * highest or high > (1 + SLACK) * highest:
            remedy = "; divide by 255" if highest == 1 and low >= 0 and 2 < high <= 255 else ""
            self.faults.add(path, f"{array.dtype} images must lie in 0..{highest:g}{remedy}", f"{low:g}..{high:g}")
        self._colours += array.mean((0, 1), dtype=np.float64) * 255 / highest
        return np.ones(array.shape[:2], bool)

    @property
    def mean_colour(self) -> tuple[float, float, float]:
        """Mean (R, G, B) over all images, each 0..255."""
        red, green, blue = self._colours / max(self.files, 1)
        return float(red), float(green), float(blue)

    def close(self) -> None:
        """Warn of more blue than red, which hints at BGR order."""
        super().close()
        red, green, blue = self.mean_colour
        if blue > red + COLD:
            self.warnings.add(
                self.path,
                f"images may be BGR: their mean is ({red:.0f}, {green:.0f}, {blue:.0f}) of "
                "255, but indoor light is warm, NYUv2's (123, 106, 101); look at them",
            )


# -- label/ -----------------------------------------------------------------------------------------------------------
NAMED = 3  # up to this many different wrong labels get a line each; more of them share one


class LabelFiles(Content):
    """Class numbers 0..C-1; -1 and 255 are invalid. ``counts`` are the pixels of each class.

    Args:
        path: the folder.
        faults: faults are added here.
        warnings: warnings are added here.
        class_names: names of the C classes, in the order of their numbers.
    """

    folder: ClassVar[str] = "label"
    task: ClassVar[str] = "segmentation"

    def __init__(self, path: Path, faults: Findings, warnings: Findings, class_names: tuple[str, ...]) -> None:
        super().__init__(path, faults, warnings)
        self.class_names = class_names
        self.counts = np.zeros(len(class_names), np.int64)
        self._wrong: dict[float, list[Path]] = {}

    def inspect(self, path: Path, array: Array) -> NDArray[np.bool_]:
        """Add the faults of one file. Pixels of one of the classes are valid.

        Args:
            path: the file, for messages.
            array: its contents (H,W), all finite.
        """
        labels = array.reshape(array.shape[:2])
        valid = (labels >= 0) & (labels < len(self.counts)) & (labels == np.floor(labels))
        self.counts += np.bincount(labels[valid].astype(np.int64), minlength=len(self.counts))
        for value in np.unique(labels[~valid & (labels != -1) & (labels != INVALID_LABEL)]).tolist():
            self._wrong.setdefault(value, []).append(path)
        return valid

    def close(self) -> None:
        """Add wrong labels, and warn of classes that never occur."""
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
FARTHEST = 20.0  # metres; a room's median is less, and a median stored in centimetres is a greater number
NEAREST = 0.3  # metres; a set with a smaller median is not in metres
STRETCH = 0.05  # of a unit vector's length, by which a file's median may be off
MANY = 0.01  # of a file's pixels
STEP = 3  # a median is taken of every third row and column


class DepthFiles(Content):
    """Depth in metres; 0 is invalid.

    Args:
        path: the folder.
        faults: faults are added here.
        warnings: warnings are added here.
    """

    folder: ClassVar[str] = "depth"
    task: ClassVar[str] = "depth"

    def __init__(self, path: Path, faults: Findings, warnings: Findings) -> None:
        super().__init__(path, faults, warnings)
        self._medians: list[float] = []

    def inspect(self, path: Path, array: Array) -> NDArray[np.bool_]:
        """Add the faults of one file. Pixels with a positive depth are valid.

        Args:
            path: the file, for messages.
            array: its contents (H,W) or (H,W,1), all finite.
        """
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
        """Warn of a median too small for metres."""
        super().close()
        if self._medians and self.median < NEAREST:
            self.warnings.add(self.path, f"median {self.median:.3g}: hardly metres; inverse depth, or scaled to 0..1?")

    @property
    def median(self) -> float:
        """Median of the files' medians, in stored units; NaN without a valid pixel."""
        return float(np.median(self._medians)) if self._medians else float("nan")


def nearest_unit(median: float) -> int:
    """Divisor that brings a median depth closest, in ratio, to that of an ordinary room: 100, 1000 or 10000.

    Args:
        median: in stored units.
    """
    return min(UNITS, key=lambda divisor: abs(np.log(median / divisor / USUAL_DEPTH)))


class NormalFiles(Content):
    """Unit vectors; shorter than 0.5 is invalid. The constructor's arguments are those of ``Content``."""

    folder: ClassVar[str] = "normal"
    task: ClassVar[str] = "normals"

    def inspect(self, path: Path, array: Array) -> NDArray[np.bool_]:
        """Add the faults of one file. Vectors of length 0.5 and more are valid.

        Args:
            path: the file, for messages.
            array: its contents (H,W,3), all finite.
        """
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
