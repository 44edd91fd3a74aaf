"""Ways to damage a file, as hypothesis strategies: of its bytes, and of what its format says, with checksums mended.

A strategy gives a function of the real files of one format that returns the damaged bytes of one of them. Places are
drawn as numbers and taken modulo what there is, so that one strategy serves files of any size.
"""

from __future__ import annotations

import io
import json
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence

from hypothesis import strategies as st

Damage = Callable[[Sequence[bytes]], bytes]
LARGE = 1 << 20
BOMB = 16 << 20  # bytes that a compressed entry unpacks to
NUMBERS = [
    0,
    1,
    127,
    128,
    255,
    256,
    2**15 - 1,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**62,
    2**63 - 1,
    2**64 - 1,
]
TEXTS = [
    "",
    " ",
    "..",
    "../../escaped",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "C:\\x",
    "nul",
    "~",
    "\x1b[2J\x1b]0;owned\x07",
    "\x9b31m",
    "a\nb\rc",
    "\u202eevil",
    "\x00",
    "\ud800",
    "e\u0301" * 3,
    "\U0001d521epth",
    "é" * 3000,
    "[bold red]x[/]",
    "{x}",
    "%s%n",
    "os.system",
    "builtins:eval",
    "__class__",
    "<script>alert(1)</script>",
    "segmentation",
]
# Texts of JSON values; Python's reader takes the first three, which JSON does not know.
VALUES = [
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-1",
    "0",
    "0.5",
    "true",
    "null",
    "[]",
    "{}",
    "[[]]",
    '[{"a": []}]',
    '{"": null}',
    str(2**63),
    str(2**400),
    "9" * 400,
    "9" * 5000,
    "[" * 100_000,
    "[" * 900 + "]" * 900,
    '{"a":' * 100_000,
    '{"a":' * 900 + "1" + "}" * 900,
    *(json.dumps(text) for text in TEXTS),
]
ARRAYS = [  # what the header of an array may say
    "'shape': (1000000, 1000000, 1000)",
    "'shape': (-1, 4)",
    "'shape': (0,)",
    "'shape': ()",
    "'shape': (True, False)",
    "'shape': (99999999999999999999999999,)",
    f"'shape': {'(' * 90}{')' * 90}",
    "'shape': ('a',)",
    "'descr': '|O'",
    "'descr': [('a', '|O')]",
    "'descr': '<V0'",
    "'descr': '<U2000000000'",
    "'descr': '>f2'",
    "'descr': '<c16'",
    "'descr': '<M8[s]'",
    "'descr': [('a', '<f4', (1000000000,))]",
    "'descr': __import__('os').system('true')",
    "'fortran_order': 1",
    "'fortran_order': True",
    "'more': 1",
    "'shape': (4, 6)}#",
    "\x00" * 3,
]
place = st.integers(0, LARGE)
# Headers and lists of contents are small and stand at the ends.
spot = st.one_of(st.tuples(st.just("all"), place), st.tuples(st.sampled_from(["start", "end"]), st.integers(0, 160)))


def at(content: bytes, where: tuple[str, int]) -> int:
    kind, number = where
    if not content:
        return 0
    if kind == "all":
        return number * len(content) // (LARGE + 1)
    return number % len(content) if kind == "start" else len(content) - 1 - number % len(content)


# -- bytes ------------------------------------------------------------------------------------------------------------
def _flip(content: bytes, other: bytes, where: tuple[str, int], much: int) -> bytes:
    place = at(content, where)
    return content[:place] + bytes([content[place] ^ (1 << much % 8)]) + content[place + 1 :] if content else b""


def _write(content: bytes, other: bytes, where: tuple[str, int], much: int) -> bytes:
    number, order = NUMBERS[much % len(NUMBERS)], ("little", "big")[much // 16 % 2]
    size = (1, 2, 4, 8)[much // 32 % 4]
    written = (number % 256**size).to_bytes(size, order)
    place = at(content, where)
    return content[:place] + written + content[place + size :]


def _cut(content: bytes, other: bytes, where: tuple[str, int], much: int) -> bytes:
    return content[: at(content, where)]


def _remove(content: bytes, other: bytes, where: tuple[str, int], much: int) -> bytes:
    place = at(content, where)
    return content[:place] + content[place + 1 + much % 512 :]


def _double(content: bytes, other: bytes, where: tuple[str, int], much: int) -> bytes:
    place = at(content, where)
    block = content[place : place + 1 + much % 512]
    return content[:place] + block * 2 + content[place + len(block) :]


def _fill(content: bytes, other: bytes, where: tuple[str, int], much: int) -> bytes:
    place, count = at(content, where), 1 + much % 64
    return content[:place] + (b"\x00", b"\xff", b"A", b"\x80")[much // 64 % 4] * count + content[place + count :]


def _splice(content: bytes, other: bytes, where: tuple[str, int], much: int) -> bytes:
    """The beginning of one file and the end of another."""
    return content[: at(content, where)] + other[much * len(other) // (LARGE + 1) :]


def _insert(content: bytes, other: bytes, where: tuple[str, int], much: int) -> bytes:
    place = at(content, where)
    return content[:place] + TEXTS[much % len(TEXTS)].encode("utf-8", "surrogatepass") + content[place:]


BYTES = (_flip, _write, _cut, _remove, _double, _fill, _splice, _insert)
edits = st.lists(st.tuples(st.sampled_from(BYTES), spot, place), min_size=1, max_size=4)


def _edited(content: bytes, other: bytes, steps: Sequence[tuple[Callable[..., bytes], tuple[str, int], int]]) -> bytes:
    for change, where, much in steps:
        content = change(content, other, where, much)
    return content


def _two(files: Sequence[bytes], number: int) -> tuple[bytes, bytes]:
    return files[number % len(files)], files[number // len(files) % len(files)]


@st.composite
def of_bytes(draw: st.DrawFn) -> Damage:
    """Damage that knows nothing of the format."""
    steps, number = draw(edits), draw(st.integers(0, 99))
    return lambda files: _edited(*_two(files, number), steps)


# -- JSON -------------------------------------------------------------------------------------------------------------
def _nodes(tree: object) -> list[tuple[object, object]]:
    """(container, key) of everything in a tree."""
    found: list[tuple[object, object]] = []
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else []
    for key in keys:
        found += [(tree, key), *_nodes(tree[key])]  # type: ignore[index]
    return found


def json_damage(text: str, kind: str, number: int, value: str) -> str:
    """One value of a JSON text replaced, removed, moved or put under another name."""
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):  # damaged by the step before
        return text
    nodes = _nodes(tree)
    if kind == "whole" or not nodes:
        return value
    owner, key = nodes[number % len(nodes)]
    if kind == "remove":
        del owner[key]  # type: ignore[attr-defined]
    elif kind == "rename" and isinstance(owner, dict):
        owner[TEXTS[number % len(TEXTS)]] = owner.pop(key)
    elif kind == "move":
        source, name = nodes[number * 7 % len(nodes)]
        owner[key] = json.loads(json.dumps(source[name]))  # type: ignore[index]
    else:
        owner[key] = "\x00here"  # type: ignore[index]
    return json.dumps(tree).replace(json.dumps("\x00here"), value)


json_steps = st.tuples(
    st.sampled_from(["value", "value", "value", "remove", "rename", "move", "whole"]), place, st.sampled_from(VALUES)
)


@st.composite
def of_json(draw: st.DrawFn) -> Damage:
    steps, number = draw(st.lists(json_steps, min_size=1, max_size=2)), draw(st.integers(0, 99))

    def damage(files: Sequence[bytes]) -> bytes:
        text = files[number % len(files)].decode()
        for kind, node, value in steps:
            text = json_damage(text, kind, node, value)
        return text.encode()

    return damage


@st.composite
def of_lines(draw: st.DrawFn) -> Damage:
    """One line of several JSON texts."""
    step, number = draw(json_steps), draw(st.integers(0, 99))

    def damage(files: Sequence[bytes]) -> bytes:
        lines = files[number % len(files)].decode().splitlines()
        lines[number % len(lines)] = json_damage(lines[number % len(lines)], *step)
        return "\n".join(lines).encode()

    return damage


# -- files with a header ----------------------------------------------------------------------------------------------
@st.composite
def of_safetensors(draw: st.DrawFn) -> Damage:
    """What the header says of tensors and of the network, which is JSON in a text in JSON."""
    step, number, inner = draw(json_steps), draw(st.integers(0, 99)), draw(st.booleans())

    def damage(files: Sequence[bytes]) -> bytes:
        content = files[number % len(files)]
        length = int.from_bytes(content[:8], "little")
        header = content[8 : 8 + length].decode()
        tree = json.loads(header)
        texts = tree.get("__metadata__", {})
        if inner and texts:
            key = list(texts)[number % len(texts)]
            texts[key] = json_damage(texts[key], *step)
            header = json.dumps(tree)
        else:
            header = json_damage(header, *step)
        raw = header.encode("utf-8", "surrogatepass")
        return len(raw).to_bytes(8, "little") + raw + content[8 + length :]

    return damage


def array_damage(content: bytes, number: int) -> bytes:
    """A .npy file whose header says something else."""
    if content[:6] != b"\x93NUMPY":
        return content
    start = 10
    length = int.from_bytes(content[8:10], "little")
    header, said = content[start : start + length].decode("latin-1").strip(), ARRAYS[number % len(ARRAYS)]
    key = said.split(":")[0]
    parts = {part.split(":")[0].strip(): part.strip() for part in header.strip("{} ").replace("),", ")|").split("|")}
    if key in header:
        parts = {"'descr'": "'descr': '<f4'", "'fortran_order'": "'fortran_order': False", "'shape'": "'shape': (4, 6)"}
        header = f"{{{', '.join({**parts, key: said}.values())}, }}"
    else:
        header = header[:-1] + said + "}"
    raw = header.encode("latin-1") + b"\n"
    return content[:8] + len(raw).to_bytes(2, "little") + raw + content[start + length :]


@st.composite
def of_array(draw: st.DrawFn) -> Damage:
    what, number = draw(place), draw(st.integers(0, 99))
    return lambda files: array_damage(files[number % len(files)], what)


@st.composite
def of_png(draw: st.DrawFn) -> Damage:
    """One chunk of a PNG: its fields, its length, its kind; the checksum is mended."""
    steps, which, number, more = draw(edits), draw(place), draw(st.integers(0, 99)), draw(st.integers(0, 7))

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    def damage(files: Sequence[bytes]) -> bytes:
        content = files[number % len(files)]
        chunks, at_byte = [], 8
        while at_byte + 8 <= len(content):
            length = int.from_bytes(content[at_byte : at_byte + 4], "big")
            chunks.append((content[at_byte + 4 : at_byte + 8], content[at_byte + 8 : at_byte + 8 + length]))
            at_byte += 12 + length
        if more == 0:
            bomb = zlib.compress(bytes(BOMB), 9)
            chunks.insert(
                1, ((b"iCCP", b"x\x00\x00" + bomb), (b"zTXt", b"x\x00\x00" + bomb), (b"IDAT", bomb))[which % 3]
            )
        else:
            kind, inside = chunks[which % len(chunks)]
            chunks[which % len(chunks)] = kind, _edited(inside, inside, steps)
        return content[:8] + b"".join(chunk(*entry) for entry in chunks)

    return damage


# -- archives ---------------------------------------------------------------------------------------------------------
@st.composite
def of_zip(draw: st.DrawFn) -> Damage:
    """An entry of a zip file: its content, its name, a second one of its name, one that unpacks to very much."""
    kind = draw(st.sampled_from(["inside", "inside", "inside", "array", "rename", "twice", "bomb", "drop", "more"]))
    steps, which, number = draw(edits), draw(place), draw(st.integers(0, 99))

    def damage(files: Sequence[bytes]) -> bytes:
        content = files[number % len(files)]
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                entries = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
        except zipfile.BadZipFile:  # the same reader has files of another container
            return _edited(content, content, steps)
        chosen = which % len(entries)
        name, inside = entries[chosen]
        text = TEXTS[which % len(TEXTS)].replace("\ud800", "") or "x"
        changes = {
            "inside": lambda: [(name, _edited(inside, inside, steps))],
            "array": lambda: [(name, array_damage(inside, which))],
            "rename": lambda: [(text, inside)],
            "twice": lambda: [(name, inside), (name, _edited(inside, inside, steps))],
            "bomb": lambda: [(name, inside + bytes(BOMB))],
            "drop": lambda: [],
            "more": lambda: [(name, inside), (f"{name.split('/')[0]}/{text}", inside)],
        }
        entries[chosen : chosen + 1] = changes[kind]()
        stream = io.BytesIO()
        method = zipfile.ZIP_DEFLATED if kind == "bomb" or which % 5 == 0 else zipfile.ZIP_STORED
        with zipfile.ZipFile(stream, "w", method) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # two entries of one name are meant
            for entry, data in entries:
                archive.writestr(zipfile.ZipInfo(entry), data, method)
        return stream.getvalue()

    return damage


KINDS = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.REGTYPE)


@st.composite
def of_tar(draw: st.DrawFn) -> Damage:
    """A member of a gzipped tar archive: its kind, its name, where it leads, its size, its content."""
    kind = draw(st.sampled_from(["name", "link", "size", "inside", "bomb", "header"]))
    steps, which, number = draw(edits), draw(place), draw(st.integers(0, 99))

    def damage(files: Sequence[bytes]) -> bytes:
        content = files[number % len(files)]
        if kind == "header":
            return _gzipped(_edited(zlib.decompress(content, 31), b"", steps))
        stream = io.BytesIO()
        with tarfile.open(fileobj=io.BytesIO(content)) as source, tarfile.open(fileobj=stream, mode="w") as target:
            members = source.getmembers()
            for place, member in enumerate(members):
                file = source.extractfile(member)
                inside = b"" if file is None else file.read()
                if place == which % len(members):
                    text = TEXTS[which // 8 % len(TEXTS)].replace("\ud800", "")
                    if kind == "name":
                        member.name = text
                    elif kind == "link":
                        member.type, member.linkname, inside = KINDS[which % len(KINDS)], text, b""
                    elif kind == "inside":
                        inside = _edited(inside, inside, steps)
                    elif kind == "bomb":
                        inside += bytes(BOMB)
                    member.size = NUMBERS[which // 4 % 8] if kind == "size" else len(inside)
                    target.addfile(member, io.BytesIO(inside.ljust(member.size, b"\0")))
                    continue
                target.addfile(member, io.BytesIO(inside))
        return _gzipped(stream.getvalue())

    return damage


def _gzipped(content: bytes) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    return packer.compress(content) + packer.flush()


STRATEGIES: dict[str, st.SearchStrategy[Damage]] = {
    "bytes": of_bytes(),
    "json": st.one_of(of_json(), of_json(), of_bytes()),
    "lines": st.one_of(of_lines(), of_bytes()),
    "safetensors": st.one_of(of_safetensors(), of_safetensors(), of_bytes()),
    "npy": st.one_of(of_array(), of_bytes()),
    "png": st.one_of(of_png(), of_bytes()),
    "zip": st.one_of(of_zip(), of_zip(), of_bytes()),
    "tar": st.one_of(of_tar(), of_bytes()),
}
"""{format: damage of its files}."""
