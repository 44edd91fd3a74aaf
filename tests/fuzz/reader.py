"""What a reader of files is to the harness."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Reader:
    """A way of reading files that may come from others.

    Args:
        name: of the reader.
        format: how its files are damaged, a key of ``formats.STRATEGIES``.
        make: writes real files, by the project's own writers where there are any, into a folder; those to damage.
        read: reads one; the damaged file has the name of the first real one, and lies in ``damaged/`` beside it.
        known: what a checksum protects, of a result; it must be that of a real file.
        share: of all inputs, relative to other readers; small for slow ones.
    """

    name: str
    format: str
    make: Callable[[Path], Sequence[Path]]
    read: Callable[[Path], Any]
    known: Callable[[Any], Any] | None = None
    share: float = 1.0
