"""Ways to damage a file, as hypothesis strategies: its bytes, and the values of a JSON text.

A strategy gives a function of the real files of one format that returns the damaged bytes of one of them. Places are
drawn as numbers and taken modulo what there is, so that one strategy serves files of any size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from hypothesis import strategies as st

Damage = Callable[[Sequence[bytes]], bytes]
LARGE = 1 << 20
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


def edited(content: bytes, other: bytes, steps: Sequence[tuple[Callable[..., bytes], tuple[str, int], int]]) -> bytes:
    for change, where, much in steps:
        content = change(content, other, where, much)
    return content


def _two(files: Sequence[bytes], number: int) -> tuple[bytes, bytes]:
    return files[number % len(files)], files[number // len(files) % len(files)]


@st.composite
def of_bytes(draw: st.DrawFn) -> Damage:
    """Damage that knows nothing of the format."""
    steps, number = draw(edits), draw(st.integers(0, 99))
    return lambda files: edited(*_two(files, number), steps)


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
