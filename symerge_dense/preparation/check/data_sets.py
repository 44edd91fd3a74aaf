"""Check any data set: every image and label is read as training reads it; faults are collected, not raised."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor

from symerge_dense.datasets.base import DenseDataset, to_tensor
from symerge_dense.preparation.check.contents import MOST_INVALID
from symerge_dense.preparation.check.findings import Fault, Findings, Report
from symerge_dense.progress import track
from symerge_dense.tasks.base import DenseTask

Array = NDArray[Any]
T = TypeVar("T")
MOST_APART = 8  # factor between the medians of two splits; a wrong unit makes it 10 or more
MOST_CLASSES = 60  # in the table; with more, only those that occur are listed
NUMBER = re.compile(r"-?\d[\d.e+-]*")


class TargetFacts:
    """What was seen of one task's labels.

    Args:
        task: says which pixels are valid.
    """

    def __init__(self, task: DenseTask) -> None:
        self.task = task
        self.labels = self.pixels = self.invalid = 0
        self.medians = list[float]()  # of the labels, where the task has a unit
        self.example = ""
        self.low, self.high = float("inf"), float("-inf")
        self.counts = np.zeros(task.channels if task.class_map else 0, np.int64)

    def take(self, target: Tensor) -> bool:
        """Add a label.

        Args:
            target: as in a sample, (H,W) or (C,H,W).

        Returns:
            Whether any pixel is valid.
        """
        valid = self.task.valid(target[None])[0]
        known = target[valid] if target.ndim == 2 else target[:, valid]
        self.labels, self.pixels = self.labels + 1, self.pixels + valid.numel()
        self.invalid += valid.numel() - int(valid.sum())
        if not known.numel():
            return False
        self.low, self.high = min(self.low, float(known.min())), max(self.high, float(known.max()))
        if self.task.unit and not self.task.class_map:
            self.medians.append(float(known.median()))
        if self.task.class_map:
            self.counts += np.bincount(known.flatten().numpy(), minlength=len(self.counts))
        return True

    @property
    def invalid_share(self) -> float:
        """Share of the pixels without label, 0..1."""
        return self.invalid / max(self.pixels, 1)


def no_label(task: str, labels: int, example: str) -> str:
    """The sentence about a split in which a task has no label at all.

    Args:
        task: its name.
        labels: how many were read.
        example: one of them, as a message calls it.
    """
    return (
        f"not one pixel of {task} is valid in {labels} label{'s' * (labels != 1)}, such as {example}: correct the unit "
        "(scale=, offset= of a FolderDataset), the number that means 'no label' (invalid=) or the path"
    )


class DataSetCheck:
    """Reads a data set once. The results are ``faults``, ``warnings``, ``sizes`` of the images, and ``targets``.

    Args:
        name: of the split.
        data: the data set.
        limit: read this many images, the first ones; None reads all.
    """

    def __init__(self, name: str, data: DenseDataset, limit: int | None = None) -> None:
        self.name, self.data = name, data
        self.count = len(data) if limit is None else min(limit, len(data))
        self.faults, self.warnings = Findings(), Findings()
        self.sizes: Counter[tuple[int, int]] = Counter()
        self.first_of: dict[tuple[int, int], str] = {}
        self.targets = {task: TargetFacts(rule) for task, rule in data.tasks.items() if isinstance(rule, DenseTask)}
        for index in track(range(self.count), f"reading {name}"):
            self._read(index)
        self._conclude()

    def _read(self, index: int) -> None:
        name = self.data.image_name(index)
        image = self._try(partial(self.data.resized_image, index), name)
        size = None if image is None else self._try(partial(self.data.image_size, index), name)
        if size is not None:
            self.sizes[size] += 1
            self.first_of.setdefault(size, name)
        for task, facts in self.targets.items():
            path = self.data.target_name(index, task)
            target = self._try(partial(self.data.resized_target, index, task), path)
            if target is None:
                continue
            if image is not None and target.shape[:2] != image.shape[:2]:
                self._add(self.faults, path, f"is {target.shape[:2]}, its image {image.shape[:2]}; give a size=")
            facts.example = facts.example or path
            if not facts.take(to_tensor(target)):
                self._add(self.warnings, path, f"has not one valid pixel of {task}")

    def _try(self, read: Callable[[], T], path: str) -> T | None:
        try:
            return read()
        except ValueError as error:
            text = (
                str(error)
                .removeprefix(f"{type(self.data).__name__}: ")
                .removeprefix(path)
                .lstrip(": ")
                .removeprefix("is ")
            )
        except Exception as error:  # a data set is a user's code: it may fail in any way
            text = f"reading it raises {type(error).__name__}: {error}"
        self._add(self.faults, path, text.rstrip("."))
        return None

    @staticmethod
    def _add(found: Findings, path: str, text: str) -> None:
        """Faults that differ in their numbers only are one, of several files."""
        found.add(Path(path), text, kind=NUMBER.sub("#", text.replace(path, "")))

    def _conclude(self) -> None:
        if len(self.sizes) > 1 and self.data.size is None:
            shown = "; ".join(f"{self.first_of[h, w]} is {h} x {w}" for h, w in list(self.sizes)[:3])
            text = f"images of {len(self.sizes)} sizes ({shown}), but a batch needs one; give it size=(height, width)"
            self.faults.add(Path(self.name), text)
        for task, facts in self.targets.items():
            if facts.labels and facts.invalid == facts.pixels:
                text = no_label(task, facts.labels, facts.example)
                self.faults.add(Path(f"data.{self.name}"), text)
            elif facts.invalid_share > MOST_INVALID:
                text = f"{facts.invalid_share:.0%} of the pixels carry no {task}"
                self.warnings.add(Path(self.name), text)
            if facts.task.class_map and facts.labels and (absent := int((facts.counts == 0).sum())):
                text = f"{absent} of the {len(facts.counts)} classes of {task} do not occur"
                self.warnings.add(Path(self.name), text)

    @property
    def fact(self) -> str:
        """One line about the images."""
        sizes = ", ".join(
            f"{n if len(self.sizes) > 1 else 'all'} of {h} x {w}" for (h, w), n in self.sizes.most_common(5)
        )
        resized = "" if self.data.size is None else f", resized to {self.data.size[0]} x {self.data.size[1]}"
        return f"{self.name}: {self.count} images, {sizes or 'none readable'} (height x width){resized}"


def check_data_sets(
    name: str, sets: Mapping[str, DenseDataset], limits: Mapping[str, int | None] | None = None
) -> Report:
    """Read all images and labels of data sets as training would.

    Args:
        name: of the whole, for the verdict.
        sets: by split.
        limits: {split: number of images that are used}.

    Returns:
        What was found. Faults are in it and are not raised.
    """
    report = Report(Path(name))
    checks = [DataSetCheck(split, data, (limits or {}).get(split)) for split, data in sets.items()]
    for check in checks:
        report.faults += check.faults.faults
        report.warnings += check.warnings.faults
        report.facts.append(check.fact)
    report.warnings += _shared(sets) + _units(checks)
    if any(check.targets for check in checks):
        report.tables.append(_ranges(checks))
    report.tables += _classes(checks)
    return report


def _shared(sets: Mapping[str, DenseDataset]) -> list[Fault]:
    """Images that are in 'train' and in 'test' too, by their paths."""
    if not {"train", "test"} <= set(sets):
        return []
    names = [{sets[split].image_name(index) for index in range(len(sets[split]))} for split in ("train", "test")]
    shared = sorted(name for name in names[0] & names[1] if Path(name).is_file())
    return (
        [Fault(Path(shared[0]), "is in train and in test: a model is measured on what it learned from", len(shared))]
        if shared
        else []
    )


def _units(checks: list[DataSetCheck]) -> list[Fault]:
    """Labels of 'train' and of another split whose medians are far apart."""
    by_name = {check.name: check for check in checks}
    train, found = by_name.pop("train", None), list[Fault]()
    if train is None:
        return []
    for check in by_name.values():
        for task in [name for name in train.targets if name in check.targets]:
            facts = [train.targets[task], check.targets[task]]
            if not all(fact.medians for fact in facts):
                continue
            here, there = (float(np.median(fact.medians)) for fact in facts)
            if min(here, there) > 0 and max(here, there) > MOST_APART * min(here, there):
                unit = facts[0].task.unit
                text = f"median {here:.3g} {unit} in train, {there:.3g} {unit} in {check.name}: "
                found.append(Fault(Path(task), f"{text}one of them is in another unit, or shows other scenes"))
    return found


def _ranges(checks: list[DataSetCheck]) -> Table:
    """A line per split and task: labels, lowest and highest valid value, share of pixels without label."""
    table = Table("split", "task", "labels", "lowest", "highest", "unit", "without label", title="Labels")
    for check in checks:
        for task, facts in check.targets.items():
            low, high = (f"{value:.4g}" if np.isfinite(value) else "–" for value in (facts.low, facts.high))
            unit = "class" if facts.task.class_map else facts.task.unit
            table.add_row(check.name, task, str(facts.labels), low, high, unit, f"{facts.invalid_share:.1%}")
    return table


def _classes(checks: list[DataSetCheck]) -> list[Table]:
    """Share of each class among the labelled pixels: a table per class map, a column per split."""
    tables = []
    for task in dict.fromkeys(
        name for check in checks for name, facts in check.targets.items() if facts.task.class_map
    ):
        having = [check for check in checks if task in check.targets]
        table = Table("label", "class", *(check.name for check in having), title=f"Classes of {task}")
        names = getattr(having[0].targets[task].task, "class_names", None)
        for index in range(max(len(check.targets[task].counts) for check in having)):
            counts = [check.targets[task].counts for check in having]
            if len(counts[0]) > MOST_CLASSES and not any(count[index] for count in counts):
                continue
            shares = [count[index] / max(count.sum(), 1) for count in counts]
            name = names[index] if names else ""
            table.add_row(str(index), name, *(f"{share:.1%}" if share else "–" for share in shares))
        tables.append(table)
    return tables
