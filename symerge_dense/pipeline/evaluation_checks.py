"""Checks of what a config measures and compares, before anything is built."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from symerge_dense.evaluation.protocols import measure
from symerge_dense.models.multi_task import build_task
from symerge_dense.pipeline.config_checks import explained
from symerge_dense.registry import did_you_mean

Spec = Mapping[str, Any]
TAKEN = {
    "unlabelled": "its view has no way to read a label",
    "train": "the experts have learned it",
    "validation": "scales may be tuned on it",
    "test": "every row is measured on it anyway",
}
"""{data set of a config: why ``evaluation.also`` cannot name it}."""


def check_evaluation(values: Spec) -> None:
    """Check what is measured.

    Args:
        values: {section: content} of a config whose sections are otherwise checked.

    Raises:
        ValueError: an unknown protocol, or a further set that is none.
    """
    evaluation = values.get("evaluation", {})
    check_protocol(evaluation.get("protocol", "default"), values["tasks"])
    if evaluation.get("also") is not None:
        check_also(evaluation["also"], values["data"], values["tasks"])


def check_protocol(protocol: Any, tasks: Spec) -> None:
    """Check the protocol of evaluation.

    Args:
        protocol: the config's value.
        tasks: {task name: task spec}.

    Raises:
        ValueError: the protocol is unknown, or does not cover a task.
    """
    for name, spec in tasks.items():
        with explained("evaluation.protocol"):
            measure(build_task(name, spec), protocol)


def check_also(also: Any, data: Spec, tasks: Collection[str]) -> None:
    """Check the further labelled sets that rows are measured on.

    Args:
        also: ``evaluation.also``.
        data: {name: spec} of the config's data sets.
        tasks: names of the config's tasks.

    Raises:
        ValueError: ``also`` is no list of different names, names no data set or a reserved one, or there is no test
            split to measure beside.
    """
    if not isinstance(also, list | tuple) or not all(isinstance(name, str) for name in also):
        raise ValueError(f"evaluation.also={also!r} must be a list of names of data sets, such as ['outside'].")
    own = [name for name in data if name not in TAKEN]
    for place, name in enumerate(also):
        if name in TAKEN:
            raise ValueError(
                f"evaluation.also names {name!r}, but {TAKEN[name]}; give the labelled images a name of their own, for "
                f"example data.outside=dict(...) and evaluation.also=['outside']."
            )
        if name not in data:
            raise ValueError(f"evaluation.also: {did_you_mean(name, own, 'data set')} Name it in data: data.{name}=...")
        if name in tasks:
            raise ValueError(f"evaluation.also: {name!r} is the name of a task; call the data set by another.")
        if name in also[:place]:
            raise ValueError(f"evaluation.also names {name!r} twice; leave one out.")
    if also and "test" not in data:
        raise ValueError(
            f"evaluation.also={list(also)!r} is measured beside data.test, which is missing; name labelled images "
            "there, or leave evaluation.also out."
        )
