"""Names of unfinished files, and the removal of what killed processes left: told by their numbers, not by times."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path
from uuid import uuid4

TEMPORARY = re.compile(r"\..+\.([0-9a-f]{8})-(\d+)-[0-9a-f]{12}\.\w+|\..+\.[0-9a-f]{32}\.part")
_tidied: set[Path] = set()


def temporary_name(target: Path) -> Path:
    """A hidden name beside a file that says who made it. What killed processes left in that folder is removed.

    Args:
        target: the file or folder that it is renamed to when it is whole.
    """
    _tidy_once(target.absolute().parent)
    return target.with_name(f".{target.name}.{machine()}-{os.getpid()}-{uuid4().hex[:12]}.part")


@cache
def machine() -> str:
    """Eight hex digits of the machine, or of the container: process numbers are those of one."""
    numbers = Path("/proc/self/ns/pid")
    about = os.readlink(numbers) if numbers.is_symlink() else ""
    return hashlib.sha256(f"{socket.gethostname()} {about}".encode()).hexdigest()[:8]


def _tidy_once(folder: Path) -> None:
    """Remove what killed processes of this machine left in a folder, when this process first writes there."""
    if folder not in _tidied:
        _tidied.add(folder)
        for path in folder.glob(".*"):
            if (match := TEMPORARY.fullmatch(path.name)) and match[1] == machine() and not _runs(int(match[2])):
                _remove(path)


def remove_leftovers(folder: Path) -> None:
    """Remove all unfinished files and folders below a folder in which no other program writes.

    Args:
        folder: that this process alone may write to, and its children. What runs on this machine keeps its files.
    """
    for path in list(folder.rglob(".*")):
        if match := TEMPORARY.fullmatch(path.name):
            foreign = match[1] != machine()
            if foreign or int(match[2]) == os.getpid() or not _runs(int(match[2])):
                _remove(path)


def _runs(process: int) -> bool:
    if os.name != "posix":  # on Windows the question would end it
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
