"""Reads single-frame files as untrusted input: pictures, class maps, and arrays in MATLAB files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from symerge_dense.datasets.image_files import DAMAGE, check_sums
from symerge_dense.datasets.mtan_layout import REMEDY
from symerge_dense.datasets.targets import INVALID_LABEL
from symerge_dense.fileio import optional_import


def _pixels(path: Path, wanted: Literal["RGB", "ids"]) -> NDArray[Any]:
    try:
        data = path.read_bytes()
        check_sums(data)
        with Image.open(io.BytesIO(data)) as picture:
            # The ids are the palette's indices, not its colours; only Pillow gives them.
            return np.array(picture.convert("RGB") if wanted == "RGB" else picture)
    except FileNotFoundError:
        raise ValueError(f"{path}: missing; {REMEDY}.") from None
    except DAMAGE as error:
        raise ValueError(f"{path}: not a readable picture ({error}); {REMEDY}.") from error


def read_picture(path: Path) -> NDArray[np.uint8]:
    """A JPEG or PNG file as uint8 (H,W,3) RGB.

    Args:
        path: the file.

    Raises:
        ValueError: the file is missing or anything else; the message names it.
    """
    return _pixels(path, "RGB")


def read_class_map(path: Path) -> NDArray[Any]:
    """A PNG file of one number per pixel, plain or with a palette, as integers (H,W).

    Args:
        path: the file.

    Raises:
        ValueError: the file is no picture, or a picture of colours; the message names it.
    """
    ids = _pixels(path, "ids")
    if ids.ndim != 2 or ids.dtype.kind not in "iu":
        raise ValueError(
            f"{path}: {ids.dtype} of shape {ids.shape}, expected one class number per pixel (a grey or "
            f"palette picture); {REMEDY}."
        )
    return ids


def read_mat(path: Path, name: str) -> NDArray[Any]:
    """An array of a MATLAB file (before version 7.3).

    Args:
        path: the file.
        name: of the array.

    Raises:
        ValueError: the array cannot be read; the message names the file, and what is in it.
    """
    matlab = optional_import("scipy.io", path.name)
    try:
        content = matlab.loadmat(path, variable_names=[name], appendmat=False)
        held = None if name in content else [entry[0] for entry in matlab.whosmat(path, appendmat=False)]
    except FileNotFoundError:
        raise ValueError(f"{path}: missing; {REMEDY}.") from None
    except Exception as error:  # scipy raises whatever the damage causes
        raise ValueError(f"{path}: not a readable MATLAB file ({error}); {REMEDY}.") from error
    if held is not None:
        raise ValueError(f"{path}: holds {', '.join(held) or 'nothing'}, expected {name!r}; {REMEDY}.")
    array = content[name]
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise ValueError(
            f"{path}: {name!r} is {getattr(array, 'dtype', type(array).__name__)}, expected numbers; {REMEDY}."
        )
    return array


def classes_of_40(stored: NDArray[Any], path: Path) -> NDArray[np.int64]:
    """Classes 0..39 and 255 for void, from a map that counts them from 1 and has 0 for void.

    Args:
        stored: the map, 0..40.
        path: its file, for error messages.

    Raises:
        ValueError: a number is not 0..40; the message names the file.
    """
    wrong = ~np.isin(stored, np.arange(41))
    if wrong.any():
        raise ValueError(
            f"{path}: label values {np.unique(stored[wrong])[:5].tolist()}, allowed are 1..40, and 0 for "
            "void; these are labels of another kind."
        )
    classes = stored.astype(np.int64) - 1
    return np.where(classes < 0, INVALID_LABEL, classes)
