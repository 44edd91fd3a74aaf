"""Check the data sets of a config before anything is trained: all images, all labels."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from symerge_dense.datasets.base import DenseDataset
from symerge_dense.pipeline.config import RunConfig
from symerge_dense.pipeline.data import unread_dataset
from symerge_dense.pipeline.data_section import POOL, data_specs, is_pool
from symerge_dense.preparation.check.data_sets import check_data_sets
from symerge_dense.preparation.check.findings import Fault, Report
from symerge_dense.progress import say
from symerge_dense.registry import did_you_mean


def check(config: RunConfig, split: str = "all", sheet: str | Path | None = None) -> Report:
    """Read every image and label of a config's data sets as training would.

    'unlabelled' is read without labels, 'train' also with those that the base is trained on.

    Args:
        config: has the data sets.
        split: one of them, or 'all'.
        sheet: PNG file for a contact sheet; None: do not draw one.

    Returns:
        What was found. Faults are in it and are not raised; one is a data set that cannot be built.

    Raises:
        ValueError: the config has no such split.
    """
    if split != "all" and split not in config.data:
        raise ValueError(f"{config.name}: {did_you_mean(split, ['all', *config.data], 'split')}")
    sets, broken, limits = dict[str, DenseDataset](), list[Fault](), dict[str, int | None]()
    for name, spec in data_specs(config.data if split == "all" else {split: config.data[split]}).items():
        try:
            sets[name] = unread_dataset(config, name, tasks_of(config, name))
        except ValueError as error:
            broken.append(Fault(Path(f"data.{name}"), str(error).removeprefix(f"data.{name}: ")))
        limits[name] = spec.get("limit") if is_pool(name) else None
    report = check_data_sets(config.name, sets, limits)
    report.faults[:0] = broken + _of_several_sizes({name: data for name, data in sets.items() if is_pool(name)})
    if sheet is not None and sets:
        from symerge_dense.preparation.check.data_set_sheet import data_set_sheet  # matplotlib takes a second to import

        data_set_sheet(sheet, sets)
        say(f"contact sheet: {sheet}")
    return report


def _of_several_sizes(pools: dict[str, DenseDataset]) -> list[Fault]:
    """Pools that cannot be batched together; one of them alone is looked at by its own check."""
    sizes = dict[str, tuple[int, int]]()
    for name, data in pools.items():
        with suppress(ValueError):  # an image that cannot be read is a fault of its own
            sizes[name] = data.size or data.image_size(0)
    if len(set(sizes.values())) < 2:
        return []
    found = ", ".join(f"{name} {height} x {width}" for name, (height, width) in sizes.items())
    return [
        Fault(
            Path(f"data.{POOL}"),
            f"images of several sizes ({found}), but a batch needs one; give all size=(height, width)",
        )
    ]


def tasks_of(config: RunConfig, split: str) -> dict[str, Any]:
    """The tasks whose labels are read from a split.

    Args:
        config: has the tasks.
        split: of ``config.data``, or one of several pools.
    """
    if is_pool(split):
        return {}
    trained = (config.base.get("train") or {}).get("tasks", {}) if split == "train" else {}
    return {**trained, **config.tasks}
