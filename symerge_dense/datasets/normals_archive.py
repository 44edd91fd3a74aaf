"""The normals of Eigen and Fergus for NYUv2: a folder of pictures, or the archive that they were published in."""

from __future__ import annotations

import os
import tarfile
import tempfile
import zlib
from pathlib import Path

from symerge_dense.progress import track

FOLDER, ARCHIVE = "normals_gt", "normals_gt.tgz"
URL = "https://web.archive.org/web/20220412033406/https://cs.nyu.edu/~deigen/dnl/normals_gt.tgz"
LARGEST = 8 * 2**30  # bytes unpacked; the pictures of 1449 frames have less than a fifth of that


def normals_folder(root: Path) -> Path:
    """The folder ``root/normals_gt``; where there is only the archive, it is unpacked, the whole or nothing of it.

    Raises ValueError where both are missing (saying where to get them), and for an archive that is damaged, holds
    anything but files and folders below ``normals_gt``, or unpacks to more than 8 GB.
    """
    folder, archive = root / FOLDER, root / ARCHIVE
    if folder.is_dir():
        return folder
    if not archive.is_file():
        raise ValueError(f"{root} has neither {FOLDER}/normals and {FOLDER}/masks nor {ARCHIVE}. Fetch\n    {URL}\n"
                         f"into {root}, or set normals='depth' to compute normals from depth.")
    try:
        with tempfile.TemporaryDirectory(dir=root, prefix=f".{FOLDER}-") as temporary:
            unpacked = _unpack(archive, Path(temporary))
            _move(unpacked, folder)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise ValueError(f"{archive}: cannot be unpacked into {root} ({error}). Fetch it again from {URL}, or unpack "
                         "it by hand.") from error
    return folder


def _unpack(archive: Path, into: Path) -> Path:
    """Unpack below ``into``; the normals_gt folder in there. Raises TarError for what is not as it should be."""
    with tarfile.open(archive, "r:*") as file:
        members = file.getmembers()
        for member in members:
            if not (member.isreg() or member.isdir()):
                raise tarfile.TarError(f"{member.name!r} is neither a file nor a folder")
        if sum(member.size for member in members) > LARGEST:
            raise tarfile.TarError(f"it would unpack to more than {LARGEST >> 30} GB")
        for member in track(members, f"unpacking {ARCHIVE}", len(members)):
            file.extract(member, into, filter="data")  # raises for a path that leads out
    if not all((into / FOLDER / part).is_dir() for part in ("normals", "masks")):
        raise tarfile.TarError(f"it does not hold {FOLDER}/normals and {FOLDER}/masks")
    return into / FOLDER


def _move(unpacked: Path, folder: Path) -> None:
    try:
        os.replace(unpacked, folder)
    except OSError:
        if not folder.is_dir():  # it is there where another process was faster
            raise
