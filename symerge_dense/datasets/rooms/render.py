"""Renders a set of rooms into a folder: one memory-mapped array per field, all or nothing."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from symerge_dense.datasets.rooms.raycast import render
from symerge_dense.datasets.rooms.scene import random_scene
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
NOISE = 0.008  # standard deviation of the sensor's read noise; shot noise adds to it in bright pixels
FEW = 16  # up to this many frames are rendered without starting processes


def field_shape(field: str, count: int, size: tuple[int, int]) -> tuple[int, ...]:
    """Shape of a field's array.

    Args:
        field: key of ``FIELDS``.
        count: number of frames.
        size: (H, W) of a frame.
    """
    channels = FIELDS[field][1]
    return (count, *size, channels) if channels else (count, *size)


def render_frame(index: int, split: str, size: tuple[int, int], seed: int) -> dict[str, Array]:
    """All stored fields of one frame; they depend on the arguments alone.

    Args:
        index: number of the frame, from 0.
        split: one of ``SPLITS``.
        size: (H, W) of the frame.
        seed: of the scenes.
    """
    rng = np.random.default_rng((seed, SPLITS.index(split), index))
    view = render(random_scene(rng), size)
    clean = view["albedo"] * view["shading"][..., None]
    noisy = clean + rng.normal(size=clean.shape) * np.sqrt(NOISE**2 * (1 + clean))
    for field, value in (("image", noisy), ("albedo", view["albedo"]), ("shading", view["shading"])):
        view[field] = np.clip(np.round(value * 255), 0, 255)
    return {field: view[field].astype(dtype) for field, (dtype, _) in FIELDS.items()}


@contextmanager
def _frames(
    count: int, split: str, size: tuple[int, int], seed: int, workers: int
) -> Iterator[Iterator[dict[str, Array]]]:
    job = partial(render_frame, split=split, size=size, seed=seed)
    if workers < 2 or count <= FEW:
        yield map(job, range(count))
        return
    # forked workers need not import the main program again; they run numpy only
    context = get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield pool.map(job, range(count), chunksize=4)


def render_set(
    folder: Path, split: str, count: int, size: tuple[int, int], seed: int, workers: int | None = None
) -> None:
    """Render frames 0..count-1 into a folder, which appears complete or not at all.

    Args:
        folder: folder to make.
        split: one of ``SPLITS``.
        count: number of frames.
        size: (H, W) of a frame.
        seed: of the scenes.
        workers: processes that share the work (default: 2, or 1 on a single core); the result does not depend on it.
    """
    workers = min(2, os.cpu_count() or 1) if workers is None else workers
    unfinished = folder.with_name(f".rendering-{uuid4().hex}")
    unfinished.mkdir(parents=True)
    try:
        stores = {
            field: np.lib.format.open_memmap(unfinished / f"{field}.npy", "w+", dtype, field_shape(field, count, size))
            for field, (dtype, _) in FIELDS.items()
        }
        with _frames(count, split, size, seed, workers) as frames:
            for index, frame in enumerate(track(frames, f"rendering rooms ({split})", count)):
                for field, store in stores.items():
                    store[index] = frame[field]
        for store in stores.values():
            store.flush()
        _publish(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _publish(unfinished: Path, folder: Path) -> None:
    try:
        os.replace(unfinished, folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process was faster, with the same frames
            raise
