"""Check that files of the same number show the same scene in every folder, by comparing their edges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations, product
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from symerge_dense.datasets.targets import INVALID_LABEL, SHORTEST_NORMAL, boundary

Array = NDArray[Any]
Strength = NDArray[np.float32]
SIZE = (36, 48)  # rows, columns of an edge map: coarse enough for labels that are drawn a few pixels off
WORKING = 100  # rows that are enough to find edges; larger files are thinned, but not below this
SHARPEST = 0.2  # relative second differences of 1/depth are cut off here: all larger jumps count alike


# -- edge maps --------------------------------------------------------------------------------------------------------
def edge_map(folder: str, array: Array) -> Strength:
    """Strength of the edges in a stored file.

    Image: gradient of the luminance. Label: share of class borders. Depth: second differences of 1/depth, relative to
    1/depth; they are 0 on every plane. Normals: length of the differences. There is no edge beside an invalid pixel.

    Args:
        folder: 'image', 'label', 'depth' or 'normal'.
        array: contents of the file, (H,W) or (H,W,C).

    Returns:
        float32 (36,48), >= 0.
    """
    step = max(array.shape[0] // WORKING, 1)
    layers = array[::step, ::step].reshape(*array[::step, ::step].shape[:2], -1).astype(np.float32)
    layers = np.nan_to_num(layers, nan=0, posinf=0, neginf=0)
    strength = {"image": _image, "label": _label, "depth": _depth, "normal": _normal}[folder](layers)
    return np.sqrt(cv2.resize(strength, SIZE[::-1], interpolation=cv2.INTER_AREA))


def _image(layers: Strength) -> Strength:
    down, across = np.gradient(cv2.blur(layers.mean(-1), (3, 3)))
    return np.hypot(down, across)


def _label(layers: Strength) -> Strength:
    labels = layers[..., 0].astype(np.int64)
    edges = boundary(labels, (labels >= 0) & (labels != INVALID_LABEL))
    return np.where(edges == 1, edges, np.float32(0))


def _depth(layers: Strength) -> Strength:
    depth = layers[..., 0]
    inverse = np.divide(1, depth, out=np.zeros_like(depth), where=depth > 0)
    bend = np.zeros_like(depth)
    bend[1:-1] += np.abs(inverse[2:] + inverse[:-2] - 2 * inverse[1:-1])
    bend[:, 1:-1] += np.abs(inverse[:, 2:] + inverse[:, :-2] - 2 * inverse[:, 1:-1])
    return np.where(_surrounded(depth > 0), np.minimum(bend * depth, SHARPEST), np.float32(0)).astype(np.float32)


def _normal(layers: Strength) -> Strength:
    change = np.zeros(layers.shape[:2], np.float32)
    change[1:] += np.linalg.norm(layers[1:] - layers[:-1], axis=-1)
    change[:, 1:] += np.linalg.norm(layers[:, 1:] - layers[:, :-1], axis=-1)
    return np.where(_surrounded(np.linalg.norm(layers, axis=-1) >= SHORTEST_NORMAL), change, np.float32(0))


def _surrounded(known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Known pixels whose eight neighbours are known too."""
    return cv2.erode(known.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0


# -- pairing ----------------------------------------------------------------------------------------------------------
Maps = Sequence[NDArray[np.float32] | None]
Floats = NDArray[np.float64]
Offsets = dict[str, int]
REACH = 2  # shifts -2..2 are tried
FEWEST = 8  # images; with fewer there is no verdict
GAIN = 0.02  # correlation per pair of folders that a shift must win: neighbours in a video are nearly as alike
KEPT = (
    0.6  # if the stored numbers reach more than this share of the best correlation, they are right: the scene is slow
)
SURE = 5.0  # standard errors of a paired difference: beyond chance over all the shifts that are tried
RELATED = 3.0  # standard errors above zero; with fewer a folder does not resemble the others


class Pairing(NamedTuple):
    """Whether the folders number their files alike.

    Args:
        offsets: by folder. With +1, ``{folder}/8.npy`` shows what the other folders call 7. All are 0 where the
            folders agree or nothing is certain.
        strangers: folders that resemble none of the others.
        images: how many numbers exist in all folders.
        first: number at which the part of the set begins in which this was seen.
    """

    offsets: Offsets
    strangers: tuple[str, ...]
    images: int
    first: int = 0

    @property
    def shifted(self) -> tuple[str, ...]:
        """The folders that are shifted against most of the others."""
        return tuple(folder for folder, offset in self.offsets.items() if offset)


def compare_folders(maps: Mapping[str, Maps]) -> Pairing:
    """Compare the numbering of folders, over the whole set and then over its halves and quarters.

    An extra frame in the middle shifts only what comes after it, so parts are tried where the whole shows nothing.

    Args:
        maps: edge maps by folder, as for ``compare_every_folder``.
    """
    whole = compare_every_folder(maps)
    if whole.shifted or whole.strangers:
        return whole
    length = min(map(len, maps.values()), default=0)
    for first, end in (
        (part * length // parts, (part + 1) * length // parts) for parts in (2, 4) for part in range(parts)
    ):
        found = compare_every_folder({folder: stack[first:end] for folder, stack in maps.items()})
        if found.shifted:
            return found._replace(first=first, images=whole.images)
    return whole


def compare_every_folder(maps: Mapping[str, Maps]) -> Pairing:
    """Compare the numbering of folders by the correlation of their edge maps.

    Every assignment of offsets -2..2 to the folders is judged by the correlation of the maps that it brings together,
    after the mean map is subtracted. It replaces the stored numbering only if it wins clearly: in correlation, in
    proportion, and in a paired test over the images. With fewer than 8 images there is no verdict.

    Args:
        maps: by folder, the edge maps (h,w) in the order of their numbers; None: missing or unreadable.
    """
    unshifted = dict.fromkeys(maps, 0)
    complete = sum(all(entry is not None for entry in row) for row in zip(*maps.values(), strict=True))
    if complete < FEWEST or len(maps) < 2:
        return Pairing(unshifted, (), complete)
    tables = _correlations({folder: _standardized(stack) for folder, stack in maps.items()})
    best = max(_assignments(list(maps)), key=lambda offsets: _gain(tables, offsets))
    if any(best.values()) and _clear(tables, best):
        return Pairing(best, (), complete)
    return Pairing(unshifted, _strangers(tables, list(maps)), complete)


def _standardized(stack: Maps) -> Floats:
    """(N, h*w) rows of mean 0 and length 1, after the mean of the set is subtracted; NaN where there is no map."""
    blank = next(np.full_like(entry, np.nan) for entry in stack if entry is not None)
    rows = np.stack([blank if entry is None else entry for entry in stack]).reshape(len(stack), -1).astype(np.float64)
    rows -= np.nanmean(rows, axis=0)
    rows -= rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _shifted(rows: Floats, offset: int) -> Floats:
    """Row n is row n + offset of ``rows``, NaN beyond its ends."""
    numbers = np.arange(len(rows)) + offset
    inside = (numbers >= 0) & (numbers < len(rows))
    return np.where(inside[:, None], rows[np.where(inside, numbers, 0)], np.nan)


Tables = dict[tuple[str, str], dict[tuple[int, int], Floats]]


def _correlations(stacks: Mapping[str, Floats]) -> Tables:
    """Correlation (N,) of the maps that two folders call number n, for every pair of folders and their offsets."""
    reach = range(-REACH, REACH + 1)
    moved = {folder: {offset: _shifted(rows, offset) for offset in reach} for folder, rows in stacks.items()}
    return {
        (a, b): {(i, j): np.einsum("np,np->n", moved[a][i], moved[b][j]) for i, j in product(reach, reach)}
        for a, b in combinations(stacks, 2)
    }


def _assignments(folders: Sequence[str]) -> list[Offsets]:
    """All offsets of which 0 is the most common. On a tie, the half with the first folder counts as unshifted."""
    every = product(range(-REACH, REACH + 1), repeat=len(folders))
    return [dict(zip(folders, offsets, strict=True)) for offsets in every if Counter(offsets).most_common(1)[0][0] == 0]


def _torn(tables: Tables, offsets: Offsets) -> list[tuple[Floats, Floats]]:
    """(unshifted, shifted) correlations of every pair of folders that the offsets move against each other."""
    return [
        (table[0, 0], table[offsets[a], offsets[b]]) for (a, b), table in tables.items() if offsets[a] != offsets[b]
    ]


def _finite(values: Floats) -> Floats:
    return values[np.isfinite(values)]


def _gain(tables: Tables, offsets: Offsets) -> float:
    """Gain in correlation over the stored numbering, minus what it must be, summed over pairs of folders."""
    won = [_finite(after - before) for before, after in _torn(tables, offsets)]
    return sum(float(values.mean()) - GAIN if len(values) else -GAIN for values in won)


def _clear(tables: Tables, offsets: Offsets) -> bool:
    """True if the offsets win in proportion and in the paired test, on enough images."""
    before, after = (np.sum(side, axis=0) for side in zip(*_torn(tables, offsets), strict=True))
    won = _finite(after - before)
    if len(won) < FEWEST - 2 * REACH:
        return False
    after = after[np.isfinite(after - before)]
    return (after - won).mean() < KEPT * after.mean() and _errors_above_zero(won) > SURE


def _errors_above_zero(values: Floats) -> float:
    """The mean, in units of its standard error."""
    return float(values.mean() / max(values.std(ddof=1) / np.sqrt(len(values)), 1e-12))


def _strangers(tables: Tables, folders: Sequence[str]) -> tuple[str, ...]:
    """Folders whose maps do not correlate with those of the other folders, though the others do with each other."""
    alike = {pair: table[0, 0] for pair, table in tables.items()}
    totals = {
        folder: _finite(np.sum([values for pair, values in alike.items() if folder in pair], axis=0))
        for folder in folders
    }
    # a folder without any edge (flat scenes) correlates with nothing, which means nothing
    lonely = tuple(folder for folder, total in totals.items() if total.any() and _errors_above_zero(total) < RELATED)
    rest = [_errors_above_zero(_finite(values)) > SURE for pair, values in alike.items() if not set(pair) & set(lonely)]
    return lonely if rest and all(rest) else ()
