"""Which plug-ins a module registered, and all contracts run on each."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from symerge_dense.registry import (
    ADAPTIVE_METHODS,
    DATASETS,
    HEADS,
    MERGERS,
    TASKS,
    TEACHERS,
    Registry,
    did_you_mean,
    import_plugins,
)
from symerge_dense.testing.adaptive_methods import ADAPTIVE_CHECKS, TinyRuns
from symerge_dense.testing.contract import Check, Outcome, expect, run_checks
from symerge_dense.testing.datasets import DATASET_CHECKS, OpenedDataset
from symerge_dense.testing.heads import HEAD_CHECKS, head_builder
from symerge_dense.testing.mergers import MERGER_CHECKS
from symerge_dense.testing.predictions import TASK_CHECKS
from symerge_dense.testing.teachers import TEACHER_CHECKS

Options = Mapping[str, Any]


class Kind(NamedTuple):
    """A kind of plug-in.

    Args:
        flag: how the command line calls it.
        registry: where its classes are.
        checks: its contracts.
        prepare: what a check takes, from the class and the options of its constructor.
    """

    flag: str
    registry: Registry[Any]
    checks: Sequence[Check]
    prepare: Callable[[type, Options], Any]


KINDS = (
    Kind("task", TASKS, TASK_CHECKS, lambda owner, options: owner(**options)),
    Kind("dataset", DATASETS, DATASET_CHECKS, OpenedDataset),
    Kind("head", HEADS, HEAD_CHECKS, lambda owner, options: head_builder({"type": owner, **options})),
    Kind("method", MERGERS, MERGER_CHECKS, lambda owner, options: lambda: owner(**options)),
    Kind("method", ADAPTIVE_METHODS, ADAPTIVE_CHECKS, lambda owner, options: TinyRuns(lambda: owner(**options))),
    Kind("teacher", TEACHERS, TEACHER_CHECKS, lambda owner, options: {"type": owner, **options}),
)


class Plugin(NamedTuple):
    """A registered class.

    Args:
        kind: what it is.
        name: its registered name.
    """

    kind: Kind
    name: str


def find_plugins(module: str, flags: Collection[str] = (), names: Collection[str] = ()) -> list[Plugin]:
    """Import a module and find what it registered.

    Args:
        module: dotted name; the caller vouches for it.
        flags: kinds that are wanted ('task', 'dataset', 'head', 'method', 'teacher'); none means all.
        names: registered names that are wanted; none means all.

    Raises:
        ValueError: the module cannot be imported, or has registered nothing of the kind or name.
    """
    before = {(kind.registry.kind, name) for kind in KINDS for name in kind.registry}
    import_plugins([module])
    wanted = [kind for kind in KINDS if not flags or kind.flag in flags]
    found = [
        Plugin(kind, name)
        for kind in wanted
        for name in kind.registry
        if (kind.registry.kind, name) not in before or f"{kind.registry[name].__module__}.".startswith(f"{module}.")
    ]
    if not found:
        asked = " or ".join(flags) or "task, dataset, head, method or teacher"
        raise ValueError(
            f"{module} registers no {asked}; put the decorator .register_module() of its "
            "registry (TASKS, DATASETS, HEADS, MERGERS, ADAPTIVE_METHODS or TEACHERS, of symerge_dense) before the "
            "class."
        )
    known = [plugin.name for plugin in found]
    for name in names:
        if name not in known:
            raise ValueError(f"{module}: " + did_you_mean(name, known, "plug-in"))
    return [plugin for plugin in found if not names or plugin.name in names]


def check_plugin(plugin: Plugin, options: Options | None = None) -> list[Outcome]:
    """Run all contracts of its kind on a plug-in.

    Args:
        plugin: to be tested.
        options: arguments of its constructor.

    Returns:
        What became of each contract; the first is that the plug-in can be built.

    Raises:
        ValueError: the data set's constructor needs an argument that is not among the options.
    """
    prepared: list[Any] = []

    def check_construction(_: Any) -> None:
        """It can be built"""
        owner = plugin.kind.registry[plugin.name]
        missing = ", ".join(sorted(getattr(owner, "__abstractmethods__", ())))
        expect(not missing, f"it lacks what its base class asks for: {missing}; write it.")
        try:
            prepared.append(plugin.kind.prepare(owner, options or {}))
        except TypeError as error:
            raise AssertionError(f"{error}; give arguments of its constructor by --options NAME=VALUE.") from error

    _check_arguments(plugin, options or {})
    built = run_checks([check_construction], None)
    return built + (run_checks(plugin.kind.checks, prepared[0]) if prepared else [])


def _check_arguments(plugin: Plugin, options: Options) -> None:
    """A data set that is asked without the arguments it needs is no broken one: the question is incomplete."""
    owner = plugin.kind.registry[plugin.name]
    if plugin.kind.registry is not DATASETS or inspect.isabstract(owner):
        return
    missing = [
        name
        for name, parameter in inspect.signature(owner).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and name not in options
    ]
    if missing:
        raise ValueError(
            f"the constructor of {plugin.name} needs {', '.join(missing)}; give arguments of its constructor by "
            f"--options {missing[0]}=VALUE."
        )
