"""Write any data set with segmentation, depth or normals as numbered .npy files (``datasets.mtan_layout``).

Images are written one by one, so that memory holds one of them. Every file is written whole or not at all: an
interrupted export goes on where it stopped, and ends with the same bytes as an unbroken one. The checksums of all files
are written last (``datasets.array_checksums``).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from symerge_dense.datasets.array_checksums import array_checksum, read_checksums, write_checksums
from symerge_dense.datasets.base import Array, DenseDataset
from symerge_dense.datasets.targets import INVALID_LABEL, SHORTEST_NORMAL, known_depth, known_normals
from symerge_dense.engine.fan_out import each
from symerge_dense.fileio import atomic_write, mapped_array, nearest_existing
from symerge_dense.progress import Bar

UNIT_TOLERANCE = 1e-5  # float32 vectors this close to length 1 stay as they are
HEADER_BYTES = 128  # of a .npy file
PIECE = 16  # images that a process writes at a time
Missing = tuple[int, tuple[str, ...]]  # number of an image, and the folders that lack it


def _image(pixels: Array) -> Array:
    return pixels.astype(np.float32) / np.float32(255)


def _label(labels: Array) -> Array:
    return np.where(labels == INVALID_LABEL, -1, labels).astype(np.float32)


def _depth(metres: Array) -> Array:
    return known_depth(metres.reshape(*metres.shape[:2], 1))


def _normal(vectors: Array) -> Array:
    """Unit vectors. They are not of length 1 yet where resampling mixed neighbours or the packaging rounded them."""
    known = known_normals(vectors)
    length = np.linalg.norm(known, axis=-1, keepdims=True)
    return np.where(np.abs(length - 1) > UNIT_TOLERANCE, known / np.maximum(length, SHORTEST_NORMAL), known)


class ArrayFolder(NamedTuple):
    """One folder of the layout.

    Args:
        task: the task whose labels it holds; None: the image.
        channels: end of the arrays' shape, after height and width.
        stored: turns an array of the data set into the one to store.
    """

    task: str | None
    channels: tuple[int, ...]
    stored: Callable[[Array], Array]


FOLDERS = {
    "image": ArrayFolder(None, (3,), _image),
    "label": ArrayFolder("segmentation", (), _label),
    "depth": ArrayFolder("depth", (1,), _depth),
    "normal": ArrayFolder("normals", (3,), _normal),
}


def frame_of(source: DenseDataset) -> tuple[int, int]:
    """Image size (H, W) of a data set: its own, or that of its first image.

    Args:
        source: the data set.
    """
    if source.size is not None:
        return source.size
    height, width = source.image(0).shape[:2]
    return height, width


def is_whole(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether a file is a complete float32 .npy file, with nothing after its numbers.

    Args:
        path: the file.
        shape: that its array must have.
    """
    try:
        array = mapped_array(path, "it is written again")
        size = path.stat().st_size
    except (ValueError, OSError):
        return False
    return (
        isinstance(array, np.memmap)
        and array.shape == shape
        and array.dtype == np.float32
        and size == array.offset + array.nbytes
    )


def kept_files(folder: Path, count: int, shape: tuple[int, ...]) -> set[int]:
    """Numbers of the files that need not be written again.

    Args:
        folder: of the files ``0.npy``, ``1.npy``, ...
        count: number of images; files beyond it are ignored.
        shape: that their arrays must have.
    """
    numbers = {path: int(path.stem) for path in folder.glob("*.npy") if path.stem.isascii() and path.stem.isdigit()}
    return {
        number
        for path, number in numbers.items()
        if number < count and path.name == f"{number}.npy" and is_whole(path, shape)
    }


def check_space(folder: Path, needed: int) -> None:
    """Check that a disk has enough room.

    Args:
        folder: a folder on it, which need not exist.
        needed: bytes.

    Raises:
        ValueError: the disk has less room.
    """
    free = shutil.disk_usage(nearest_existing(folder)).free
    if needed > free:
        raise ValueError(
            f"{folder}: {needed / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free; make room, "
            f"choose another place, or write smaller images."
        )


class Plan(NamedTuple):
    """What an export has to write, and what exists.

    Args:
        frame: image size (H, W).
        kept: numbers of the complete files, by folder.
    """

    frame: tuple[int, int]
    kept: dict[str, set[int]]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of the arrays in a folder.

        Args:
            name: 'image', 'label', 'depth' or 'normal'.
        """
        return (*self.frame, *FOLDERS[name].channels)


def plan(source: DenseDataset, folder: Path) -> Plan:
    """Find out what an export would have to write.

    Args:
        source: the data set.
        folder: of one split.
    """
    names = [name for name, part in FOLDERS.items() if part.task is None or part.task in source.tasks]
    empty = Plan(frame_of(source), {})
    return empty._replace(kept={name: kept_files(folder / name, len(source), empty.shape(name)) for name in names})


def missing_bytes(source: DenseDataset, folder: Path) -> int:
    """Number of bytes that ``export`` would write.

    Args:
        source: the data set.
        folder: of one split.
    """
    found = plan(source, folder)
    return sum(
        (len(source) - len(kept)) * (4 * prod(found.shape(name)) + HEADER_BYTES) for name, kept in found.kept.items()
    )


def export(source: DenseDataset, folder: str | Path, jobs: int = 1, on: str | None = None) -> int:
    """Write a data set, unaugmented, to ``{folder}/{image,label,depth,normal}/{i}.npy``.

    All arrays are float32: image (H,W,3) RGB 0..1; label (H,W) class ids, -1 invalid; depth (H,W,1) metres, 0 invalid;
    normal (H,W,3) unit vectors, zero invalid. Files that exist, are complete and have the right shape are kept.

    Args:
        source: the data set. Folders of tasks that it was built without are left out.
        folder: of one split.
        jobs: processes; the files do not depend on their number.
        on: 'ray' or 'ray:ADDRESS' for the machines of a cluster, which share the folders; None for this one alone.

    Returns:
        Number of files written.

    Raises:
        ValueError: the disk has too little room for the missing files, or the images differ in size. Errors of
            ``source`` pass through. Files written before an error stay.
    """
    place = Path(folder)
    check_space(place, missing_bytes(source, place))
    found = plan(source, place)
    missing = {index: [name for name, kept in found.kept.items() if index not in kept] for index in range(len(source))}
    todo = [(index, tuple(names)) for index, names in missing.items() if names]
    length = 1 if jobs == 1 and on is None else PIECE
    pieces = [(source, place, found.frame, todo[start : start + length]) for start in range(0, len(todo), length)]
    checksums = read_checksums(place)
    with Bar(f"writing {place}", len(source), len(source) - len(todo)) as bar:
        for images, written in each(_write_images, pieces, jobs, on):
            checksums |= written
            bar.advance(images)
    for name, kept in found.kept.items():  # of an interrupted export
        for file in (f"{name}/{index}.npy" for index in sorted(kept)):
            if file not in checksums:
                checksums[file] = array_checksum(mapped_array(place / file, "remove it and prepare the data again"))
    write_checksums(place, checksums)
    return sum(len(names) for _, names in todo)


def _write_images(
    source: DenseDataset, place: Path, frame: tuple[int, int], todo: Sequence[Missing]
) -> tuple[int, dict[str, str]]:
    """Write what is missing of some images; returns how many images they are, and the checksums of the files."""
    shapes, checksums = Plan(frame, {}), dict[str, str]()
    for index, names in todo:
        for name in names:
            file = f"{name}/{index}.npy"
            checksums[file] = _write(place / file, _stored(source, index, FOLDERS[name]), shapes.shape(name))
    return len(todo), checksums


def _stored(source: DenseDataset, index: int, folder: ArrayFolder) -> Array:
    array = source.resized_image(index) if folder.task is None else source.resized_target(index, folder.task)
    return folder.stored(array)


def _write(path: Path, array: Array, shape: tuple[int, ...]) -> str:
    """Write a file; returns its checksum."""
    if array.shape != shape:
        raise ValueError(
            f"{path}: would be {array.shape} where the first image asks for {shape}; the images differ in "
            f"size, so give the size that all of them shall have."
        )
    array = np.ascontiguousarray(array)
    with atomic_write(path, sync=False) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)
    return array_checksum(array)
