"""Which modules of other packages a model file needs, and what its error says where they are not imported."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from symerge_dense.registry import HEADS, TASKS, did_you_mean, registered_by

Spec = Mapping[str, Any]
SHOWN = 80  # characters of a text from a file that a message repeats
MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(:[A-Za-z_]\w*)?", re.ASCII)


def plugins_of(spec: Spec) -> dict[str, str]:
    """The modules of other packages that a model's tasks and heads come from.

    Args:
        spec: of a ``MultiTaskModel``.

    Returns:
        ``{'task saliency': 'my_lab.saliency'}``: kind and registered name, and the module of the class. Classes of
        this package are left out.

    Raises:
        ValueError: a task or head is not registered: a file that names it could not be loaded.
    """
    found = {}
    for registry, parts in ((TASKS, spec["tasks"]), (HEADS, spec["heads"])):
        for name in (part["type"] for part in parts.values()):
            if name not in registry:
                raise ValueError(
                    f"{registry.kind} {name!r} is not registered, so no model file can name it; put "
                    f"@{registry.kind.upper()}S.register_module() (of symerge_dense.registry) before its class."
                )
            module = registered_by(registry[name])
            if module is not None:
                found[f"{registry.kind} {name}"] = name if ":" in name else module  # 'my_lab.heads:build'
    return found


def task_plugins(tasks: Iterable[str]) -> dict[str, str]:
    """The modules of other packages that registered tasks come from, as ``plugins_of`` has them.

    Args:
        tasks: their registered names.
    """
    modules = {f"{TASKS.kind} {name}": registered_by(TASKS[name]) for name in tasks}
    return {key: module for key, module in modules.items() if module is not None}


def check_registered(spec: Spec, plugins: Any = None) -> None:
    """Refuse a model's spec whose tasks and heads do not all go by registered names. Nothing is imported.

    Args:
        spec: of a ``MultiTaskModel``; it may come from an untrusted file.
        plugins: what ``plugins_of`` returned where the file was written, or None. It is only shown.

    Raises:
        ValueError: a part has no name, or nobody registered it; the message says which module to import.
    """
    for registry, parts in ((HEADS, spec["heads"]), (TASKS, spec["tasks"])):
        for part in parts.values():
            name = part.get("type") if isinstance(part, Mapping) else None
            if not isinstance(name, str):
                raise ValueError("in a model's spec every head and task is {'type': registered name, ...}.")
            if name not in registry:  # a name that a registry would import is not looked for
                known = did_you_mean(name[:SHOWN], list(registry), registry.kind)
                raise ValueError(known + origin(f"{registry.kind} {name}", plugins))


def origin(key: str, plugins: Any) -> str:
    """What to import before a name is known, as a sentence: words of a file that is not trusted. Nothing is imported.

    Args:
        key: kind and name, for example 'task saliency'.
        plugins: what ``plugins_of`` returned where the file was written, or anything else.

    Returns:
        The sentence, with a space before it; empty where the file does not say.
    """
    module = plugins.get(key) if isinstance(plugins, Mapping) else None
    if not isinstance(module, str):
        return ""
    if module == "__main__":
        return " It was registered by the script that wrote the file: move its class to a module and import that first."
    if len(module) > SHOWN or not MODULE.fullmatch(module):  # never part of a command that somebody may copy
        return f" The file says that it was registered by {module[:SHOWN]!a}, which is no name of a module."
    return (
        f" It was registered by module {module}: import that module first (--import {module}, or "
        f"custom_imports=dict(imports=[{module!r}]) in the config)."
    )
