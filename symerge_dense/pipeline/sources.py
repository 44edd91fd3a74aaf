"""Data sets and loaders of a config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.dataset import DefaultSampler, default_collate
from torch.utils.data import DataLoader

from symerge_dense.datasets.base import DenseDataset
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.pipeline.checks import explained
from symerge_dense.pipeline.config import RunConfig


def dataset(config: RunConfig, split: str, tasks: Mapping[str, Any]) -> DenseDataset:
    """The data set that ``data[split]`` describes, serving ``tasks``."""
    arguments = {name: value for name, value in config.data[split].items() if name != "limit"}  # which is the pool's
    with explained(f"data.{split}"):
        built: DenseDataset = arguments.pop("type")(tasks=dict(tasks), **arguments)
    return built


def pool(config: RunConfig) -> Unlabelled:
    """The unlabelled images: a view that cannot return targets."""
    arguments = dict(config.data["unlabelled"])
    limit = arguments.pop("limit", None)
    with explained("data.unlabelled"):
        return Unlabelled(arguments.pop("type")(tasks={}, **arguments), limit=limit)


def loader(config: RunConfig, data: DenseDataset) -> DataLoader[Any]:
    """Every image of a labelled set once, in order, shared among the processes of a distributed run."""
    return DataLoader(data, batch_size=config.evaluation.get("batch_size", 16), collate_fn=default_collate,
                      sampler=DefaultSampler(data, shuffle=False, round_up=False),
                      num_workers=config.evaluation.get("num_workers", 0))
