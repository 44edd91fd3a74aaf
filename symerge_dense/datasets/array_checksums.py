"""Checksums of a folder of small arrays: one list beside them, ``checksums.json``, which their readers compare.

    {"image/0.npy": "1c291ca3", "image/1.npy": "d09f3f4b", "label/0.npy": ...}

CRC-32 of the numbers alone; the header of a file is checked by what its reader expects. A folder without the list, or a
file without an entry, is taken as it is: one's own arrays need none.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from symerge_dense.datasets.base import Array
from symerge_dense.fileio import parsed_json, write_text

NAME = "checksums.json"


def array_checksum(array: Array) -> str:
    """Eight hex digits of an array's numbers.

    Args:
        array: in memory.
    """
    return f"{zlib.crc32(np.ascontiguousarray(array).data):08x}"


def read_checksums(folder: Path) -> dict[str, str]:
    """The list of a folder, ``{name of the file: checksum}``; empty where there is none.

    Args:
        folder: of the list.

    Raises:
        ValueError: the list is damaged.
    """
    path = folder / NAME
    try:
        found = parsed_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{path}: is no list of checksums ({error}); remove it to read the files without.") from error
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ValueError(f"{path}: is no list of checksums; remove it to read the files without.")
    return dict(found)


def write_checksums(folder: Path, found: Mapping[str, str]) -> None:
    """Write the list of a folder, whole or not at all.

    Args:
        folder: of the list.
        found: {name of a file, from that folder: checksum}.
    """
    write_text(folder / NAME, json.dumps(dict(sorted(found.items())), indent=0) + "\n")


def change_of(folder: Path, name: str, array: Array, kept: Mapping[str, str]) -> str:
    """What is wrong with a file's numbers; empty where they are those that were written.

    Args:
        folder: of the list.
        name: of the file, from that folder.
        array: what it holds.
        kept: the list.
    """
    if kept.get(name) in (None, array_checksum(array)):
        return ""
    return (
        f"its numbers are not those that were written ({folder / NAME}); remove it and prepare the data again. If you "
        "changed it yourself, remove its line there, or the whole list"
    )
