"""Data sets and loaders of a config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.dataset import DefaultSampler, default_collate
from torch.utils.data import DataLoader

from symerge_dense.datasets.base import DenseDataset
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.pipeline.config import RunConfig, type_names
from symerge_dense.pipeline.config_checks import explained


def dataset(config: RunConfig, split: str, tasks: Mapping[str, Any]) -> DenseDataset:
    """The data set that ``data[split]`` describes, serving ``tasks``."""
    arguments = {name: value for name, value in config.data[split].items() if name != "limit"}  # which is the pool's
    with explained(f"data.{split}"):
        built: DenseDataset = arguments.pop("type")(tasks=dict(tasks), **arguments)
    return built


def pool_spec(config: RunConfig) -> dict[str, Any]:
    """The unlabelled images as the arguments of ``Unlabelled``, with plain values: ``dict(dataset=..., limit=...)``."""
    arguments = dict(config.data["unlabelled"])
    limit = arguments.pop("limit", None)
    return {"type": "Unlabelled", "dataset": type_names(arguments), "limit": limit}


def pool(config: RunConfig) -> Unlabelled:
    """The unlabelled images: a view that cannot return targets."""
    spec = pool_spec(config)
    with explained("data.unlabelled"):
        return Unlabelled(spec["dataset"], spec["limit"])


def validation(config: RunConfig) -> dict[str, Any] | None:
    """What the adaptation's runner needs to watch labelled metrics every ``val_interval`` rounds; None without it."""
    every = config.runner.get("val_interval")
    if not every:
        return None
    split = "validation" if "validation" in config.data else "test"
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
    """Task specs with their registered names in place of classes."""
    return {
        name: {**spec, "type": getattr(spec.get("type"), "name", spec.get("type", name))}
        for name, spec in tasks.items()
    }


def loader(config: RunConfig, data: DenseDataset) -> DataLoader[Any]:
    """Every image of a labelled set once, in order, shared among the processes of a distributed run."""
    return DataLoader(
        data,
        batch_size=config.evaluation.get("batch_size", 16),
        collate_fn=default_collate,
        sampler=DefaultSampler(data, shuffle=False, round_up=False),
        num_workers=config.evaluation.get("num_workers", 0),
    )
