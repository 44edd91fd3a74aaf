"""The section ``data`` of a config: which data sets there are, and the unlabelled images, which may be several sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from symerge_dense.datasets.pools import OWN, check_labels_of
from symerge_dense.pipeline.config_checks import UNTRAINED, check_arguments, explained
from symerge_dense.registry import DATASETS

POOL = "unlabelled"


def check_data(values: Mapping[str, Any]) -> None:
    """Check the data sets of a config: their names, classes and arguments.

    Args:
        values: {section: content}.

    Raises:
        ValueError: a data set is missing, unknown, or has a wrong argument; or ``labels_of`` of a pool names no task.
    """
    _check_splits(values)
    for split, spec in values["data"].items():
        if split == POOL:
            check_unlabelled(spec, values["tasks"])
        else:
            check_arguments(spec, DATASETS, f"data.{split}")


def data_specs(data: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The specs of all data sets by their names in a config; several pools are 'unlabelled[0]', 'unlabelled[1]' ...

    Args:
        data: the config's section.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for split, spec in data.items():
        several = isinstance(spec, list | tuple)
        found |= {f"{split}[{number}]": one for number, one in enumerate(spec)} if several else {split: spec}
    return found


def is_pool(name: str) -> bool:
    """Whether a name of ``data_specs`` is that of unlabelled images.

    Args:
        name: such as 'unlabelled' or 'unlabelled[0]'.
    """
    return name == POOL or name.startswith(f"{POOL}[")


def check_unlabelled(spec: Any, tasks: Mapping[str, Any], where: str = "data.unlabelled") -> None:
    """Check the spec of unlabelled images, or a list of specs.

    Args:
        spec: the config's value.
        tasks: {task name: task spec} of the merged model.
        where: name of the value, for the message.

    Raises:
        ValueError: a data set is unknown or has a wrong argument, the list is empty, or ``labels_of`` names no task.
    """
    if not isinstance(spec, list | tuple):
        check_arguments(spec, DATASETS, where, own=["limit"])
        return
    if not spec:
        raise ValueError(f"{where} is an empty list; name one data set of images or more.")
    for number, one in enumerate(spec):
        check_arguments(one, DATASETS, f"{where}[{number}]", own=OWN)
    with explained(where):
        check_labels_of([one.get("labels_of") for one in spec], list(tasks))


def _check_splits(values: Mapping[str, Any]) -> None:
    """A run needs images to adapt on, and labels where something may have to be trained."""
    data, given = values["data"], values["experts"].get("checkpoints") or {}
    if "unlabelled" not in data:
        raise ValueError(
            "data has no 'unlabelled'; name the images to adapt on, for example "
            "unlabelled=dict(type='ImageFolder', root='photos')."
        )
    missing = [task for task in values["tasks"] if task not in given]
    if "train" not in data and (missing or not any(values["base"].get(key) for key in UNTRAINED)):
        what = f"the experts of {', '.join(missing)}" if missing else "the base"
        files = "a file for every task in experts.checkpoints" if missing else "base.checkpoint"
        raise ValueError(f"data has no 'train' for {what}; name labelled images there, or give {files}.")
