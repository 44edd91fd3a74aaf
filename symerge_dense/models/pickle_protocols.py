"""Files of ``torch.save`` in newer pickle protocols, rewritten for PyTorch's restricted reader, which knows protocol 2.

Operations are translated one by one. Nothing is called, imported or built: what the file holds is judged afterwards by
the restricted reader, as in any other file.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

KNOWN = 2  # the protocol that torch.load(weights_only=True) reads
LEGACY = 5  # pickles in a row at the start of a file of PyTorch before 1.6: magic, version, system, content, storages
MAGIC = 0x1950A86A20F9469CFC6C  # the first of them
_SAME = {"EMPTY_SET": b"]", "ADDITEMS": b"e", "FROZENSET": b"t"}  # sets beside the weights become lists and tuples
_TEXTS = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
_BYTES = {"SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"}


def in_known_protocol(path: Path) -> Path | io.BytesIO:
    """The file itself where PyTorch can read it, else a copy in memory in the protocol that it reads.

    Args:
        path: a file of ``torch.save``, damaged or not.
    """
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            return path if _protocol(file.read(2)) <= KNOWN else _legacy(path, file)
    with zipfile.ZipFile(path) as archive:
        name = next((name for name in archive.namelist() if name.rsplit("/", 1)[-1] == "data.pkl"), None)
        content = b"" if name is None else archive.read(name)
        if name is None or _protocol(content) <= KNOWN:
            return path
        copy = io.BytesIO()
        with zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as rewritten:
            for entry in archive.namelist():
                if not entry:
                    raise ValueError("an entry has no name")
                rewritten.writestr(entry, _translated(io.BytesIO(content)) if entry == name else archive.read(entry))
    copy.seek(0)
    return copy


def too_old(path: Path) -> int | None:
    """The pickle protocol, 0 or 1, of a file of ``torch.save`` that has one that PyTorch does not read; else None.

    Args:
        path: the file.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                name = next(name for name in archive.namelist() if name.rsplit("/", 1)[-1] == "data.pkl")
                return _oldest(list(pickletools.genops(archive.read(name))))
        with path.open("rb") as file:
            parts = [list(pickletools.genops(file)) for _ in range(LEGACY - 1)]
        return _oldest(parts[-1]) if any(value == MAGIC for _, value, _ in parts[0]) else None
    except (ValueError, StopIteration, zipfile.BadZipFile, MemoryError):
        return None


def has_memory(count: int) -> bool:
    """Whether the system grants so many bytes, none of which is touched: else a length in a file is not at fault.

    Args:
        count: number of bytes.
    """
    try:
        bytearray(count)
    except MemoryError:
        return False
    return True


def _oldest(operations: list[tuple[Any, Any, int | None]]) -> int | None:
    found = max(code.proto for code, _, _ in operations)
    return found if found < KNOWN else None


def _protocol(content: bytes) -> int:
    return content[1] if content[:1] == b"\x80" and len(content) > 1 else 0


def _legacy(path: Path, file: BinaryIO) -> Path | io.BytesIO:
    file.seek(0)
    try:
        parts = [_translated(file) for _ in range(LEGACY)]
    except (ValueError, MemoryError):  # a single pickle, or lengths that no file has: not of torch.save
        return path
    return io.BytesIO(b"".join(parts) + file.read())


def _translated(stream: BinaryIO | io.BytesIO) -> bytes:
    """One pickle, up to its end, in the known protocol; ValueError where it cannot be said in that."""
    operations = list(pickletools.genops(stream))
    raw = _slices(operations, stream)
    memo: dict[int, str | None] = {}
    pushed: list[str | None] = []  # what the last operations put on the stack, where it is a text
    pieces: list[bytes] = []
    starts: list[int] = []  # of these operations' pieces
    for (code, value, _), own in zip(operations, raw, strict=True):
        put = _number_of_put(code.name, value, len(memo))
        if put is not None:
            memo[put] = pushed[-1] if pushed else None
            pieces.append(b"r" + put.to_bytes(4, "little"))
            continue
        if code.name == "STACK_GLOBAL":
            if len(pushed) < 2 or None in pushed[-2:]:
                raise ValueError("a name that is computed")
            module, name = pushed[-2:]
            del pieces[starts[-2] :]
            del pushed[-2:], starts[-2:]
            piece, text = f"c{module}\n{name}\n".encode(), None
        else:
            piece, text = _piece(code.name, value, own, memo)
        starts.append(len(pieces))
        pieces.append(piece)
        pushed.append(text)
    return b"".join(pieces)


def _slices(operations: list[tuple[Any, Any, int | None]], stream: BinaryIO | io.BytesIO) -> Iterator[bytes]:
    """The bytes of every operation."""
    end = stream.tell()
    starts = [place for _, _, place in operations if place is not None]
    stream.seek(starts[0])
    content = stream.read(end - starts[0])
    return (content[a - starts[0] : b - starts[0]] for a, b in zip(starts, [*starts[1:], end], strict=True))


def _number_of_put(code: str, value: Any, known: int) -> int | None:
    if code == "MEMOIZE":
        return known
    return int(value) if code in ("PUT", "BINPUT", "LONG_BINPUT") else None


def _piece(code: str, value: Any, own: bytes, memo: dict[int, str | None]) -> tuple[bytes, str | None]:
    """An operation in the known protocol, and the text that it pushes."""
    if code == "PROTO":
        return b"\x80\x02", None
    if code == "FRAME":
        return b"", None
    if code in _TEXTS:
        return _text(value), value
    if code in _BYTES:
        return _text(value.decode("latin-1")), None
    if code in ("GET", "BINGET", "LONG_BINGET"):
        text = memo.get(int(value))  # written again: a text that named a global was left out where it was kept
        return (_text(text), text) if text is not None else (b"j" + int(value).to_bytes(4, "little"), None)
    if code in ("NEXT_BUFFER", "READONLY_BUFFER", "NEWOBJ_EX"):
        raise ValueError(f"the operation {code}")
    return _SAME.get(code, own), None


def _text(value: str) -> bytes:
    content = value.encode("utf-8", "surrogatepass")
    return b"X" + len(content).to_bytes(4, "little") + content
