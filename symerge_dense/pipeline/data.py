"""Data sets and loaders of a config."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from mmengine.dataset import DefaultSampler, default_collate
from torch.utils.data import DataLoader

from symerge_dense.datasets.base import DenseDataset
from symerge_dense.datasets.pools import OWN
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.pipeline.config import RunConfig, type_names
from symerge_dense.pipeline.config_checks import explained
from symerge_dense.pipeline.data_section import data_specs

LABELS_READ = 16
SAMPLES_TRIED = 5
OUTSIDE = "outside"  # the labelled set beside 'test' that is measured without being named in evaluation.also


def _spread(length: int, count: int) -> list[int]:
    """``count`` evenly spaced numbers below ``length``, the first and the last among them; fewer where it is short."""
    return [int(index) for index in np.unique(np.linspace(0, length - 1, count).astype(int))]


def dataset(config: RunConfig, split: str, tasks: Mapping[str, Any]) -> DenseDataset:
    """Build a data set of the config, and try some of its samples.

    Args:
        config: has the spec, ``data[split]``.
        split: for example 'train'.
        tasks: {task name: task spec or task} whose targets are served.

    Raises:
        ValueError: the data set refuses its arguments, or a sample cannot be read.
    """
    built = unread_dataset(config, split, tasks)
    with explained(f"data.{split}"):
        for index in _spread(len(built), SAMPLES_TRIED):  # what does not fit is known before anything is trained
            built[index]
    return built


def unread_dataset(config: RunConfig, split: str, tasks: Mapping[str, Any]) -> DenseDataset:
    """Build a data set of the config, and read nothing that it does not read itself.

    Args:
        config: has the spec, ``data[split]``.
        split: for example 'train', or of several pools 'unlabelled[0]'.
        tasks: {task name: task spec or task} whose targets are served.

    Raises:
        ValueError: the data set refuses its arguments.
    """
    spec = data_specs(config.data)[split]
    arguments = {name: value for name, value in spec.items() if name not in OWN}  # these are for a pool only
    with explained(f"data.{split}"):
        built: DenseDataset = arguments.pop("type")(tasks=dict(tasks), **arguments)
        if not len(built):
            raise ValueError(f"{type(built).__name__} has no image; check its root and split.")
    return built


def measured_sets(config: RunConfig) -> list[str]:
    """Names of the labelled sets that every row is measured on: 'test', then those of ``evaluation.also``.

    Args:
        config: where ``evaluation.also`` is missing, a ``data.outside`` counts as named; empty without ``data.test``.
    """
    if "test" not in config.data:
        return []
    also = config.evaluation.get("also")
    return ["test", *((OUTSIDE,) if also is None and OUTSIDE in config.data else also or ())]


def labels_fingerprint(config: RunConfig, tasks: Mapping[str, Any]) -> str:
    """SHA-256 of evenly spaced training labels: enough to notice labels made anew.

    Args:
        config: has ``data['train']``.
        tasks: {task name: task spec} whose labels are read.
    """
    data, digest = dataset(config, "train", tasks), hashlib.sha256()
    for index in _spread(len(data), LABELS_READ):
        for name in sorted(tasks):
            digest.update(np.ascontiguousarray(data.resized_target(index, name)).tobytes())
    return digest.hexdigest()


def pool_spec(config: RunConfig, held_out: int = 0) -> dict[str, Any]:
    """The unlabelled images as a spec with plain values: ``dict(type='Unlabelled', dataset=..., limit=...)``.

    Args:
        config: has ``data['unlabelled']``; where it is a list, so is the spec's ``dataset``, whose entries have limits.
        held_out: number of images that are left out.
    """
    given = config.data["unlabelled"]
    arguments: Any = dict(given) if isinstance(given, Mapping) else list(given)
    limit = arguments.pop("limit", None) if isinstance(given, Mapping) else None
    spec = {"type": "Unlabelled", "dataset": type_names(arguments), "limit": limit}
    return {**spec, "held_out": held_out} if held_out else spec


def pool(config: RunConfig) -> Unlabelled:
    """The unlabelled images, all of them: a view that cannot return targets.

    Args:
        config: has ``data['unlabelled']``.

    Raises:
        ValueError: the data set refuses its arguments.
    """
    spec = pool_spec(config)
    with explained("data.unlabelled"):
        images = Unlabelled(spec["dataset"], spec["limit"])
        if not len(images):
            raise ValueError("the unlabelled pool is empty; check its root and split.")
        images.image(0)
        return images


def validation(config: RunConfig) -> dict[str, Any] | None:
    """Arguments of the adaptation's runner for logging labelled metrics, on 'validation' if there is one, else 'test'.

    Args:
        config: has ``val_interval`` in rounds, the data sets and the evaluation.

    Returns:
        The arguments, or None without ``val_interval``.
    """
    every = config.runner.get("val_interval")
    if not every:
        return None
    split = "validation" if "validation" in config.data else "test"
    if split not in config.data:
        raise ValueError(f"val_interval={every} needs labels: name data.test or data.validation, or leave it out.")
    spec = {**type_names(config.data[split]), "tasks": tasks_by_name(config.tasks)}
    return {
        "val_interval": every,
        "val_cfg": {},
        "val_dataloader": {
            "dataset": spec,
            "batch_size": config.evaluation.get("batch_size", 16),
            "num_workers": config.evaluation.get("num_workers", 0),
            "sampler": {"type": "DefaultSampler", "shuffle": False, "round_up": False},
            "collate_fn": {"type": "default_collate"},
        },
        "val_evaluator": {"type": "DenseMetric", "protocol": config.evaluation.get("protocol", "default")},
    }


def tasks_by_name(tasks: Mapping[str, Any]) -> dict[str, Any]:
    """Task specs with every class replaced by its registered name.

    Args:
        tasks: {task name: task spec}.
    """
    return {
        name: {**spec, "type": getattr(spec.get("type"), "name", spec.get("type", name))}
        for name, spec in tasks.items()
    }


def loader(config: RunConfig, data: DenseDataset) -> DataLoader[Any]:
    """Loader of a labelled set: every image once, in order, shared among the processes of a distributed run.

    Args:
        config: has batch size and workers of the evaluation.
        data: the labelled set.
    """
    return DataLoader(
        data,
        batch_size=config.evaluation.get("batch_size", 16),
        collate_fn=default_collate,
        sampler=DefaultSampler(data, shuffle=False, round_up=False),
        num_workers=config.evaluation.get("num_workers", 0),
    )
