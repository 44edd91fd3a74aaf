"""The lists that tests, tables and ``--help`` walk over: dense tasks, heads, and merging methods of either kind.

A newcomer registers itself with a decorator; ``discover()`` imports every module of their folders, so that no list
is ever extended by hand.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T", bound=type)


def nearest(name: str, known: Collection[str], kind: str) -> str:
    """Error text for an unknown ``name``: the value, what is allowed and the nearest names."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.4)
    hint = f" Did you mean {', '.join(map(repr, close))}?" if close else ""
    return f"unknown {kind} {name!r}.{hint} Known: {', '.join(sorted(known)) or 'none'}."


class Registry(Generic[T]):
    """Classes by name. ``register`` is a class decorator; the class's ``name`` attribute is the key."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._classes: dict[str, T] = {}

    def register(self, cls: T) -> T:
        """Enter ``cls`` under ``cls.name``. Raises ValueError if another class already owns the name."""
        name: str = cls.name  # type: ignore[attr-defined]
        owner = self._classes.setdefault(name, cls)
        if (owner.__module__, owner.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"{self.kind} {name!r} is registered twice: {owner!r} and {cls!r}; rename one of them.")
        self._classes[name] = cls
        return cls

    def __getitem__(self, name: str) -> T:
        if name not in self._classes:
            discover()  # its module may not have been imported yet
        if name not in self._classes:
            raise ValueError(nearest(name, self._classes, self.kind))
        return self._classes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._classes))

    def __len__(self) -> int:
        return len(self._classes)

    def build(self, spec: dict[str, Any] | Any) -> Any:
        """Build from ``{'type': class or name, **arguments}``; an object that is not a dict is returned as it is."""
        if not isinstance(spec, dict):
            return spec
        arguments = dict(spec)
        kind: str | Callable[..., Any] = arguments.pop("type")
        factory = self[kind] if isinstance(kind, str) else kind
        return factory(**arguments)


TASKS: Registry[Any] = Registry("task")
HEADS: Registry[Any] = Registry("head")
MERGERS: Registry[Any] = Registry("merger")
ADAPTERS: Registry[Any] = Registry("adaptive method")


def discover(rooms: Sequence[str] = ("tasks", "experts", "merging", "engine.methods")) -> None:
    """Import every module of the folders that hold registered classes, so that the registries are complete."""
    for room in rooms:
        package = importlib.import_module(f"symerge_dense.{room}")
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{module.name}")
