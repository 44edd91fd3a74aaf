"""Checks of a config before anything is built: unknown names, values that are not allowed."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Collection, Mapping
from typing import Any

from symerge_dense.adaptation.option_checks import check_types
from symerge_dense.adaptation.option_checks import explained as explained
from symerge_dense.adaptation.options import make_options
from symerge_dense.engine.runner import check_settings
from symerge_dense.experts.matching import Matching
from symerge_dense.experts.recipe import Recipe
from symerge_dense.fileio import optional_import
from symerge_dense.models.multi_task import build_task
from symerge_dense.registry import HEADS, TASKS, Registry, did_you_mean

Spec = Mapping[str, Any]
KEYS: dict[str, tuple[str, ...]] = {
    "preprocessing": ("mean", "std"),
    "base": ("mean", "checkpoint", "key", "ema", "pretrained", "random_init", "train"),
    "experts": ("name", "folder", "seed", "recipe", "recipes", "checkpoints", "other_base", "match"),
    "baselines": ("scales", "methods", "variants"),
    "evaluation": ("batch_size", "num_workers", "panels", "protocol", "held_out", "also"),
}
"""{section: its keys}, of the sections whose entries are not the arguments of a class."""
UNTRAINED = ("mean", "checkpoint", "pretrained", "random_init")  # sources of a base, the first that is given
GIVEN = ("in_channels", "strides", "channels", "tasks")  # arguments that the run supplies, not the config


def check_sections(values: Spec) -> None:
    """Check all sections of a config but ``data``, which has ``data_section.check_data``.

    Args:
        values: {section: content}.

    Raises:
        ValueError: a key that nothing reads, or a value that is not allowed.
    """
    for section, known in KEYS.items():
        check_keys(values.get(section, {}), known, section)
    check_tasks(values["tasks"], "tasks")
    if "name" not in values["backbone"]:
        raise ValueError("backbone has no 'name'; give that of a timm model, for example name='resnet18'.")
    check_keys(values.get("heads", {}), list(values["tasks"]), "heads")
    for where, head in {"head": values["head"], **values.get("heads", {})}.items():
        check_arguments(head, HEADS, where if where == "head" else f"heads.{where}", own=["adapt_layer"])
    check_base(values["base"])
    check_experts(values["experts"], values["tasks"])
    check_mean(values)
    check_adaptation(values.get("adaptation", {}), values["tasks"])
    check_numbers(values)
    check_settings(values.get("runner", {}))


def check_keys(section: Any, known: Collection[str], where: str, every: bool = False) -> None:
    """Check the keys of a section.

    Args:
        section: its content.
        known: the allowed keys.
        where: name of the section, for the message.
        every: whether all keys are required.

    Raises:
        ValueError: ``section`` is no dict, has an unknown key, or lacks a required one.
    """
    if not isinstance(section, Mapping):
        raise ValueError(f"{where} is {section!r}; it must be a dict with keys out of {', '.join(known)}.")
    for key in section:
        if key not in known:
            raise ValueError(f"{where}: {did_you_mean(str(key), known, 'key')}")
    missing = [key for key in known if every and key not in section]
    if missing:
        raise ValueError(f"{where} has no {', '.join(map(repr, missing))}; it needs {' and '.join(known)}.")


def check_tasks(tasks: Any, where: str) -> None:
    """Check task specs.

    Args:
        tasks: {task name: task spec}.
        where: name of the section, for the message.

    Raises:
        ValueError: an unknown task, an argument that it does not take, or no task at all.
    """
    if not isinstance(tasks, Mapping) or not tasks:
        raise ValueError(f"{where} is {tasks!r}; give at least one task, for example depth=dict(type='depth').")
    for name, spec in tasks.items():
        check_arguments(spec, TASKS, f"{where}.{name}")
        with explained(f"{where}.{name}"):
            build_task(name, spec)


def check_arguments(spec: Any, registry: Registry[Any] | None, where: str, own: Collection[str] = ()) -> None:
    """Check a spec: a dict with a class under 'type', and arguments of that class.

    Args:
        spec: the dict.
        registry: where the class may be given by name; None requires the class itself.
        where: name of the spec, for the message.
        own: further allowed keys that are no arguments of the class.

    Raises:
        ValueError: there is no such class, or it does not take an argument.
    """
    kind = spec.get("type") if isinstance(spec, Mapping) else spec
    if isinstance(kind, str) and registry is not None:
        with explained(f"{where}.type"):
            kind = registry.get(kind)
    if not isinstance(spec, Mapping) or not callable(kind):
        names = f" or one of the names {', '.join(registry)}" if registry is not None else ""
        raise ValueError(f"{where} has type {kind!r}; give a dict whose type is a class imported in the config{names}.")
    parameters = inspect.signature(kind).parameters.values()
    if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
        check_keys(spec, ["type", *own, *(p.name for p in parameters if p.name not in GIVEN)], where)


def check_base(base: Spec) -> None:
    """Check where the shared weights come from.

    Args:
        base: the config's section.

    Raises:
        ValueError: the section names no source, or a file and the experts' mean at once, or its training has wrong
            tasks or options.
    """
    if base.get("mean") and base.get("checkpoint"):
        raise ValueError(
            f"base.mean=True and base.checkpoint={base['checkpoint']!r} are two bases: the mean of the experts, and a "
            "file. Give base.checkpoint alone if the experts were fine-tuned from it, and base.mean=True with "
            "base.checkpoint=None if they have no common base."
        )
    if not any(value for key, value in base.items() if key not in ("key", "ema")):
        raise ValueError(
            "base does not say where the shared weights come from: give base.checkpoint=PATH, "
            "base.pretrained=True (downloads from timm's hub), base.train, base.random_init=True, or, for experts "
            "without a common base, base.mean=True."
        )
    if train := base.get("train"):
        check_keys(train, ("tasks", "recipe"), "base.train", every=True)
        check_tasks(train["tasks"], "base.train.tasks")
        check_options(Recipe, train["recipe"], "base.train.recipe")


def check_experts(experts: Spec, tasks: Collection[str]) -> None:
    """Check where the experts come from.

    Args:
        experts: the config's section.
        tasks: names of the config's tasks.

    Raises:
        ValueError: a checkpoint or recipe is for no task, a recipe is wrong, or a task has neither.
    """
    for part in ("checkpoints", "recipes"):
        check_keys(experts.get(part, {}), list(tasks), f"experts.{part}")
    bare = [task for task in tasks if task not in experts.get("checkpoints", {})]
    if bare and "recipe" not in experts:
        raise ValueError(
            f"experts has neither a recipe nor a checkpoint for {', '.join(bare)}; give experts.recipe to "
            "train them, or their files in experts.checkpoints."
        )
    for task in bare:
        recipes = experts["recipe"], experts.get("recipes", {}).get(task, {})
        if not all(isinstance(recipe, Mapping) for recipe in recipes):
            raise ValueError(f"experts.recipe, task {task}: {recipes} must be dicts of recipe options.")
        check_options(Recipe, {**recipes[0], **recipes[1]}, f"experts.recipe, task {task}")
    if experts.get("match") is not None:
        check_options(Matching, experts["match"], "experts.match")
        optional_import("scipy.optimize", "experts.match")  # missing, it would be missed after the experts are trained


def check_mean(values: Spec) -> None:
    """Check that there is something to take a mean of, where the base is the experts' mean.

    Args:
        values: {section: content}.

    Raises:
        ValueError: a task has no file of an expert, there is one task alone, or ``mean`` is no bool.
    """
    if not isinstance(values["base"].get("mean", False), bool):
        raise ValueError(f"base.mean={values['base']['mean']!r} must be True or False.")
    given, tasks = values["experts"].get("checkpoints", {}), values["tasks"]
    if values["base"].get("mean") and (len(tasks) < 2 or any(task not in given for task in tasks)):
        missing = ", ".join(task for task in tasks if task not in given) or "a second task"
        raise ValueError(
            f"base.mean=True is the mean of experts that are there: name files in experts.checkpoints for {missing}, "
            "or give another base to train them from."
        )


def check_adaptation(adaptation: Spec, tasks: Spec) -> None:
    """Check the options of the adaptation.

    Args:
        adaptation: the config's section.
        tasks: {task name: task spec}.

    Raises:
        ValueError: a wrong option, or one that does not fit the tasks.
    """
    options = make_options(**adaptation)
    options.check_tasks({name: build_task(name, spec) for name, spec in tasks.items()})


def check_options(kind: Any, values: Any, where: str) -> None:
    """Check the options of a dataclass.

    Args:
        kind: the dataclass.
        values: {option: value}.
        where: name of the section, for the message.

    Raises:
        ValueError: an unknown option, or a value of the wrong type or out of range.
    """
    check_keys(values, [field.name for field in dataclasses.fields(kind)], where)
    check_types(kind, values, where)
    with explained(where):
        kind(**values)


def check_numbers(values: Spec) -> None:
    """Check seeds, counts and scales.

    Args:
        values: {section: content}.

    Raises:
        ValueError: a seed or count is no whole number or too small, or ``scales`` is no list of numbers.
    """
    evaluation, scales = values.get("evaluation", {}), values.get("baselines", {}).get("scales", (1.0,))
    whole = {
        "seed": (values.get("seed", 0), 0),
        "experts.seed": (values["experts"].get("seed", 0), 0),
        "evaluation.batch_size": (evaluation.get("batch_size", 1), 1),
        "evaluation.num_workers": (evaluation.get("num_workers", 0), 0),
        "evaluation.panels": (evaluation.get("panels", 1), 1),
        "evaluation.held_out": (evaluation.get("held_out", 1), 1),
    }
    for name, (value, least) in whole.items():
        if type(value) is not int or value < least:
            raise ValueError(f"{name}={value!r} must be a whole number >= {least}.")
    if not isinstance(scales, list | tuple) or not scales or not all(type(scale) in (int, float) for scale in scales):
        raise ValueError(f"baselines.scales={scales!r} must be a list of numbers, such as [0.3, 0.5].")
