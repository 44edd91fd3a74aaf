"""Checks of what a config measures and compares, before anything is built."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Collection, Mapping
from typing import Any

from symerge_dense.adaptation.options import SyMergeOptions
from symerge_dense.evaluation.protocols import measure
from symerge_dense.models.multi_task import build_task
from symerge_dense.pipeline.config_checks import check_adaptation, explained
from symerge_dense.pipeline.data_section import check_unlabelled
from symerge_dense.pipeline.method_options import built
from symerge_dense.registry import ADAPTIVE_METHODS, MERGERS, did_you_mean

Spec = Mapping[str, Any]
TAKEN = {
    "unlabelled": "its view has no way to read a label",
    "train": "the experts have learned it",
    "validation": "scales may be tuned on it",
    "test": "every row is measured on it anyway",
}
"""{data set of a config: why ``evaluation.also`` cannot name it}."""
REFERENCES = ("experts", "experts_views", "joint_training")
OWN_KEYS = ("method", "unlabelled")  # of a variant: all others are options


def check_evaluation(values: Spec) -> None:
    """Check what is measured.

    Args:
        values: {section: content} of a config whose sections are otherwise checked.

    Raises:
        ValueError: an unknown protocol, a further set that is none, or a wrong row of a comparison.
    """
    evaluation = values.get("evaluation", {})
    check_protocol(evaluation.get("protocol", "default"), values["tasks"])
    if evaluation.get("also") is not None:
        check_also(evaluation["also"], values["data"], values["tasks"])
    if variants := values.get("baselines", {}).get("variants"):
        check_variants(variants, values)
    if (methods := values.get("baselines", {}).get("methods")) is not None:
        check_methods(methods, variants or {})


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


def check_methods(methods: Any, variants: Collection[str]) -> None:
    """Check the names of the rows that a comparison has.

    Args:
        methods: ``baselines.methods``.
        variants: names of ``baselines.variants``.

    Raises:
        ValueError: it is no list, or has an unknown name.
    """
    if not isinstance(methods, list | tuple) or not all(isinstance(name, str) for name in methods):
        raise ValueError(f"baselines.methods={methods!r} must be a list of names, such as ['symerge', 'ties'].")
    known = [*REFERENCES, *ADAPTIVE_METHODS, *MERGERS, *variants]
    for name in methods:
        if name not in known:
            raise ValueError(f"baselines.methods: {did_you_mean(name, known, 'method')}")


def check_variants(variants: Any, values: Spec) -> None:
    """Check the rows that are a method with other options.

    Args:
        variants: ``baselines.variants``, {row: dict(method=..., options)}.
        values: {section: content} of the config.

    Raises:
        ValueError: a name that cannot be one, an unknown method or option, or a value that is not allowed.
    """
    example = "{'free': dict(method='symerge', clamp=None)}"
    if not isinstance(variants, Mapping):
        raise ValueError(f"baselines.variants={variants!r} must be a dict of rows, such as {example}.")
    for name, spec in variants.items():
        where = f"baselines.variants, {name!r}"
        if not re.fullmatch(r"\w[\w +,.=()-]{0,59}", str(name)):
            raise ValueError(f"{where}: the name is a file's too; use up to 60 letters, digits, blanks and _+,.=()-")
        if name in REFERENCES or name in ADAPTIVE_METHODS or name in MERGERS:
            raise ValueError(f"{where} is the name of a row of its own; call the variant by another.")
        if not isinstance(spec, Mapping) or "method" not in spec:
            raise ValueError(f"{where} is {spec!r}; it must be a dict with a 'method', such as {example}.")
        with explained(where):
            _check_variant(spec, values)


def _check_variant(spec: Spec, values: Spec) -> None:
    if not isinstance(spec["method"], str) or spec["method"] not in [*ADAPTIVE_METHODS, *MERGERS]:
        raise ValueError(did_you_mean(str(spec["method"]), [*ADAPTIVE_METHODS, *MERGERS], "merging method"))
    own, shared = parts_of(spec)
    if spec["method"] in MERGERS:
        if "unlabelled" in spec:
            raise ValueError(
                f"{spec['method']} learns from no images, so it has no 'unlabelled' of its own; leave it out."
            )
        built(MERGERS[spec["method"]], spec["method"], {**own, **shared})
        return
    kind = ADAPTIVE_METHODS[spec["method"]]
    options = [field.name for field in dataclasses.fields(SyMergeOptions)]
    for key in shared:
        if key not in options:
            raise ValueError(
                did_you_mean(key, [*inspect.signature(kind).parameters, *options], f"option of {kind.name}")
            )
    built(kind, kind.name, own)
    learned = {key: value for key, value in own.items() if key in options}
    check_adaptation({**values.get("adaptation", {}), **shared, **kind.changes, **learned}, values["tasks"])
    if "unlabelled" in spec:
        check_unlabelled(spec["unlabelled"], values["tasks"], "unlabelled")


def parts_of(spec: Spec) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a variant changes.

    Args:
        spec: entry of ``baselines.variants``; its method exists.

    Returns:
        Arguments of the method, and other options of the adaptation.
    """
    given = {key: value for key, value in spec.items() if key not in OWN_KEYS}
    if isinstance(given.get("clamp"), list):
        given["clamp"] = tuple(given["clamp"])
    kind = (ADAPTIVE_METHODS if spec["method"] in ADAPTIVE_METHODS else MERGERS)[spec["method"]]
    known = inspect.signature(kind).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        return given, {}
    return {key: given[key] for key in given if key in known}, {key: given[key] for key in given if key not in known}
