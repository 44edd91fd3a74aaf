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
        if split == POOL and isinstance(spec, list | tuple):
            _check_pools(spec, values["tasks"])
        else:
            check_arguments(spec, DATASETS, f"data.{split}", own=["limit"] if split == POOL else [])


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


def _check_pools(specs: list[Any] | tuple[Any, ...], tasks: Mapping[str, Any]) -> None:
    if not specs:
        raise ValueError("data.unlabelled is an empty list; name one data set of images or more.")
    for number, spec in enumerate(specs):
        check_arguments(spec, DATASETS, f"data.unlabelled[{number}]", own=OWN)
    with explained("data.unlabelled"):
        check_labels_of([spec.get("labels_of") for spec in specs], list(tasks))


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
