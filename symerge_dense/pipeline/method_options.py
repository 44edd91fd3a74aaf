"""A merging method from the words of a command line."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Sequence
from typing import Any

from symerge_dense.merging.base import Merger
from symerge_dense.registry import MERGERS, discover, nearest

_WORDS = {"true": True, "false": False, "none": None, "null": None}


def method_of(name: str, assignments: Sequence[str] = ()) -> Merger:
    """The registered method ``name`` with options such as 'density=0.2', whose values are Python literals or text.

    Raises ValueError, with the nearest names, for an unknown method or option, and for a value out of range.
    """
    discover(["merging"])  # the other rooms would take seconds
    known = inspect.signature(MERGERS[name]).parameters
    options: dict[str, Any] = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"{text!r} is not OPTION=VALUE; options of {name}: {', '.join(known) or 'none'}.")
        if key not in known:
            raise ValueError(nearest(key, known, f"option of {name}"))
        options[key] = literal(value)
    try:
        merger: Merger = MERGERS[name](**options)
    except TypeError as error:
        raise ValueError(f"{name} cannot be built from {options}: {error}; options of {name}: {', '.join(known)}."
                         ) from error
    return merger


def literal(text: str) -> Any:
    """'0.2' as 0.2, "{'a': 1}" as a dict, 'true' as True, 'none' as None; what is no literal stays text."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def named(words: Sequence[str]) -> dict[str, str]:
    """['depth=a.safetensors', ...] as {'depth': 'a.safetensors', ...}. Raises ValueError for other words."""
    found: dict[str, str] = {}
    for word in words:
        name, _, path = word.partition("=")
        if not name or not path or name in found:
            raise ValueError(f"{word!r} is not NAME=FILE with a name of its own; write depth=runs/depth.safetensors.")
        found[name] = path
    return found
