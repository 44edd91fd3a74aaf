"""Ways to damage what the format of a file says: headers, chunks and archives, with checksums mended."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Sequence

from hypothesis import strategies as st

from fuzz.mutations import (
    NUMBERS,
    TEXTS,
    Damage,
    edited,
    edits,
    json_damage,
    json_steps,
    of_bytes,
    of_json,
    of_lines,
    place,
)

BOMB = 16 << 20  # bytes that a compressed entry unpacks to
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
            chunks[which % len(chunks)] = kind, edited(inside, inside, steps)
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
            return edited(content, content, steps)
        chosen = which % len(entries)
        name, inside = entries[chosen]
        text = TEXTS[which % len(TEXTS)].replace("\ud800", "") or "x"
        changes = {
            "inside": lambda: [(name, edited(inside, inside, steps))],
            "array": lambda: [(name, array_damage(inside, which))],
            "rename": lambda: [(text, inside)],
            "twice": lambda: [(name, inside), (name, edited(inside, inside, steps))],
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
            return _gzipped(edited(zlib.decompress(content, 31), b"", steps))
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
                        inside = edited(inside, inside, steps)
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
