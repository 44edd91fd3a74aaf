"""Checksums of cached arrays: in a file beside each, compared before a process uses what an earlier one kept.

CRC-32 finds damage, and nothing that somebody wants to hide. Reading is one pass over the file, 2 GB a second and core
where the disk is no slower; what is read stays in the system's memory for the work that follows.
"""

from __future__ import annotations

import zlib
from pathlib import Path

from symerge_dense.fileio import write_text

BLOCK = 1 << 22  # bytes read at once
_compared: dict[Path, tuple[int, ...]] = {}  # sound files as this process found them


def checksum_file(path: Path) -> Path:
    """Where the checksum of a file is kept.

    Args:
        path: the file.
    """
    return path.with_name(f"{path.name}.crc32")


def write_checksum(path: Path) -> None:
    """Keep the checksum of a file that is whole.

    Args:
        path: the file.
    """
    write_text(checksum_file(path), f"{_checksum(path):08x}\n")
    _compared[path.absolute()] = _identity(path)


def is_changed(path: Path) -> bool:
    """Whether a file is not the one whose checksum was kept. A file is read once in a process, unless it is written to.

    Args:
        path: the file. Without a checksum, as earlier versions left it, it counts as unchanged.

    Raises:
        OSError: it cannot be read.
    """
    kept, identity = checksum_file(path), _identity(path)
    if _compared.get(path.absolute()) == identity or not kept.exists():
        return False
    if kept.read_bytes().strip() != f"{_checksum(path):08x}".encode():
        return True
    _compared[path.absolute()] = identity
    return False


def _identity(path: Path) -> tuple[int, ...]:
    """What changes when a file is replaced or written to; the last number is the system's own, and nobody sets it."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _checksum(path: Path) -> int:
    found, block = 0, memoryview(bytearray(BLOCK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            found = zlib.crc32(block[:count], found)
    return found
