"""Fingerprints of source files: their size and SHA-256. Files are hashed again only if size or time changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from os import path as paths
from pathlib import Path
from typing import Any

from symerge_dense.progress import Bar

BLOCK = 1 << 24  # bytes
FEW = 20  # up to this many source files of a folder are listed one by one; more are recorded as the folder
Entry = dict[str, Any]


def grouped(files: Iterable[Path], root: Path) -> dict[str, list[Path]]:
    """Group files by the name under which they are recorded.

    Args:
        files: any number of files.
        root: folder from which the names are given.

    Returns:
        ``{name: files}``: a path for a single file, ``folder/`` for more than 20 files in one folder.
    """
    folders: dict[Path, list[Path]] = {}
    for file in sorted(set(files)):
        folders.setdefault(file.parent, []).append(file)
    groups: dict[str, list[Path]] = {}
    for folder, members in folders.items():
        if len(members) > FEW:
            groups[_name(folder, root) + "/"] = members
        else:
            groups |= {_name(file, root): [file] for file in members}
    return groups


def _name(path: Path, root: Path) -> str:
    return Path(paths.relpath(path, root)).as_posix()


def fingerprints(files: Iterable[Path], root: Path, known: Iterable[dict[str, Entry]] = ()) -> dict[str, Entry]:
    """Fingerprints of source files.

    Args:
        files: any number of files.
        root: folder from which their names are given.
        known: earlier results. A hash is taken from them where sizes and times agree.

    Returns:
        ``{name: entry}``, names as in ``grouped``. A file's entry has ``size`` in bytes, ``mtime_ns`` and ``sha256`` of
        its bytes. A folder's entry has ``files`` (their number), ``size`` of all of them, ``times`` (a hash over names,
        sizes and times) and ``sha256`` (a hash over the sorted names, sizes and SHA-256 of its files).
    """
    groups, records = grouped(files, root), list(known)
    stamps = {name: _stamp(members) for name, members in groups.items()}
    hashes = {name: found for name, stamp in stamps.items() if (found := _known_hash(name, stamp, records))}
    unknown = {name: members for name, members in groups.items() if name not in hashes}
    if unknown:
        hashes |= _hashed(unknown)
    return {name: {**stamp, "sha256": hashes[name]} for name, stamp in stamps.items()}


def _known_hash(name: str, stamp: Entry, records: list[dict[str, Entry]]) -> str | None:
    entries = (record[name] for record in records if name in record)
    return next((entry["sha256"] for entry in entries if entry == {**stamp, "sha256": entry.get("sha256")}), None)


def same(entry: Entry, other: Entry) -> bool:
    """Whether two entries stand for the same contents, whatever the times of the files.

    Args:
        entry: of ``fingerprints``.
        other: of ``fingerprints``.
    """
    return all(entry.get(key) == other.get(key) for key in ("files", "size", "sha256"))


def _stamp(members: list[Path]) -> Entry:
    facts = [(member.name, stat.st_size, stat.st_mtime_ns) for member in members for stat in (member.stat(),)]
    size = sum(fact[1] for fact in facts)
    if len(facts) == 1:
        return {"size": size, "mtime_ns": facts[0][2]}
    return {"files": len(facts), "size": size, "times": _digest(facts)}


def _digest(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _hashed(groups: dict[str, list[Path]]) -> dict[str, str]:
    blocks = sum(-(-member.stat().st_size // BLOCK) for members in groups.values() for member in members)
    with Bar("fingerprints of the source files", blocks) as bar:
        return {name: _group_hash(members, bar) for name, members in groups.items()}


def _group_hash(members: list[Path], bar: Bar) -> str:
    contents = [_file_hash(member, bar) for member in members]
    if len(members) == 1:
        return contents[0]
    return _digest(
        [(member.name, member.stat().st_size, content) for member, content in zip(members, contents, strict=True)]
    )


def _file_hash(path: Path, bar: Bar) -> str:
    digest = hashlib.sha256()
    for block in _blocks(path):
        digest.update(block)
        bar.advance()
    return digest.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            yield block
