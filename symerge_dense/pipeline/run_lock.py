"""One program at a time works in a run's folder: the second is refused, and told who the first is."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process

from symerge_dense.fileio import parsed_json
from symerge_dense.leftovers import remove_leftovers
from symerge_dense.progress import printable

LOCK = ".run.lock"
_held: set[int] = set()  # open files of this process


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other programs out of a run's folder while the block works in it.

    The operating system ends the lock with the process that holds it, however that ends: what a killed run left keeps
    nobody out, and its unfinished files are removed. Of several processes of one run, the main one holds it. A disk
    that knows no locks keeps nobody out.

    Args:
        folder: of the run, which exists.

    Raises:
        ValueError: another program works there; the message says on which machine, as which process, and since when.
    """
    told: list[Any] = [None, None]
    if is_main_process():
        told = [*_taken(folder / LOCK)]
    file = told[0]
    told = [None, told[1]]
    broadcast_object_list(told)
    if told[1] is not None:
        raise in_use(folder, told[1])
    try:
        if file is not None:
            remove_leftovers(folder)
        yield
    finally:
        if file is not None:
            (folder / LOCK).unlink(missing_ok=True)
            _held.discard(file)
            os.close(file)


def in_use(folder: Path, owner: str) -> ValueError:
    """The error that tells who works in a folder.

    Args:
        folder: of the run.
        owner: as ``working_in`` gives it.
    """
    return ValueError(
        f"{folder} is in use by {owner}; wait for its end, or choose another --work-dir. (Two runs in one folder would "
        "overwrite each other's files.)"
    )


def working_in(folder: Path) -> str | None:
    """Which program works in a folder now; None if none does, or its disk knows no locks.

    Args:
        folder: of a run, which exists.
    """
    try:
        import fcntl

        with (folder / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: several processes of one run may ask at once
    except BlockingIOError:
        return _owner(folder / LOCK)
    except (ImportError, OSError):  # no such file, or no locks
        return None
    return None


def _taken(path: Path) -> tuple[int | None, str | None]:
    """(the open file that is locked, None), or (None, who holds it); both None where there are no locks."""
    try:
        import fcntl
    except ImportError:  # not on Windows: one run at a time is then the user's care
        return None, None
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return None, _owner(path)
        except OSError:  # a network disk without locks
            os.close(file)
            return None, None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), path.stat()):  # else its holder removed it between the two lines above
                break
        os.close(file)
    os.ftruncate(file, 0)
    about = {"host": socket.gethostname(), "pid": os.getpid(), "started": time.strftime("%Y-%m-%d %H:%M:%S")}
    with suppress(OSError):  # a full disk: the next file says so by its name
        os.write(file, json.dumps(about).encode())
    _held.add(file)
    return file, None


def _owner(path: Path) -> str:
    try:
        about = parsed_json(path.read_bytes())
        return printable(f"process {about['pid']} on {about['host']} since {about['started']}")
    except (OSError, ValueError, KeyError, TypeError):  # it is being written, or gone by now
        return "another process"


def _let_go() -> None:
    """A data worker inherits the open file, and would hold the lock after its parent was killed."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
