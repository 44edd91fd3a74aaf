"""HTML from Python: what comes from records is text, whatever it looks like."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

VOID = ("br", "img", "input", "meta")


class Markup(str):
    """Text that is HTML already. All other text is escaped."""


def tag(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """An element.

    Args:
        name: of the element.
        *children: ``Markup``, text and numbers, which are escaped, or iterables of these; None is left out.
        **attributes: underscores become hyphens, ``class_`` is 'class'. True gives a bare attribute, None and False
            none.

    >>> tag("p", "1 < 2", class_="note", hidden=False)
    '<p class="note">1 &lt; 2</p>'
    """
    words = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            words.append(key)
        elif value is not None and value is not False:
            words.append(f'{key}="{escape(str(value))}"')
    start = f"<{' '.join(words)}>"
    return Markup(start if name in VOID else f"{start}{joined(children)}</{name}>")


def joined(children: Iterable[Any]) -> Markup:
    """Children one after the other.

    Args:
        children: as those of ``tag``.
    """
    return Markup("".join(map(_text, children)))


def _text(child: Any) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, str | int | float):
        return escape(str(child))
    return joined(child)


def svg(*children: Any, label: str | None = None, **attributes: Any) -> Markup:
    """A drawing.

    Args:
        *children: its elements.
        label: what it shows, for who cannot see it; None: the numbers stand beside it.
        **attributes: as those of ``tag``; ``viewBox`` keeps its capital letter.
    """
    named = {"role": "img", "aria_label": label} if label else {"aria_hidden": "true"}
    return tag("svg", *children, focusable="false", **named, **attributes)


def percent(share: float) -> str:
    """A place in a drawing that is as wide as its box.

    Args:
        share: 0 at the left, 1 at the right.
    """
    return f"{100 * share:.2f}%"


def minus(text: str) -> str:
    """A number with a minus sign in place of a hyphen, so that it is as wide as a plus.

    Args:
        text: the number.
    """
    return text.replace("-", "\N{MINUS SIGN}")
