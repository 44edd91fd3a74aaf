"""Values and NAME=VALUE pairs from the words of a command line. Light: no torch."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

_WORDS = {"true": True, "false": False, "none": None, "null": None}


def literal(text: str) -> Any:
    """A value from a command line.

    Args:
        text: what was written.

    Returns:
        ``'0.2'`` as 0.2, ``"{'a': 1}"`` and ``'dict(a=1)'`` as a dict, ``'true'`` as True, ``'none'`` as None; what is
        no Python literal stays text. Nothing is run.

    >>> literal("[0.3, 0.5]"), literal("true"), literal("mean"), literal("dict(flip=True, scales=(0.75, 1.0))")
    ([0.3, 0.5], True, 'mean', {'flip': True, 'scales': (0.75, 1.0)})
    """
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(_Dicts().visit(ast.parse(text.strip(), mode="eval")))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


class _Dicts(ast.NodeTransformer):
    """Calls of ``dict`` with keywords alone become dicts, as configs write them."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        named = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
        plain = isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args
        if not plain or len(named) < len(node.keywords):
            return node  # which is no literal
        return ast.Dict(keys=[ast.Constant(name) for name in named], values=list(named.values()))


def pair(word: str, form: str, example: str, empty: bool = False) -> tuple[str, str]:
    """The two sides of a word of a command line.

    Args:
        word: ``'a=1'``; what follows the first '=' is the value.
        form: what it should look like, for the message.
        example: one, for the message.
        empty: whether the value may be empty.

    Raises:
        ValueError: a word of another form.

    >>> pair("width=512", "KEY=VALUE", "--head width=512")
    ('width', '512')
    """
    name, equals, value = word.partition("=")
    if not name or not equals or not (value or empty):
        raise ValueError(f"{word!r} is not {form} with a name of its own; write {example}.")
    return name, value


def pairs(words: Sequence[str], form: str, example: str, empty: bool = False) -> dict[str, str]:
    """Words of a command line as a dict.

    Args:
        words: ``['a=1', ...]``, every name once.
        form: what a word should look like, for the message.
        example: one, for the message.
        empty: whether values may be empty.

    Raises:
        ValueError: a word of another form, or a name that stands twice.
    """
    found: dict[str, str] = {}
    for word in words:
        name, value = pair(word, form, example, empty)
        if name in found:
            raise ValueError(f"{word!r} is not {form} with a name of its own; write {example}.")
        found[name] = value
    return found
