"""Files: written whole or not at all, and the optional packages that read and write some kinds of them."""

from __future__ import annotations

import errno
import importlib
import json
import os
import re
import shutil
import stat
import tokenize
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from symerge_dense.leftovers import temporary_name


@contextmanager
def atomic_write(path: str | Path, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it replaces ``path`` when the block ends.

    The folder is made where it is missing. The file gets the permissions of the process's umask, whichever library
    wrote it. If the block raises, ``path`` stays as it was, and the temporary file and the folders that were made for
    it are removed. What a killed process left in the folder is removed, too.

    Args:
        path: file to write.
        sync: wait until the file is on its disk, which may only then say that it is full or broken. Some milliseconds
            a file: leave it out for thousands of small ones that are easily made again.

    Raises:
        OSError: the disk is full or fails, whichever library noticed it in its own way; it names ``path``.
    """
    target = Path(path)
    made = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(target)
    try:
        with writing(target, temporary):
            permissions = _permissions(temporary)
            yield temporary
            temporary.chmod(permissions)  # safetensors writes 0600
            if sync:
                _sync(temporary)
            os.replace(temporary, target)
    finally:
        with suppress(OSError):  # mostly it has its name by now; a disk that turned read-only keeps it
            temporary.unlink()
        if not target.exists():
            for folder in made:
                with suppress(OSError):  # something else is in there by now
                    folder.rmdir()


@contextmanager
def writing(path: str | Path, temporary: str | Path | None = None) -> Iterator[None]:
    """Let errors of a full or failing disk inside the block name a file, whichever library noticed them in its own way.

    Args:
        path: the file.
        temporary: its name as long as it is written; None for the same.

    Raises:
        OSError: such an error. Others pass.
    """
    try:
        yield
    except Exception as error:
        number = _failed_write(error, Path(temporary or path))
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DISK = (*FULL, errno.EIO, errno.EROFS)
NUMBER = re.compile(r"\(os error (\d+)\)")  # as safetensors tells it
# PyTorch and NumPy tell no number when a file takes fewer bytes than it is given
SHORT = ("unexpected pos", "file write failed", "requested and")


def _failed_write(error: Exception, path: Path) -> int | None:
    """The system's number of the fault that kept a file from being written; None for any other error."""
    if isinstance(error, OSError) and error.errno is not None:
        own = error.errno in DISK if error.filename is None else str(error.filename) == str(path)
        return error.errno if own else None
    if isinstance(error, ValueError):
        return None
    if told := NUMBER.search(str(error)):
        return int(told[1])
    if not any(text in str(error) for text in SHORT):
        return None
    return errno.ENOSPC if shutil.disk_usage(nearest_existing(path)).free < 1 << 20 else errno.EIO


def _sync(path: Path) -> None:
    with path.open("r+b") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno in DISK:  # else a disk that knows no such call
                raise


def check_writable(folder: Path) -> None:
    """See that files can be written to a folder, there or not yet, before long work that needs it.

    Args:
        folder: the folder.

    Raises:
        OSError: they cannot; it names the folder.
    """
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    trial = temporary_name(folder / "trial")
    with writing(folder, trial):
        trial.touch()
    trial.unlink()
    with suppress(OSError):  # another process has written there by now
        for one in made:
            one.rmdir()


def new_array(path: str | Path, dtype: Any, shape: tuple[int, ...]) -> Any:
    """A new .npy file of zeros, memory-mapped, to be filled. Its bytes are reserved on the disk before.

    A mapped file without them would end the process, by a signal and without a word, where the disk becomes full.

    Args:
        path: the file.
        dtype: of its numbers.
        shape: of the array.

    Raises:
        OSError: the disk is full; it names ``path``.
    """
    import numpy as np

    with writing(path):
        array = np.lib.format.open_memmap(path, "w+", dtype, shape)
        if hasattr(os, "posix_fallocate"):
            with open(path, "r+b") as file:
                try:
                    os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
                except OSError as error:
                    if error.errno in FULL:  # else a disk that reserves nothing
                        raise
    return array


@contextmanager
def temporary_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty hidden folder beside ``path``; it is gone when the block ends, with what is left in it.

    What a killed process left beside ``path`` is removed, too.

    Args:
        path: of what is made in the folder, and then moved to this place.

    Raises:
        OSError: of a file in the folder: it names the place that the file was for.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = temporary_name(target)
    with writing(target, folder):
        folder.mkdir()
    try:
        yield folder
    except OSError as error:
        if error.errno not in DISK if error.filename is None else not Path(error.filename).is_relative_to(folder):
            raise
        named = target / Path(error.filename or folder).relative_to(folder)
        raise OSError(error.errno, error.strerror, str(named)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _permissions(path: Path) -> int:
    """What a new file at ``path`` gets; the umask itself cannot be read without changing it for other threads."""
    with path.open("xb") as file:
        mode = os.fstat(file.fileno()).st_mode
    path.unlink()  # a block that writes nothing must not leave an empty file
    return stat.S_IMODE(mode)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file; afterwards it holds the old text or the new one, never a part of it.

    Args:
        path: file to write.
        text: whole content of the file.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, "utf-8")


DEEPEST = 100  # lists and objects within each other, of JSON; records have a tenth of it


def parsed_json(text: str | bytes) -> Any:
    """The value of a JSON text that may come from anywhere.

    Args:
        text: the text, or its UTF-8 bytes.

    Raises:
        ValueError: it is no JSON, is nested deeper than 100 levels, or holds half of a character.
    """
    try:
        tree = json.loads(text if isinstance(text, str) else text.decode("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = [tree]
    for _ in range(DEEPEST):
        halves = [node for node in level if isinstance(node, str) and HALF.search(node)]
        if halves:
            raise ValueError(f"it holds half of a character: {halves[0][:40]!a}")
        level = [inner for node in level for inner in _inside(node)]
        if not level:
            return tree
    raise ValueError(f"it is nested deeper than {DEEPEST} levels")


HALF = re.compile("[\ud800-\udfff]")  # of the two that write a character beyond 0xffff: no file can hold one alone


def _inside(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return [*node.keys(), *node.values()]
    return node if isinstance(node, list) else []


def mapped_array(path: str | Path, remedy: str, fault: str = "not a readable .npy array of numbers") -> Any:
    """A .npy file, memory-mapped, whatever its header says.

    Args:
        path: the file.
        remedy: what a user can do about a damaged file, for the message.
        fault: what to call it there.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, cut short, no .npy file, or holds pickled objects.
    """
    import numpy as np

    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise
    except (*BAD_HEADER, ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        reason = "it holds pickled objects" if "pickle" in str(error) else error  # numpy would advise to load these
        raise ValueError(f"{path}: {fault} ({reason}); {remedy}.") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise ValueError(f"{path}: is an archive of arrays (.npz), not one .npy array; {remedy}.")
    return array


# NumPy parses the header as Python's literals, and multiplies the shape as it stands there.
BAD_HEADER = (SyntaxError, tokenize.TokenError, OverflowError, TypeError, MemoryError, RecursionError)


def nearest_existing(path: str | Path) -> Path:
    """A path if it exists, else the nearest folder above it that does: whose disk a new file will lie on.

    Args:
        path: of a file or folder.
    """
    return next(found for found in (Path(path), *Path(path).absolute().parents) if found.exists())


def optional_import(module: str, name: str, extra: str = "convert") -> Any:
    """A module of a package that only an extra of this one installs.

    Args:
        module: dotted name, for example ``'scipy.io'``.
        name: the file or the work that it is needed for, for the message: "... is needed for NAME".
        extra: the extra of setup.py that installs it.

    Raises:
        ValueError: the package is not installed; says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.split(".")[0]
        if str(error.name).split(".")[0] != package:  # it is installed, but lacks a dependency
            raise
        raise ValueError(
            f"{package} is needed for {name}; install it with pip install 'symerge-dense[{extra}]'."
        ) from error
