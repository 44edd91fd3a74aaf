"""Find the axes of stored normals by comparing them with normals computed from the depth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from symerge_dense.datasets.nyuv2.camera import Intrinsics, normals_from_depth
from symerge_dense.datasets.nyuv2.normals import CANDIDATES, NormalAxes, parse_axes, written
from symerge_dense.datasets.targets import LONGEST_NORMAL, known_depth, known_normals

Array = NDArray[Any]
WORDS = {"x": "x right", "-x": "x left", "z": "z forward", "-z": "z backward", "y": "y up", "-y": "y down"}
CLOSE = 25.0  # degrees, of the median; NYUv2's own normals differ by about 5 to 9 from those computed from depth
CLEAR = 5.0  # degrees between the means of the best axes and the next; less is no evidence (a scene of one wall)
PIXELS = 2000  # of an image; neighbours add nothing new
ENOUGH = 200  # pixels of all images together
EXPECTED = parse_axes("x,z,y")
OPENCV = parse_axes("x,-y,z")


def in_words(axes: NormalAxes) -> str:
    """Directions of the stored channels 0, 1, 2: '(x right, y down, z forward)'.

    Args:
        axes: of the normals.
    """
    return f"({', '.join(WORDS[letter] for letter in written(axes).split(','))})"


def difference(axes: NormalAxes) -> str:
    """How axes differ from the expected ones, by stored channel: 'channel 2 is flipped'.

    Args:
        axes: of the normals.

    Returns:
        An empty text for the expected axes.
    """
    if axes == OPENCV:
        return "OpenCV's axes"
    told = []
    moved = [place for place, channel in enumerate(axes.channels) if place != channel]
    if moved:
        told.append("all channels are permuted" if len(moved) == 3 else f"channels {_and(moved)} are swapped")
    flipped = sorted(channel for channel, sign in zip(axes.channels, axes.signs, strict=True) if sign < 0)
    if flipped:
        told.append(f"channels {_and(flipped)} are flipped" if flipped[1:] else f"channel {flipped[0]} is flipped")
    return ", ".join(told)


def _and(channels: Sequence[int]) -> str:
    return f"{', '.join(map(str, channels[:-1]))} and {channels[-1]}"


class AxesFit(NamedTuple):
    """How well axes fit: angles in degrees between the stored normals, read by them, and those from depth.

    Args:
        mean: ranks the candidates. Unlike the median, it notices a floor of a tenth of the pixels.
        median: says how good the normals are.
        axes: of the candidate.
    """

    mean: float
    median: float
    axes: NormalAxes


class Diagnosis(NamedTuple):
    """The axes of a set of normals, as far as they can be told.

    Args:
        ranking: all 48 candidates, best first.
        pixels: number of pixels they were judged on.
    """

    ranking: tuple[AxesFit, ...]
    pixels: int

    @property
    def best(self) -> NormalAxes:
        """The axes that fit best."""
        return self.ranking[0].axes

    @property
    def error(self) -> float:
        """Median angle of the best axes, in degrees."""
        return self.ranking[0].median

    @property
    def margin(self) -> float:
        """Difference in mean angle between the second best axes and the best, in degrees."""
        return self.ranking[1].mean - self.ranking[0].mean

    @property
    def sure(self) -> bool:
        """True if the best axes fit well and the next fit clearly worse. Otherwise there is no verdict."""
        return self.pixels >= ENOUGH and self.error < CLOSE and self.margin > CLEAR

    def __str__(self) -> str:
        """The best axes and their error, the second best, and the expected axes."""
        if not self.pixels:
            return "no pixel has both a normal and a surface in its depth"
        first, second = (
            f"{in_words(axes)} at a median of {median:.1f} (mean {mean:.1f}) degrees"
            for mean, median, axes in self.ranking[:2]
        )
        return f"best {first} from depth, then {second}; expected {in_words(EXPECTED)}"


def evidence(normal: Array, depth: Array, intrinsics: Intrinsics) -> Array:
    """Pairs of a stored normal and a normal from depth, at pixels that have both.

    Args:
        normal: (H,W,3) as stored.
        depth: (H,W) or (H,W,1), in any unit: normals do not depend on it.
        intrinsics: of the camera, at this size.

    Returns:
        Unit vectors (n,2,3) of about 2000 evenly spaced pixels, or fewer.
    """
    stored = known_normals(normal).reshape(-1, 3)
    derived = normals_from_depth(known_depth(depth).reshape(depth.shape[:2]), intrinsics).reshape(-1, 3)
    length = np.linalg.norm(stored, axis=1)
    known = np.flatnonzero((length > 0) & (length < LONGEST_NORMAL) & derived.any(1))
    known = known[:: max(len(known) // PIXELS, 1)]
    return np.stack([stored[known] / length[known, None], derived[known]], axis=1)


def judge(pairs: Sequence[Array]) -> Diagnosis:
    """Judge the 48 candidates on pooled pairs of normals.

    Args:
        pairs: arrays (n,2,3) that ``evidence`` returned.
    """
    pooled = np.concatenate([np.zeros((0, 2, 3), np.float32), *pairs])
    return Diagnosis(tuple(sorted(_angles(pooled, axes) for axes in CANDIDATES)), len(pooled))


def _angles(pairs: Array, axes: NormalAxes) -> AxesFit:
    if not len(pairs):
        return AxesFit(180.0, 180.0, axes)
    angles = np.degrees(np.arccos(np.clip((axes.apply(pairs[:, 0]) * pairs[:, 1]).sum(1), -1, 1)))
    return AxesFit(float(angles.mean()), float(np.median(angles)), axes)


def diagnose(normals: Iterable[Array], depths: Iterable[Array], intrinsics: Intrinsics) -> Diagnosis:
    """Find which of the 48 signed permutations of axes the stored normals use, judged by normals from depth.

    The valid pixels of all images are pooled.

    Args:
        normals: (H,W,3) each, as stored.
        depths: (H,W) each, in the same order.
        intrinsics: of the one camera that took all images.
    """
    return judge([evidence(normal, depth, intrinsics) for normal, depth in zip(normals, depths, strict=True)])
