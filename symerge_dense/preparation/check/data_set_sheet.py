"""A sheet of any data set: images beside pictures of their labels, to look at before training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from symerge_dense.datasets.base import DenseDataset, to_tensor
from symerge_dense.preparation.check.sheet import SheetRow, class_legend, draw_sheet
from symerge_dense.tasks.base import DenseTask

Array = NDArray[Any]
Limits = tuple[float, float] | None
LONGEST_LABEL = 14  # letters of a file's name beside its line, the last ones


class Sample(NamedTuple):
    """What is shown of one image; None for what cannot be read.

    Args:
        label: its file's name, or its number.
        image: (H,W,3) RGB in 0..255.
        targets: by task, as in a sample of the data set.
    """

    label: str
    image: Array | None
    targets: Mapping[str, Tensor | None]


def data_set_sheet(path: str | Path, sets: Mapping[str, DenseDataset], count: int = 12) -> None:
    """Draw evenly spaced images with their labels to a PNG: a block per split, a column per task.

    All pictures of a task have one colour range, which its title says. What cannot be read leaves an empty frame.

    Args:
        path: PNG file, written whole or not at all.
        sets: by split.
        count: number of images, shared out among the splits.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not sets:
        raise ValueError("there is no data set to draw; name a split that can be read.")
    tasks = {name: rule for data in sets.values() for name, rule in data.tasks.items() if isinstance(rule, DenseTask)}
    shown = {split: _samples(data, -(-count // len(sets))) for split, data in sets.items()}
    limits = {name: _joint_limits(task, _targets(shown, name)) for name, task in tasks.items()}
    titles = {name: _title(task, limits[name]) for name, task in tasks.items()}
    blocks = {split: [_row(sample, tasks, limits, titles) for sample in samples] for split, samples in shown.items()}
    legend = [
        entry
        for name, task in tasks.items()
        if task.class_map
        for entry in class_legend(task, (int(n) for target in _targets(shown, name) for n in target.unique()))
    ]
    draw_sheet(path, blocks, ["image", *titles.values()], legend)


def _samples(data: DenseDataset, count: int) -> list[Sample]:
    chosen = np.unique(np.linspace(0, len(data) - 1, min(count, len(data))).astype(int)).tolist()
    return [_sample(data, index) for index in chosen]


def _sample(data: DenseDataset, index: int) -> Sample:
    path, targets = Path(data.image_name(index)), dict[str, Tensor | None]()
    label = path.stem[-LONGEST_LABEL:] if path.is_file() else str(index)
    try:
        image: Array | None = data.resized_image(index)
    except Exception:  # whatever it is, the check names it
        image = None
    for name in data.tasks:
        try:
            targets[name] = to_tensor(data.resized_target(index, name))
        except Exception:
            targets[name] = None
    return Sample(label, image, targets)


def _targets(shown: Mapping[str, Sequence[Sample]], name: str) -> list[Tensor]:
    every = (sample.targets.get(name) for samples in shown.values() for sample in samples)
    return [target for target in every if target is not None]


def _joint_limits(task: DenseTask, targets: Sequence[Tensor]) -> Limits:
    found = [limits for target in targets if (limits := task.limits(target)) is not None]
    return (min(low for low, _ in found), max(high for _, high in found)) if found else None


def _title(task: DenseTask, limits: Limits) -> str:
    return task.name if limits is None else f"{task.name} {limits[0]:.3g}..{limits[1]:.3g} {task.unit}".rstrip()


def _row(
    sample: Sample, tasks: Mapping[str, DenseTask], limits: Mapping[str, Limits], titles: Mapping[str, str]
) -> SheetRow:
    picture = None if sample.image is None else np.asarray(sample.image).round().clip(0, 255).astype(np.uint8)
    pictures: dict[str, Array | None] = {"image": picture}
    for name, target in sample.targets.items():
        pictures[titles[name]] = None if target is None else tasks[name].colorize(target, limits[name])
    return SheetRow(sample.label, pictures)
