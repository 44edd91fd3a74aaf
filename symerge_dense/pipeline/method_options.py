"""Merging methods and their options from the words of a command line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

from symerge_dense.command_line import literal, pairs
from symerge_dense.merging.base import Merger
from symerge_dense.registry import MERGERS, did_you_mean

T = TypeVar("T")


def method_of(name: str, options: Mapping[str, str] = MappingProxyType({})) -> Merger:
    """Build a registered static method.

    Args:
        name: of the method.
        options: for example {'density': '0.2'}; values are Python literals, or text.

    Raises:
        ValueError: an unknown method or option (with the nearest names), or a value out of range.
    """
    merger: Merger = built(MERGERS[name], name, {key: literal(text) for key, text in options.items()})
    return merger


def built(kind: Callable[..., T], name: str, options: Mapping[str, Any]) -> T:
    """Build a method: ``kind(**options)``.

    Args:
        kind: its class.
        name: its name, for the message.
        options: arguments of the class.

    Raises:
        ValueError: an option that the method does not have, or a value that it refuses.
    """
    known = inspect.signature(kind).parameters
    any_name = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())  # it checks them itself
    for key in options:
        if key not in known and not any_name:
            raise ValueError(did_you_mean(key, known, f"option of {name}"))
    try:
        return kind(**options)
    except TypeError as error:
        raise ValueError(
            f"{name} cannot be built from {dict(options)}: {error}; options of {name}: {', '.join(known)}."
        ) from error


def of_methods(words: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Options of several methods.

    Args:
        words: ``['iso_c.conv=mean', ...]``.

    Returns:
        ``{'iso_c': {'conv': 'mean'}, ...}``.

    Raises:
        ValueError: a word of another form.
    """
    found: dict[str, dict[str, Any]] = {}
    for key, value in pairs(words, "METHOD.OPTION=VALUE", "iso_c.conv=mean").items():
        name, dot, option = key.partition(".")
        if not dot:
            raise ValueError(f"{key!r} names no method; write METHOD.OPTION=VALUE, for example iso_c.conv=mean.")
        found.setdefault(name, {})[option] = literal(value)
    return found


def flags(words: Sequence[str]) -> dict[str, str]:
    """Options of a method that are written like those of the tool.

    Args:
        words: ``['--density', '0.2', '--scale=1']``.

    Returns:
        ``{'density': '0.2', 'scale': '1'}``.

    Raises:
        ValueError: a word of another form.
    """
    found: dict[str, str] = {}
    rest = list(words)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if not flag.startswith("--") or not (equals or rest):
            raise ValueError(
                f"{flag!r} is no option of this tool (see --help), nor one of the method with a value, as "
                "in --density 0.2."
            )
        found[flag[2:].replace("-", "_")] = value if equals else rest.pop(0)
    return found


def settings(words: Sequence[str]) -> dict[str, str]:
    """Options of one method.

    Args:
        words: ``['density=0.2', ...]``.

    Returns:
        ``{'density': '0.2', ...}``.

    Raises:
        ValueError: a word of another form.
    """
    return pairs(words, "OPTION=VALUE", "density=0.2")


def named(words: Sequence[str]) -> dict[str, str]:
    """Files by name.

    Args:
        words: ``['depth=a.safetensors', ...]``.

    Returns:
        ``{'depth': 'a.safetensors', ...}``.

    Raises:
        ValueError: a word of another form.
    """
    return pairs(words, "NAME=FILE", "depth=runs/depth.safetensors")


def keys_of(words: Sequence[str]) -> dict[str, str]:
    """Keys of networks in checkpoints.

    Args:
        words: ``['teacher']`` for all inputs, or ``['base=model', 'depth=teacher']``.

    Returns:
        ``{'': 'teacher'}``, or ``{'base': 'model', 'depth': 'teacher'}``.

    Raises:
        ValueError: several words, one of which names no input.
    """
    if len(words) == 1 and "=" not in words[0]:
        return {"": words[0]}
    return pairs(words, "NAME=KEY", "--key base=model depth=teacher")


def describe_options(name: str) -> str:
    """The options of a static method, for people: name, default and meaning, as its class has them.

    Args:
        name: of the method.

    Raises:
        ValueError: there is no such method; names the nearest ones.
    """
    kind = MERGERS[name]
    text = inspect.getdoc(kind) or ""
    said = dict(re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", text.partition("Args:")[2], re.MULTILINE))
    lines = [f"options of {name} ({text.splitlines()[0] if text else 'no description'})"]
    for option, spec in inspect.signature(kind).parameters.items():
        default = "required" if spec.default is spec.empty else f"default: {spec.default}"
        meaning = " ".join(said.get(option, "").split())
        lines += [
            f"  --{option.replace('_', '-')} {option.upper()}",
            f"      {meaning} ({default})".replace("  (", " ("),
        ]
    needs = sorted(getattr(kind, "needs", ()))
    if needs:
        lines.append(
            f"  It needs {' and '.join(needs)} of every expert, which come from images: symerge compare runs it."
        )
    return "\n".join(lines if len(lines) > 1 else [*lines, "  none"])
