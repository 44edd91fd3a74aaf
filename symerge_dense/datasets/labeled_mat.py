"""nyu_depth_v2_labeled.mat: MATLAB 7.3, that is HDF5, with all axes in reverse."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

REMEDY = "fetch this file again (2.8 GB)"
BROKEN = (OSError, RuntimeError, ValueError, KeyError)  # what h5py raises on damage, depending on where it is
WIDTH, HEIGHT = 640, 480


class Layout(NamedTuple):
    """What one array has to look like: kinds of numbers (numpy's letters), axes after the first, in words."""

    kinds: str
    axes: tuple[int, ...]
    words: str


LAYOUTS = {"images": Layout("u", (3, WIDTH, HEIGHT), "uint8 (N, 3, 640, 480)"),
           "depths": Layout("f", (WIDTH, HEIGHT), "floats (N, 640, 480)"),
           "labels": Layout("ui", (WIDTH, HEIGHT), "integers (N, 640, 480)")}


class LabeledMat:
    """The arrays of the file, one frame at a time; the file is opened at first use, once in every process.

    Attributes: ``path``, ``count`` the number of frames.

    Raises ValueError naming the file where it is not HDF5, is cut short, lacks an array or holds another kind of it.
    Links to other files are not followed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: tuple[int, Any] | None = None
        with self._open() as file:
            counts = {name: self._array(file, name).shape[0] for name in LAYOUTS}
        if len(set(counts.values())) > 1 or min(counts.values()) == 0:
            raise ValueError(f"{path}: {', '.join(f'{number} {name}' for name, number in counts.items())}; expected "
                             f"the same number, 1449 in the published file. {REMEDY.capitalize()}.")
        self.count = counts["images"]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def read(self, name: str, number: int) -> NDArray[Any]:
        """Frame ``number`` (from 0) of 'images' (480,640,3), 'depths' or 'labels' (480,640); nothing else is read."""
        process = os.getpid()
        if self._opened is None or self._opened[0] != process:  # a handle must not be shared with a forked worker
            self._opened = process, self._open()
        try:
            stored = np.asarray(self._opened[1][name][number])
        except BROKEN as error:
            raise ValueError(f"{self.path}: frame {number} of {name!r} cannot be read ({error}); {REMEDY}.") from error
        return np.ascontiguousarray(stored.T)

    def _open(self) -> Any:
        try:
            return h5py.File(self.path, "r", locking="best-effort")
        except OSError as error:
            raise ValueError(f"{self.path}: not a readable MATLAB 7.3 (HDF5) file ({error}); {REMEDY}.") from error

    def _array(self, file: Any, name: str) -> Any:
        layout, found = LAYOUTS[name], None
        try:
            if isinstance(file.get(name, getlink=True), h5py.HardLink):
                found = file[name]
        except BROKEN as error:
            raise ValueError(f"{self.path}: {name!r} cannot be read ({error}); {REMEDY}.") from error
        if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external:
            raise ValueError(f"{self.path}: holds no array {name!r}, expected {layout.words}; {REMEDY}.")
        if found.shape is None or found.shape[1:] != layout.axes or not self._is_kind(found.dtype, layout):
            raise ValueError(f"{self.path}: {name!r} is {found.dtype} of shape {found.shape}, expected {layout.words}; "
                             f"{REMEDY}.")
        return found

    @staticmethod
    def _is_kind(dtype: np.dtype[Any], layout: Layout) -> bool:
        return dtype.kind in layout.kinds and (layout.kinds != "u" or dtype.itemsize == 1)
