"""Stored surface normals: their axes, their 8-bit pictures, and the archive of Eigen and Fergus."""

from __future__ import annotations

import lzma
import os
import re
import tarfile
import zlib
from itertools import permutations, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from symerge_dense.datasets.targets import LONGEST_NORMAL, SHORTEST_NORMAL
from symerge_dense.fileio import temporary_folder
from symerge_dense.progress import track

OWN_AXES = "x,z,y"
AXIS = re.compile(r"([+-]?)([xyz])")


# -- axes: who wrote which component into which channel, and with which sign ------------------------------------------
class NormalAxes(NamedTuple):
    """Which stored channel holds which component of a normal, and with which sign; made by ``parse_axes``.

    Component c of this package, (x right, z forward, y up)[c], is ``signs[c]`` times stored channel ``channels[c]``.

    Args:
        channels: stored channel of each component.
        signs: 1 or -1 for each component.
    """

    channels: tuple[int, ...]
    signs: tuple[int, ...]

    def apply(self, normals: NDArray[np.float32]) -> NDArray[np.float32]:
        """Stored normals in the channels of this package; float32, lossless; the zero vector stays zero.

        Args:
            normals: (H,W,3), channels as stored.
        """
        turned = normals[..., list(self.channels)] * np.array(self.signs, np.float32)
        return np.asarray(turned + np.float32(0), np.float32)  # no -0


def parse_axes(text: str) -> NormalAxes:
    """Axes from three signed letters, which say what the stored channels 0, 1, 2 are in terms of the camera.

    Args:
        text: x (right), y (up) and z (forward) once each, with or without a sign. 'x,z,y' is this package's own order;
            'x,-y,z' is stored (right, down, forward), the axes of OpenCV.

    Raises:
        ValueError: ``text`` is anything else.
    """
    found = [AXIS.fullmatch(part.strip()) for part in text.split(",")] if isinstance(text, str) else []
    letters = [match[2] for match in found if match]
    if len(found) != 3 or sorted(letters) != ["x", "y", "z"]:
        raise ValueError(
            f"normal_axes={text!r}: give what the three stored channels are, x (right), y (up) and z "
            f"(forward) once each, a minus for the opposite way; for instance {OWN_AXES!r} or 'x,-y,z'."
        )
    channels = tuple(letters.index(letter) for letter in OWN_AXES.split(","))
    return NormalAxes(
        channels, tuple(-1 if (match := found[channel]) and match[1] == "-" else 1 for channel in channels)
    )


def written(axes: NormalAxes) -> str:
    """Axes as ``parse_axes`` reads them: one signed letter per stored channel, 'x,-y,z'.

    Args:
        axes: of the normals.
    """
    letters = {
        channel: "-" * (sign < 0) + letter
        for channel, sign, letter in zip(axes.channels, axes.signs, "xzy", strict=True)
    }
    return ",".join(letters[channel] for channel in range(3))


CANDIDATES = tuple(
    parse_axes(",".join(sign + letter for sign, letter in zip(signs, letters, strict=True)))
    for letters in permutations("xzy")
    for signs in product(("", "-"), repeat=3)
)
"""All 48 axes that there can be: six orders, eight choices of signs."""


# -- normals out of 8-bit pictures ------------------------------------------------------------------------------------
def decode_normals(image: NDArray[np.uint8], mask: NDArray[Any] | None = None) -> NDArray[np.float32]:
    """Unit vectors of an 8-bit picture, in which 0..255 stands for -1..1 (2v/255 - 1); channels as stored.

    The pictures of Eigen and Fergus (2015, arXiv 1411.4734) hold R right, G forward, B up, the axes of this package.

    Args:
        image: uint8 (H,W,3).
        mask: (H,W), 0 where invalid; None for no mask.

    Returns:
        float32 (H,W,3); the zero vector where the mask is 0, or the vector is shorter than 0.5 or longer than 1.2.

    Raises:
        ValueError: ``image`` is not uint8 (H,W,3), or ``mask`` has another size.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"normals are {image.dtype} of shape {image.shape}, expected an 8-bit RGB picture (H, W, 3).")
    if mask is not None and mask.shape != image.shape[:2]:
        raise ValueError(f"the mask of normals is {mask.shape}, the normals are {image.shape[:2]}: they must be equal.")
    vectors = image.astype(np.float32) * np.float32(2 / 255) - 1
    length = np.linalg.norm(vectors, axis=-1)
    valid = (length >= SHORTEST_NORMAL) & (length <= LONGEST_NORMAL)
    if mask is not None:
        valid &= mask != 0
    return np.where(valid[..., None], vectors / np.maximum(length, SHORTEST_NORMAL)[..., None], np.float32(0))


# -- the archive, or the folder unpacked from it ----------------------------------------------------------------------
FOLDER, ARCHIVE = "normals_gt", "normals_gt.tgz"
URL = "https://web.archive.org/web/20220412033406/https://cs.nyu.edu/~deigen/dnl/normals_gt.tgz"
# What Python says of a damaged archive; MemoryError: of a name that is said to be longer than memory.
DAMAGED = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, ValueError, MemoryError)
BLOCK = 1 << 20  # bytes read at once
LARGEST = 8 * 2**30  # bytes unpacked; the pictures of 1449 frames take less than a fifth of it


def normals_folder(root: Path) -> Path:
    """The folder ``root/normals_gt``; if only the archive is there, it is unpacked first, completely or not at all.

    Args:
        root: folder that holds the folder or the archive.

    Raises:
        ValueError: both are missing (saying where to get them), or the archive is damaged, holds anything but files
            and folders below ``normals_gt``, or unpacks to more than 8 GB.
    """
    folder, archive = root / FOLDER, root / ARCHIVE
    if folder.is_dir():
        return folder
    if not archive.is_file():
        raise ValueError(
            f"{root} has neither {FOLDER}/normals and {FOLDER}/masks nor {ARCHIVE}. Fetch\n    {URL}\n"
            f"into {root}, or set normals='depth' to compute normals from depth."
        )
    try:
        with temporary_folder(folder) as temporary:
            unpacked = _unpack(archive, temporary)
            _move(unpacked, folder)
    except DAMAGED as error:
        raise ValueError(
            f"{archive}: cannot be unpacked into {root} ({error or type(error).__name__}). Fetch it again from "
            f"{URL}, or unpack it by hand."
        ) from error
    return folder


def _unpack(archive: Path, into: Path) -> Path:
    """Unpack below ``into`` and return its normals_gt folder; raises TarError for unexpected contents."""
    with tarfile.open(archive, "r:*") as file:
        members = file.getmembers()
        for member in members:
            if not (member.isreg() or member.isdir()):
                raise tarfile.TarError(f"{member.name!r} is neither a file nor a folder")
        if sum(member.size for member in members) > LARGEST:
            raise tarfile.TarError(f"it would unpack to more than {LARGEST >> 30} GB")
        for member in track(members, f"unpacking {ARCHIVE}", len(members)):
            file.extract(member, into, filter="data")  # raises for a path outside the folder
        _read_to_the_end(file)
    if not all((into / FOLDER / part).is_dir() for part in ("normals", "masks")):
        raise tarfile.TarError(f"it does not hold {FOLDER}/normals and {FOLDER}/masks")
    return into / FOLDER


def _read_to_the_end(file: tarfile.TarFile) -> None:
    """The checksum of a compressed archive stands behind the last member, and is compared when it is reached."""
    stream, left = file.fileobj, LARGEST
    while stream is not None and (block := stream.read(BLOCK)):
        left -= len(block)
        if left < 0:
            raise tarfile.TarError(f"it would unpack to more than {LARGEST >> 30} GB")


def _move(unpacked: Path, folder: Path) -> None:
    try:
        os.replace(unpacked, folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process was faster
            raise
