"""Writes files atomically: a file is either complete or unchanged."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it replaces ``path`` when the block ends.

    The folder is made where it is missing. If the block raises, ``path`` stays as it was, and the temporary file and
    the folders that were made for it are removed.

    Args:
        path: file to write.
    """
    target = Path(path)
    made = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid4().hex}.part")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
        if not target.exists():
            for folder in made:
                with suppress(OSError):  # something else is in there by now
                    folder.rmdir()


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file; afterwards it holds the old text or the new one, never a part of it.

    Args:
        path: file to write.
        text: whole content of the file.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, "utf-8")
