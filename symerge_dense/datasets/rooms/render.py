"""Renders a set of rooms into a folder: one memory-mapped array per field, all or nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from symerge_dense.datasets.checksums import checksum_file, write_checksum
from symerge_dense.datasets.rooms.gbuffer import POSE, gbuffer
from symerge_dense.datasets.rooms.raycast import render
from symerge_dense.datasets.rooms.scene import random_scene
from symerge_dense.datasets.rooms.shift import Shift
from symerge_dense.fileio import new_array, temporary_folder
from symerge_dense.progress import track

Array = NDArray[Any]
SPLITS = ("train", "val", "test")
FIELDS: dict[str, tuple[type[np.generic], int]] = {
    "image": (np.uint8, 3),
    "label": (np.uint8, 0),
    "object": (np.uint8, 0),
    "depth": (np.float32, 0),
    "normals": (np.float16, 3),
    "albedo": (np.uint8, 3),
    "shading": (np.uint8, 0),
}
"""Stored dtype and channels (0: no channel axis) of every field; albedo and shading are 0..1 as 0..255."""
FURTHER: dict[str, tuple[type[np.generic], int]] = {
    "light": (np.uint8, 0),
    "pattern": (np.uint8, 0),
    "curvature": (np.float32, 0),
    "ambient": (np.float32, 0),
    "occlusion": (np.uint8, 0),
    "pose": (np.float32, POSE),
}
"""The same of the fields of ``gbuffer``, which are rendered when a label needs them; a pose is one of the frame."""
NOISE = 0.008  # standard deviation of the sensor's read noise; shot noise adds to it in bright pixels
UNCHANGED = Shift()
FEW = 16  # up to this many frames are rendered without starting processes


def field_shape(field: str, count: int, size: tuple[int, int]) -> tuple[int, ...]:
    """Shape of a field's array.

    Args:
        field: key of ``FIELDS`` or ``FURTHER``.
        count: number of frames.
        size: (H, W) of a frame.
    """
    if field == "pose":
        return (count, POSE)
    channels = (FIELDS | FURTHER)[field][1]
    return (count, *size, channels) if channels else (count, *size)


def render_frame(
    index: int, split: str, size: tuple[int, int], seed: int, shift: Shift = UNCHANGED
) -> dict[str, Array]:
    """All stored fields of one frame; they depend on the arguments alone.

    Args:
        index: number of the frame, from 0.
        split: one of ``SPLITS``.
        size: (H, W) of the frame.
        seed: of the scenes.
        shift: of camera and light.
    """
    rng = np.random.default_rng((seed, SPLITS.index(split), index))
    view = render(shift(random_scene(rng)), size)
    clean = view["albedo"] * view["shading"][..., None]
    noisy = clean + rng.normal(size=clean.shape) * np.sqrt(NOISE**2 * (1 + clean))
    for field, value in (("image", noisy), ("albedo", view["albedo"]), ("shading", view["shading"])):
        view[field] = np.clip(np.round(value * 255), 0, 255)
    return {field: view[field].astype(dtype) for field, (dtype, _) in FIELDS.items()}


def render_further(
    index: int, split: str, size: tuple[int, int], seed: int, shift: Shift = UNCHANGED
) -> dict[str, Array]:
    """The fields of ``FURTHER`` of one frame: the same scene as that of ``render_frame``.

    Args:
        index: number of the frame, from 0.
        split: one of ``SPLITS``.
        size: (H, W) of the frame.
        seed: of the scenes.
        shift: of camera and light.
    """
    rng = np.random.default_rng((seed, SPLITS.index(split), index))
    view = gbuffer(shift(random_scene(rng)), size)
    return {field: view[field].astype(dtype) for field, (dtype, _) in FURTHER.items()}


@contextmanager
def _frames(job: Callable[[int], dict[str, Array]], count: int, workers: int) -> Iterator[Iterator[dict[str, Array]]]:
    if workers < 2 or count <= FEW:
        yield map(job, range(count))
        return
    # forked workers need not import the main program again; they run numpy only
    context = get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield pool.map(job, range(count), chunksize=4)


def render_set(
    folder: Path,
    split: str,
    count: int,
    size: tuple[int, int],
    seed: int,
    workers: int | None = None,
    shift: Shift = UNCHANGED,
) -> None:
    """Render frames 0..count-1 into a folder, which appears complete or not at all.

    Args:
        folder: folder to make.
        split: one of ``SPLITS``.
        count: number of frames.
        size: (H, W) of a frame.
        seed: of the scenes.
        workers: processes that share the work (default: 2, or 1 on a single core); the result does not depend on it.
        shift: of camera and light.
    """
    job = partial(render_frame, split=split, size=size, seed=seed, shift=shift)
    with _written(folder, FIELDS, job, f"rendering rooms ({split})", count, size, workers) as unfinished:
        _publish(unfinished, folder)


def render_fields(
    folder: Path,
    fields: Sequence[str],
    split: str,
    count: int,
    size: tuple[int, int],
    seed: int,
    workers: int | None = None,
    shift: Shift = UNCHANGED,
) -> None:
    """Render some fields into the folder of a set: further ones, or lost ones. Each appears complete or not at all.

    Args:
        folder: of the set, which ``render_set`` made.
        fields: of ``FIELDS`` and ``FURTHER``.
        split: as for ``render_set``.
        count: as for ``render_set``.
        size: as for ``render_set``.
        seed: as for ``render_set``.
        workers: as for ``render_set``.
        shift: as for ``render_set``.
    """
    values: dict[str, Any] = {"split": split, "size": size, "seed": seed, "shift": shift}
    for known, job, told in (
        (FIELDS, partial(render_frame, **values), f"rendering rooms ({split})"),
        (FURTHER, partial(render_further, **values), f"rendering further labels of rooms ({split})"),
    ):
        if chosen := [field for field in fields if field in known]:
            with _written(folder, known, job, told, count, size, workers) as made:
                for field in chosen:
                    path = folder / f"{field}.npy"  # the checksum first: alone or beside another file it is a fault
                    os.replace(checksum_file(made / path.name), checksum_file(path))
                    os.replace(made / path.name, path)


@contextmanager
def _written(
    folder: Path,
    fields: Mapping[str, tuple[type[np.generic], int]],
    job: Callable[[int], dict[str, Array]],
    told: str,
    count: int,
    size: tuple[int, int],
    workers: int | None,
) -> Iterator[Path]:
    """A hidden folder beside ``folder`` with all frames of some fields; it is gone afterwards."""
    workers = min(2, os.cpu_count() or 1) if workers is None else workers
    with temporary_folder(folder) as unfinished:
        stores = {
            field: new_array(unfinished / f"{field}.npy", dtype, field_shape(field, count, size))
            for field, (dtype, _) in fields.items()
        }
        with _frames(job, count, workers) as frames:
            for index, frame in enumerate(track(frames, told, count)):
                for field, store in stores.items():
                    store[index] = frame[field]
        for field, store in stores.items():
            store.flush()
            write_checksum(unfinished / f"{field}.npy")
        yield unfinished


def _publish(unfinished: Path, folder: Path) -> None:
    try:
        os.replace(unfinished, folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process was faster, with the same frames
            raise
