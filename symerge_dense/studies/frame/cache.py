"""Results of runs, kept by content: one JSON file each, under a hash of everything that determines it."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from symerge_dense.models.kept_files import set_aside
from symerge_dense.pipeline.config import to_json
from symerge_dense.report.record_shapes import OPEN, refuse_misshapen
from symerge_dense.report.sealed import read_sealed, write_sealed

CACHE_VERSION = 1
"""Of the kept files. Raise it with every change of the code that alters a number."""
Kept = dict[str, Any]


@dataclass(frozen=True)
class RunCache:
    """A folder of results, experts and labels that all studies share.

    Args:
        folder: made where it is missing.
    """

    folder: Path

    @property
    def experts(self) -> Path:
        """Folder of base and experts."""
        return self.folder / "experts"

    @property
    def labels(self) -> Path:
        """Folder of the experts' cached labels."""
        return self.folder / "labels"

    def file(self, kind: str, asked: Mapping[str, Any]) -> Path:
        """The file of a result.

        Args:
            kind: of experiment.
            asked: everything that determines it, as plain values.
        """
        return self.folder / "runs" / f"{kind}-{content_hash(asked)}.json"

    def read(self, kind: str, asked: Mapping[str, Any]) -> Kept | None:
        """A kept result; None where it has to be made.

        A damaged file, or one of another version, is set aside and never deleted; a message says so.

        Args:
            kind: of experiment.
            asked: everything that determines it.
        """
        path = self.file(kind, asked)
        try:
            kept = read_sealed(path)
            refuse_misshapen(kept, {"numbers": {"*": OPEN}}, "the result")
            numbers, version = kept["numbers"], kept["version"]
            if version == CACHE_VERSION:
                return {**kept, "numbers": {name: _number(value) for name, value in numbers.items()}}
            why = f"is of version {version}, and this is version {CACHE_VERSION}"
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError):
            why = "is damaged"
        set_aside(path, f"{path} {why}")
        return None

    def write(
        self, kind: str, asked: Mapping[str, Any], numbers: Mapping[str, float], about: Mapping[str, Any]
    ) -> None:
        """Keep a result, whole or not at all.

        Args:
            kind: of experiment.
            asked: everything that determines it.
            numbers: the result.
            about: seconds, device and versions.
        """
        kept = {
            "version": CACHE_VERSION,
            "kind": kind,
            "numbers": dict(numbers),
            "about": dict(about),
            "asked": to_json(asked),
        }
        write_sealed(self.file(kind, asked), kept)

    def fetch(self, kind: str, asked: Mapping[str, Any], make: Callable[[], Mapping[str, float]]) -> dict[str, float]:
        """A kept result, or a new one that is kept.

        Args:
            kind: of experiment.
            asked: everything that determines it.
            make: gives the result.
        """
        kept = self.read(kind, asked)
        if kept is None:
            self.write(kind, asked, make(), {})
            kept = self.read(kind, asked)
        assert kept is not None
        return dict(kept["numbers"])

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Let one process at a time do a thing, such as training an expert. A killed process leaves no lock.

        A cache on a disk that may only be read has none: nobody makes anything there.

        Args:
            name: of the thing.
        """
        path = self.folder / "locks" / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            opened = path.open("w")
        except OSError as error:
            if error.errno != errno.EROFS or not self.folder.exists():
                raise
            yield
            return
        with opened as file:
            try:
                import fcntl
            except ImportError:  # not on Windows: one process at a time is then the user's care
                yield
                return
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def content_hash(*values: Any) -> str:
    """Sixteen hex digits that change with any of the values.

    Args:
        *values: plain values.
    """
    text = json.dumps([to_json(value) for value in values], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _number(value: Any) -> float:
    """JSON has no NaN: it is kept as null."""
    return float("nan") if value is None else float(value)
