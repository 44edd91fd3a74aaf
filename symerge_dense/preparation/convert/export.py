"""Any data set with segmentation, depth or normals as numbered .npy files, the layout that ``datasets.nyuv2`` reads.

Image by image, so that memory holds one of them, and every file is written whole or not at all: an interrupted export
goes on where it stopped, and ends with the same bytes as an unbroken one.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from symerge_dense.datasets.base import Array, DenseDataset
from symerge_dense.datasets.targets import INVALID_LABEL, SHORTEST_NORMAL, known_depth, known_normals
from symerge_dense.fileio import atomic_write
from symerge_dense.progress import Bar

UNIT_TOLERANCE = 1e-5  # float32 vectors this close to length 1 stay as they are
HEADER_BYTES = 128  # of a .npy file


def _image(pixels: Array) -> Array:
    return pixels.astype(np.float32) / np.float32(255)


def _label(labels: Array) -> Array:
    return np.where(labels == INVALID_LABEL, -1, labels).astype(np.float32)


def _depth(metres: Array) -> Array:
    return known_depth(metres.reshape(*metres.shape[:2], 1))


def _normal(vectors: Array) -> Array:
    """Unit vectors: resampling has mixed neighbours, or the packaging's own are rounded."""
    known = known_normals(vectors)
    length = np.linalg.norm(known, axis=-1, keepdims=True)
    return np.where(np.abs(length - 1) > UNIT_TOLERANCE, known / np.maximum(length, SHORTEST_NORMAL), known)


class Part(NamedTuple):
    """One folder of the layout: the task it holds (None: the image), the trailing shape, and what is stored of it."""

    task: str | None
    channels: tuple[int, ...]
    stored: Callable[[Array], Array]


PARTS = {
    "image": Part(None, (3,), _image),
    "label": Part("segmentation", (), _label),
    "depth": Part("depth", (1,), _depth),
    "normal": Part("normals", (3,), _normal),
}


def frame_of(source: DenseDataset) -> tuple[int, int]:
    """(H, W) of what ``source`` gives: its size, or that of its first image."""
    if source.size is not None:
        return source.size
    height, width = source.image(0).shape[:2]
    return height, width


def is_whole(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether ``path`` is a float32 .npy file of ``shape``, neither cut off nor with anything behind its numbers."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        size = path.stat().st_size
    except (ValueError, EOFError, OSError):
        return False
    return (
        isinstance(array, np.memmap)
        and array.shape == shape
        and array.dtype == np.float32
        and size == array.offset + array.nbytes
    )


def kept_files(folder: Path, count: int, shape: tuple[int, ...]) -> set[int]:
    """Numbers below ``count`` of the files of ``folder`` that need not be written again."""
    numbers = {path: int(path.stem) for path in folder.glob("*.npy") if path.stem.isascii() and path.stem.isdigit()}
    return {
        number
        for path, number in numbers.items()
        if number < count and path.name == f"{number}.npy" and is_whole(path, shape)
    }


def check_space(folder: Path, needed: int) -> None:
    """Raise ValueError unless the disk of ``folder``, which need not exist, has room for ``needed`` bytes."""
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise ValueError(
            f"{folder}: {needed / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free; make room, "
            f"choose another place, or write smaller images."
        )


class Plan(NamedTuple):
    """What an export has to write: per folder the shape of its files and the numbers of those that are there."""

    frame: tuple[int, int]
    kept: dict[str, set[int]]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of the files of folder ``name``."""
        return (*self.frame, *PARTS[name].channels)


def plan(source: DenseDataset, folder: Path) -> Plan:
    """Look through ``folder``, of one split, for what need not be written again."""
    names = [name for name, part in PARTS.items() if part.task is None or part.task in source.tasks]
    empty = Plan(frame_of(source), {})
    return empty._replace(kept={name: kept_files(folder / name, len(source), empty.shape(name)) for name in names})


def missing_bytes(source: DenseDataset, folder: Path) -> int:
    """Bytes that ``export`` would write."""
    found = plan(source, folder)
    return sum(
        (len(source) - len(kept)) * (4 * prod(found.shape(name)) + HEADER_BYTES) for name, kept in found.kept.items()
    )


def export(source: DenseDataset, folder: str | Path) -> int:
    """Write what ``source`` gives at its size, unaugmented, to ``{folder}/{image,label,depth,normal}/{i}.npy``.

    All float32: image (H,W,3) RGB 0..1; label (H,W) class ids, -1 invalid; depth (H,W,1) metres, 0 invalid; normal
    (H,W,3) unit vectors, zero invalid. Folders of tasks that ``source`` was built without are left out. Files that are
    there, whole and of the right shape are kept. Returns the number of files written.

    Raises ValueError where the disk has too little room for the files that are missing, and for images that differ in
    size; whatever ``source`` raises on reading passes through. Files written before that stay.
    """
    place = Path(folder)
    check_space(place, missing_bytes(source, place))
    for leftover in place.glob("*/.*.npy.*.part"):  # of a run that was killed
        leftover.unlink(missing_ok=True)
    found = plan(source, place)
    written, whole = 0, len(set.intersection(*found.kept.values()))
    with Bar(f"writing {place}", len(source), whole) as bar:
        for index in range(len(source)):
            missing = [name for name, kept in found.kept.items() if index not in kept]
            for name in missing:
                _write(place / name / f"{index}.npy", _stored(source, index, PARTS[name]), found.shape(name))
            written += len(missing)
            if missing:
                bar.advance()
    return written


def _stored(source: DenseDataset, index: int, part: Part) -> Array:
    array = source.resized_image(index) if part.task is None else source.resized_target(index, part.task)
    return part.stored(array)


def _write(path: Path, array: Array, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(
            f"{path}: would be {array.shape} where the first image asks for {shape}; the images differ in "
            f"size, so give the size that all of them shall have."
        )
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)
