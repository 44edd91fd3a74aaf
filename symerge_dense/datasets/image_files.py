"""Image files as 8-bit RGB, whatever their format and mode; their sizes and faults without decoding them."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".ppm", ".pgm")
ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
NUMBERS = ("F", "I")  # Pillow's names of float and 32-bit images, which have no known white
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
"""What Pillow raises for a file that it cannot read."""
ORIENTATION = 0x0112  # the EXIF tag
SWAPS_SIDES = (5, 6, 7, 8)  # values of it
Pixels = NDArray[np.uint8]


def is_hidden(path: str | Path) -> bool:
    """Whether a path, or a folder in it, is no file of the user's: .DS_Store, ._0.npy, __MACOSX/a.jpg, Thumbs.db.

    Args:
        path: relative to the folder that the user named.
    """
    return any(
        (part.startswith(".") and part not in (".", "..")) or part in ("__MACOSX", "Thumbs.db", "desktop.ini")
        for part in Path(path).parts
    )


def matching(folder: Path, pattern: str) -> tuple[list[Path], list[Path]]:
    """What a pattern matches in a folder and is not hidden: image files, sorted by path, and all else.

    Args:
        folder: where to look.
        pattern: as of ``Path.glob``.
    """
    found = [path for path in folder.glob(pattern) if not is_hidden(path.relative_to(folder))]
    images = sorted(path for path in found if path.suffix.lower() in SUFFIXES and path.is_file())
    known = set(images)
    return images, [path for path in found if path not in known]


def find_images(folder: str | Path, recursive: bool = False) -> list[Path]:
    """The image files of a folder, sorted by path; hidden files are skipped.

    Args:
        folder: where to look.
        recursive: whether to look into its folders too.

    Raises:
        ValueError: the folder is missing, or holds no image (saying what it holds).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; give the folder that holds your images.")
    images, others = matching(folder, "**/*" if recursive else "*")
    if not images:
        raise ValueError(
            f"{folder}: no image in this folder{'' if recursive else ' itself'}{what_is_there(others)}; put "
            f"{', '.join(SUFFIXES)} files {'into it' if recursive else 'directly into it, or give recursive=True'}."
        )
    return images


def passed_over(folders: Sequence[str | Path], recursive: bool = False) -> str:
    """A remark on the files beside images that are not read, such as .heic; empty where there are none.

    Args:
        folders: as for ``find_images``.
        recursive: as for ``find_images``.
    """
    others = [
        path
        for folder in map(Path, folders)
        for path in matching(folder, "**/*" if recursive else "*")[1]
        if path.is_file()
    ]
    if not others:
        return ""
    where = ", ".join(map(str, folders[:3])) + (", ..." if len(folders) > 3 else "")
    files = f"{len(others)} file{'s' * (len(others) > 1)}"
    return f"note: {where}: {files} not read as images{what_is_there(others)}; images are {', '.join(SUFFIXES)}."


def what_is_there(paths: Sequence[Path]) -> str:
    """How many files of each kind there are, in brackets, for a message; empty for none.

    Args:
        paths: what was found.
    """
    kinds = Counter("folder" if path.is_dir() else f"{path.suffix or 'unnamed'} file" for path in paths)
    found = ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in kinds.most_common(5))
    return f" (it holds {found})" if found else ""


def opened(path: Path, source: Path | io.BytesIO) -> Image.Image | None:
    """Pillow's view of a file, nothing decoded; None where Pillow does not know the format.

    Args:
        path: the file, for the message.
        source: the file, or its bytes.

    Raises:
        ValueError: it says that it has more pixels than any picture; the cause is Pillow's error.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # a large photo is no attack
        try:
            return Image.open(source)
        except Image.DecompressionBombError as error:
            raise ValueError(f"{path}: {error}; make the image smaller.") from error
        except DAMAGE:
            return None


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1..8; 1 for TIFF, which decoders turn by themselves."""
    if image.format == "TIFF":
        return 1
    try:
        found = Image.Image.getexif(image).get(ORIENTATION, 1)  # the PNG class's own method would decode the image
    except (*DAMAGE, KeyError, TypeError):  # a broken EXIF block says nothing of the pixels
        return 1
    return found if found in range(1, 9) else 1


def _upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    if orientation in SWAPS_SIDES:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _cut_off(data: bytes) -> bool:
    """Whether a JPEG ends before its end marker."""
    if data[:3] != b"\xff\xd8\xff":
        return False
    place = 2
    while data[place : place + 1] == b"\xff" and data[place + 1 : place + 2] != b"\xda":  # segments before the scan
        filled = data[place + 1 : place + 2] == b"\xff"
        place += 1 if filled else 2 + max(int.from_bytes(data[place + 2 : place + 4], "big"), 2)
    if data.find(b"\xff\xd9", place) >= 0:
        return False
    try:
        Image.open(io.BytesIO(data)).load()  # the decoder has the last word
    except DAMAGE:
        return True
    return False


def to_rgb(image: Image.Image) -> Pixels:
    """Any picture of Pillow's as RGB, not turned; transparent pixels are laid over white.

    Args:
        image: of any mode but the numbers 'F', 'I' and 'I;16', which have no known white.

    Returns:
        uint8 (H,W,3).
    """
    if image.mode not in ALPHA and "transparency" not in image.info:
        return np.asarray(image.convert("RGB"))
    pixels = np.asarray(image.convert("RGBA"))
    colours, alpha = pixels[..., :3].astype(np.uint32), pixels[..., 3:].astype(np.uint32)
    return ((colours * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def check_sums(data: bytes) -> None:
    """Look over the checksums of a PNG file, which Pillow decodes whether they are right or not. Others have none.

    Args:
        data: a file that Pillow knows.

    Raises:
        SyntaxError, OSError, EOFError, struct.error: one is wrong, or the file is cut off: of ``DAMAGE``.
    """
    if (header := Image.open(io.BytesIO(data))).format == "PNG":
        header.verify()


def _by_opencv(data: bytes, header: Image.Image | None) -> Pixels | None:
    flags = cv2.IMREAD_COLOR if header is None else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:
        return None
    return None if pixels is None else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def read_image(path: str | Path) -> Pixels:
    """An image file as RGB, upright as its EXIF orientation says.

    Grey and palette images become RGB, 16 bits become their upper 8, transparent pixels are laid over white, and of
    several frames the first is read.

    Args:
        path: the file.

    Returns:
        uint8 (H,W,3).

    Raises:
        ValueError: the file is missing, broken, no image, or holds 32-bit numbers in place of colours.
    """
    path = Path(path)
    data = _data(path)
    header = opened(path, io.BytesIO(data))
    if header is not None and header.mode in NUMBERS and header.format == "TIFF":
        raise ValueError(f"{path}: holds 32-bit numbers, which are no colours; save it with 8 or 16 bits a channel.")
    pixels: Pixels | None = None
    try:
        if header is not None and (header.mode in ALPHA or "transparency" in header.info):
            check_sums(data)
            pixels = to_rgb(header)
        elif not _cut_off(data):
            pixels = _by_opencv(data, header)
            if pixels is None and header is not None:
                check_sums(data)
                pixels = to_rgb(header)
    except DAMAGE:
        pixels = None
    if pixels is None:
        raise ValueError(_broken(path))
    return pixels if header is None else _upright(pixels, _orientation(header))


def image_size(path: str | Path) -> tuple[int, int]:
    """(H, W) of an upright image, from the file's header.

    Args:
        path: the file.

    Raises:
        ValueError: the file is missing or no image.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; give an image file.")
    header = opened(path, path)
    if header is None:  # a format that OpenCV alone knows
        height, width = read_image(path).shape[:2]
        return height, width
    with header:
        return _upright_size(header)


def size_if_whole(path: str | Path) -> tuple[int, int]:
    """``image_size`` of a file that is whole: JPEG and PNG files are looked over without decoding, others decoded.

    Args:
        path: the file.

    Raises:
        ValueError: the file is missing, cut off, damaged or no image.
    """
    path = Path(path)
    data = _data(path)
    header = opened(path, io.BytesIO(data))
    if header is None or header.format not in ("JPEG", "MPO", "PNG"):
        height, width = read_image(path).shape[:2]
        return height, width
    size = _upright_size(header)
    try:
        sound = not _cut_off(data)
        if header.format == "PNG":
            header.verify()  # the checksums of all chunks
    except DAMAGE:
        sound = False
    if not sound:
        raise ValueError(_broken(path))
    return size


def _upright_size(header: Image.Image) -> tuple[int, int]:
    width, height = header.size
    return (width, height) if _orientation(header) in SWAPS_SIDES else (height, width)


def _data(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); give an image file.") from None


def _broken(path: Path) -> str:
    return f"{path}: not a readable image (broken, cut off, or of another kind); replace it or remove it."
