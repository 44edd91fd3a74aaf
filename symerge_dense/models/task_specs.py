"""Tasks as plain values: built from their specs, and described by them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import Any

from symerge_dense.registry import TASKS, did_you_mean
from symerge_dense.tasks.base import DenseTask

Spec = Mapping[str, Any]


def build_task(name: str, task: DenseTask | Spec) -> DenseTask:
    """The task object of a spec.

    Args:
        name: under which samples carry the task's target.
        task: the task, or its spec ``{'type': registered name, **arguments}``; without 'type', ``name`` is the type.

    Raises:
        ValueError: the task's own name is not ``name``, the registry does not know it, or it is no whole task.
    """
    if isinstance(task, Mapping):
        task = {"type": name, **task}
        built: DenseTask = TASKS.build(task)
    else:
        built = task
    kind = type(built).__name__
    if not isinstance(built, DenseTask):
        raise ValueError(f"task {name!r}: {kind} is no DenseTask; derive it from symerge_dense.tasks.DenseTask.")
    if not isinstance(getattr(built, "channels", None), int):
        raise ValueError(f"task {name!r}: {kind} has no channels; say how many its head gives: channels: int = 1.")
    if built.headline not in built.metrics:
        raise ValueError(did_you_mean(built.headline, built.metrics, f"metric, the headline of {kind}"))
    if built.name != name:
        raise ValueError(f"task {built.name!r} stands under the name {name!r}; a task goes by its own name.")
    return built


def task_spec(task: DenseTask, given: DenseTask | Spec) -> dict[str, Any]:
    """JSON-able ``{'type': registered name, **arguments}`` of a task.

    Args:
        task: the task.
        given: what it was built from: a spec, whose arguments are kept, or the task itself, whose attributes are read.

    Raises:
        ValueError: JSON cannot hold an argument.
    """
    if isinstance(given, Mapping):
        arguments = {key: value for key, value in given.items() if key != "type"}
    else:
        names = [p for p in inspect.signature(type(task)).parameters if hasattr(task, p)]
        arguments = {name: getattr(task, name) for name in names}
        arguments |= {"classes": task.channels} if "classes" in inspect.signature(type(task)).parameters else {}
    try:
        spec: dict[str, Any] = json.loads(json.dumps({"type": task.name, **arguments}))
    except TypeError as error:
        raise ValueError(
            f"task {task.name}: {arguments} cannot be kept in a file ({error}); give plain values."
        ) from error
    return spec
