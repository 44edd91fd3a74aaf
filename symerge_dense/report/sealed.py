"""Results that a program keeps for later ones: records as JSON, with a hash by which a damaged one is told."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from symerge_dense.fileio import parsed_json
from symerge_dense.report.results import plain, write_results

SEAL = "hash"  # its key in the file; files of earlier versions have none


def write_sealed(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record as ``write_results`` does, with the hash of all of it.

    Args:
        path: the file.
        record: without the key 'hash'.

    Raises:
        ValueError: JSON has no form for a value.
    """
    write_results(path, {**record, SEAL: _hash(plain(record))})


def read_sealed(path: Path) -> dict[str, Any]:
    """The record of a file.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged; the caller says which file. Records of earlier versions have no hash, and are taken
            as they are.
    """
    found = parsed_json(path.read_bytes())
    if not isinstance(found, dict):
        raise ValueError("it is no record")
    if found.pop(SEAL, None) not in (None, _hash(found)):
        raise ValueError("its hash is another")
    return found


def _hash(record: Any) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]
