"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """A temporary name in the folder of ``path``; what is written there takes ``path``'s place when the block ends.

    The folder is made where it is missing. If the block raises, ``path`` stays as it was, and the temporary file and
    folders that were made for it go.
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
    """Write a UTF-8 text file: afterwards it is the old one or the new one, never a part of it."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, "utf-8")
