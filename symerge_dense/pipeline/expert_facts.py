"""What the files of given experts say about themselves: it completes a short config, and is compared with a long one.

Task and network of an expert are its own. A config that says otherwise is refused where the run would mean something
else (task, number of classes, backbone, preprocessing that others are trained by), and overruled in a printed sentence
where the file alone is used (head, preprocessing, other arguments of the task).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from symerge_dense.models.backbone import TimmBackbone
from symerge_dense.models.checkpoint import check_same_base, read_metadata
from symerge_dense.models.plugins import check_registered
from symerge_dense.models.task_specs import build_task
from symerge_dense.progress import say
from symerge_dense.registry import HEADS, TASKS

if TYPE_CHECKING:
    from symerge_dense.pipeline.config import RunConfig

Spec = dict[str, Any]
SHARED = ("backbone", "preprocessing", "align_corners")  # what one pass through one backbone needs to be equal
ASIDE = (
    "class_names",
    "palette",
    "max_median",
)  # arguments of tasks that no prediction depends on: their defaults say nothing
TAKEN = ("tasks", "backbone", "head", "preprocessing")  # sections that experts' files can stand for


@dataclass(frozen=True)
class ExpertFacts:
    """The description in an expert's file.

    Args:
        path: of the file.
        task: spec of its task.
        head: spec of its head.
        backbone: spec of its backbone.
        preprocessing: its 'mean' and 'std'.
        align_corners: of its outputs' upsampling.
        record: all that the file says.
    """

    path: Path
    task: Spec
    head: Spec
    backbone: Spec
    preprocessing: Spec
    align_corners: bool
    record: Spec


def read_facts(path: str | Path, task: str) -> ExpertFacts:
    """Read an expert's description, not its weights.

    Args:
        path: of the file.
        task: the task that it is an expert of.

    Raises:
        ValueError: the file is missing or no model file, lacks the task, or needs a plug-in.
    """
    record = read_metadata(path)
    model = record["model"]
    try:
        check_registered(model, record.get("plugins"))
        if task not in model["tasks"]:
            served = ", ".join(model["tasks"])
            raise ValueError(
                f"expert {path} serves {served}, not {task!r}; write {next(iter(model['tasks']))}={path}, or name an "
                f"expert of {task}."
            )
        own = {"task": model["tasks"][task], "head": model["heads"][task], "record": record}
        return ExpertFacts(path=Path(path), **own, **{part: model[part] for part in SHARED})
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} describes no network ({error!r}); save it again by save_model.") from error
    except ValueError as error:
        raise error if str(path) in str(error) else ValueError(f"{path}: {error}") from error


# -- a short config ---------------------------------------------------------------------------------------------------
def completed(values: Mapping[str, Any]) -> Spec:
    """A config's values with what it leaves to the experts' files: tasks, backbone, heads, preprocessing.

    Args:
        values: {section: content}; nothing is read where ``experts.checkpoints`` do not stand for all tasks.

    Raises:
        ValueError: a file is missing, or lacks its task.
    """
    found = dict(values)
    experts = found.get("experts")
    named = experts.get("checkpoints") if isinstance(experts, Mapping) else None
    if not isinstance(named, Mapping) or not named or all(section in found for section in TAKEN):
        return found
    if not set(found.get("tasks", named)) <= set(named):
        return found
    facts = {task: read_facts(path, task) for task, path in named.items()}
    first = next(iter(facts.values()))
    found.setdefault("tasks", {task: fact.task for task, fact in facts.items()})
    found.setdefault("backbone", first.backbone)
    if "head" not in found:
        found["head"] = first.head
        found["heads"] = {**{task: facts[task].head for task in found["tasks"]}, **found.get("heads", {})}
    found.setdefault("preprocessing", first.preprocessing)
    found.setdefault("align_corners", first.align_corners)
    return found


# -- the config and the files -----------------------------------------------------------------------------------------
def check_given_experts(config: RunConfig) -> dict[str, ExpertFacts]:
    """Compare the files of given experts with each other and with the config, before anything is trained.

    Args:
        config: of the run.

    Returns:
        {task: what the file of its expert says}, for the experts that the config names.

    Raises:
        ValueError: a file is missing, lacks its task, has other classes or another network than the config or another
            file, or started from another base.
    """
    given = config.experts.get("checkpoints", {})
    facts = {task: read_facts(given[task], task) for task in config.tasks if task in given}
    for task, fact in facts.items():
        _check_task(task, config.tasks[task], fact)
    _check_alike(facts)
    _check_network(config, facts)
    if len(facts) > 1:
        check_base(config, {task: fact.record for task, fact in facts.items()})
    return facts


def check_base(config: RunConfig, records: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse files that did not start from the same base weights, unless the config allows it.

    Args:
        config: of the run; matched experts, and those whose mean is the base, need no common base.
        records: {name for messages: what the file says of itself}.

    Raises:
        ValueError: they did not; names the settings that allow it.
    """
    matched = config.experts.get("match") is not None or config.base.get("mean")
    try:
        check_same_base(records, bool(matched or config.experts.get("other_base", False)))
    except ValueError as error:
        raise ValueError(
            f"{error} In the config that is experts.other_base=True; experts that were trained from different first "
            "weights are brought into one order by experts.match=dict(type='activations'), with base.mean=True."
        ) from error


def _check_task(name: str, spec: Mapping[str, Any], fact: ExpertFacts) -> None:
    """The expert's own task against the config's of that name."""
    mine, own = build_task(name, spec), build_task(name, fact.task)
    if mine.channels != own.channels:
        raise ValueError(
            f"expert {fact.path} has {own.channels} {'classes' if own.class_map else 'channels'}, "
            f"{_short(fact.task)}, the config's task {name} has {mine.channels}, {_short(spec)}; write tasks.{name} as "
            f"the expert has it, with data labelled in the same way, or name an expert of {mine.channels}."
        )
    for key in inspect.signature(type(own)).parameters:
        ours, theirs = (_plain(getattr(task, key, None)) for task in (mine, own))
        if ours != theirs and (key in spec or key not in ASIDE):
            say(f"note: {key} of task {name} is {theirs} in {fact.path}, which is used, and {ours} in the config.")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _check_alike(facts: Mapping[str, ExpertFacts]) -> None:
    first = next(iter(facts.values()), None)
    for fact in facts.values():
        for part in SHARED:
            if first is not None and getattr(fact, part) != getattr(first, part):
                raise ValueError(
                    f"{first.path} and {fact.path} differ in {part}: {getattr(first, part)} and {getattr(fact, part)}; "
                    "merging needs experts of one architecture that see images in the same way."
                )


def _check_network(config: RunConfig, facts: Mapping[str, ExpertFacts]) -> None:
    """Backbone, preprocessing and heads of the config against those of the files."""
    fact = next(iter(facts.values()), None)
    if fact is None:
        return
    with torch.device("meta"):  # without memory for the weights
        backbone = TimmBackbone(**config.backbone).spec
    if backbone != fact.backbone:
        raise ValueError(
            f"expert {fact.path} and the config differ in backbone: {fact.backbone} and {backbone}; merging needs one "
            "architecture: write backbone as the expert has it, or leave it out where every task has a file."
        )
    preprocessing = {key: [float(value) for value in config.preprocessing[key]] for key in config.preprocessing}
    trained = [task for task in config.tasks if task not in facts]
    for part, ours in {"preprocessing": preprocessing, "align_corners": config.align_corners}.items():
        theirs = getattr(fact, part)
        if ours != theirs and trained:
            raise ValueError(
                f"expert {fact.path} has {part} {theirs}, the config {ours}, by which {', '.join(trained)} would be "
                f"trained; write {part} as the expert has it."
            )
        if ours != theirs:
            say(f"note: {part} is the experts' {theirs} ({fact.path}), not the config's {ours}.")
    for task, own in facts.items():
        ours, theirs = _short(config.head_of(task)), _short(own.head)
        if ours != theirs:
            say(f"note: the head of {task} is that of {own.path}, {theirs}, not the config's {ours}.")


def _short(spec: Mapping[str, Any]) -> str:
    """A spec as one reads it: dict(type='segmentation', classes=40)."""
    kind = spec.get("type")
    name = (
        kind if isinstance(kind, str) or kind is None else TASKS.name_of(kind) or HEADS.name_of(kind) or kind.__name__
    )
    rest = {key: value for key, value in sorted(spec.items()) if key not in ("type", *ASIDE)}
    return f"dict({', '.join(f'{key}={value!r}' for key, value in {'type': name, **rest}.items())})"
