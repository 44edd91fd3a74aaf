"""Files: written whole or not at all, and the optional packages that read and write some kinds of them."""

from __future__ import annotations

import importlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it replaces ``path`` when the block ends.

    The folder is made where it is missing. The file gets the permissions of the process's umask, whichever library
    wrote it. If the block raises, ``path`` stays as it was, and the temporary file and the folders that were made for
    it are removed.

    Args:
        path: file to write.
    """
    target = Path(path)
    made = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid4().hex}.part")
    try:
        permissions = _permissions(temporary)
        yield temporary
        temporary.chmod(permissions)  # safetensors writes 0600
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
        if not target.exists():
            for folder in made:
                with suppress(OSError):  # something else is in there by now
                    folder.rmdir()


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
