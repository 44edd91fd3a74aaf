"""Numbers of label files as they are stored: PNG, TIFF, EXR, .npy, .npz, HDF5. Files are untrusted input."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from symerge_dense.datasets.image_files import DAMAGE, check_sums, opened
from symerge_dense.fileio import BAD_HEADER, mapped_array, optional_import

Array = NDArray[Any]
LARGEST = 1 << 32  # bytes of a label; a compressed file may say that it has any number of them
LOSSY = (".jpg", ".jpeg", ".webp")  # numbers come back as others
PALETTES = ("P", "1", "L")  # Pillow's modes whose stored numbers only Pillow gives
UNREADABLE = (
    *DAMAGE,
    RuntimeError,
    KeyError,
    cv2.error,
    zipfile.BadZipFile,
    *BAD_HEADER,
)
NUMBERS = "biuf"  # NumPy's kinds: truth values, whole numbers, floats
TOLD = (ImportError, Image.DecompressionBombError)  # causes that an error's own words explain


class _Explained(ValueError):
    """An error that names the file and the remedy already, unlike those of the libraries."""


def read_label(path: str | Path, key: str | None = None) -> Array:
    """The numbers of a label file: palette indices, not colours; 16 bits and floats as they are; RGB channel order.

    Args:
        path: .png, .tif, .tiff, .bmp, .exr, .npy, .npz, .h5 or .hdf5.
        key: name of the array in .npz and HDF5 (with its groups, 'a/b'), of the channel in EXR; None: the only one.

    Returns:
        (H,W) or (H,W,C), of the file's number type; a bitmap of two values is bool.

    Raises:
        ValueError: the file is missing, damaged, of another kind, or holds several arrays and no ``key`` is given.
    """
    path = Path(path)
    if path.suffix.lower() in LOSSY:
        raise ValueError(
            f"{path}: {path.suffix} files change the numbers of labels; write the label again as PNG, TIFF or .npy "
            "from what the file was made of."
        )
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path}: labels are read from {', '.join(READERS)} files, not from {path.suffix or 'this'}.")
    if not path.is_file():
        raise ValueError(f"{path}: no such label file; put it there, or leave its image out.")
    try:
        array = reader(path, key)
    except UNREADABLE as error:
        if isinstance(error, _Explained) or isinstance(error.__cause__, TOLD):
            raise
        raise ValueError(f"{path}: not a readable label file ({_first_line(error)}); replace it.") from error
    if array.dtype.kind not in NUMBERS or array.ndim not in (2, 3) or not array.size:
        raise ValueError(
            f"{path}: holds {array.dtype} of shape {array.shape}; a label is numbers of shape (H, W) or (H, W, C)."
        )
    return array


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def _picture(path: Path, key: str | None) -> Array:
    data = path.read_bytes()
    header = opened(path, io.BytesIO(data))
    if header is not None and header.mode in PALETTES:
        check_sums(data)
        return np.array(header)
    stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if stored is not None:
        colours = stored.ndim == 3 and stored.shape[2] >= 3
        return np.ascontiguousarray(stored[..., [2, 1, 0, *range(3, stored.shape[2])]] if colours else stored)
    if header is None:
        raise _Explained(f"{path}: not a readable picture; replace it.")
    check_sums(data)
    return np.array(header)


def _npy(path: Path, key: str | None) -> Array:
    with path.open("rb") as file:
        if file.read(2) == b"PK":
            raise _Explained(f"{path}: is a .npz file; name it so.")
    try:
        return np.array(mapped_array(path, "replace it", "not a readable label file"))
    except ValueError as error:
        raise _Explained(str(error)) from error


def _npz(path: Path, key: str | None) -> Array:
    archive = np.load(path, allow_pickle=False)
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise _Explained(f"{path}: is a .npy file; name it so.")
    with archive:
        name = _chosen(path, key, list(archive.files))
        _check_member(path, f"{name}.npy")
        return np.asarray(archive[name])


HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def _check_member(path: Path, name: str) -> None:
    """Refuse an array that says it is larger than its file is: NumPy would ask for the memory first."""
    with zipfile.ZipFile(path) as archive, archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        if version not in HEADERS:
            raise _Explained(f"{path}: holds an array of format {version}; write it again by np.savez.")
        shape, _, kind = HEADERS[version](file)
        size = archive.getinfo(name).file_size
    _check_bytes(path, math.prod(shape) * kind.itemsize, size)


def _check_bytes(path: Path, told: int, most: int = LARGEST) -> None:
    if told > min(most, LARGEST):
        raise _Explained(
            f"{path}: not a readable label file (it says that its array has {told} bytes, and at most "
            f"{min(most, LARGEST)} can be); replace it."
        )


def _hdf5(path: Path, key: str | None) -> Array:
    h5py = optional_import("h5py", path.name)
    with h5py.File(path, "r") as file:
        found: Any = file
        for name in (key or "").strip("/").split("/"):  # links are not followed: they lead to other files
            hard = isinstance(found, h5py.Group) and name and isinstance(found.get(name, getlink=True), h5py.HardLink)
            found = found[name] if hard else None
        if not isinstance(found, h5py.Dataset):
            names: list[str] = []  # of the whole file, which may take long
            file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
            found = file[_chosen(path, key, names)]
        _check_bytes(path, found.size * found.dtype.itemsize)
        return np.asarray(found[()])


def _exr(path: Path, key: str | None) -> Array:
    exr = optional_import("OpenEXR", path.name)
    with exr.File(str(path)) as file:
        channels: Mapping[str, Any] = {name: np.array(channel.pixels) for name, channel in file.channels().items()}
    if key is not None and key not in channels:  # 'R' of 'RGB'
        with exr.File(str(path), separate_channels=True) as file:
            channels = {name: np.array(channel.pixels) for name, channel in file.channels().items()}
    return np.asarray(channels[_chosen(path, key, list(channels))])


def _chosen(path: Path, key: str | None, names: list[str]) -> str:
    """The name that ``key`` stands for: itself, or the only one."""
    if key is None and len(names) == 1:
        return names[0]
    wanted = None if key is None else key.strip("/")
    if wanted is None or wanted not in names:
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        found = "no array" if not names else shown
        raise _Explained(f"{path}: holds {found}; {'give' if key is None else f'there is no {key!r}: give'} key= one.")
    return wanted


READERS: dict[str, Callable[[Path, str | None], Array]] = {
    **dict.fromkeys((".png", ".tif", ".tiff", ".bmp"), _picture),
    ".exr": _exr,
    ".npy": _npy,
    ".npz": _npz,
    **dict.fromkeys((".h5", ".hdf5"), _hdf5),
}
"""{suffix: reader}."""
