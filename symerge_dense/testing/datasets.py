"""The contracts of a data set. Each takes an ``OpenedDataset``; the first and the last images are looked at."""

from __future__ import annotations

import copy
import inspect
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from symerge_dense.datasets.base import DenseDataset, source_of, to_tensor
from symerge_dense.datasets.image_files import is_hidden
from symerge_dense.registry import TASKS
from symerge_dense.tasks.base import DenseTask
from symerge_dense.testing.contract import Skipped, expect

LOOKED_AT = 4  # images
TEXTS = (".txt", ".csv", ".json", ".yaml", ".yml", ".toml", ".md")  # lists that a data set needs to know its files
MOST_FILES, CUT = 20_000, 16  # that are copied for a look at broken files; bytes that are left of each


class OpenedDataset:
    """A data set, with a task for each target that it serves, where one of that name is registered.

    Args:
        kind: the class.
        options: arguments of its constructor.
    """

    def __init__(self, kind: type[DenseDataset], options: Mapping[str, Any]) -> None:
        self.kind, self.options = kind, dict(options)
        given = self.options.pop("tasks", None) or {}
        plain = kind(**self.options)  # what it serves may depend on its arguments
        self.serves = plain.serves
        found: dict[str, dict[str, Any]] = {name: {"type": name} for name in sorted(self.serves) if name in TASKS}
        if plain.classes and "segmentation" in found:
            found["segmentation"] |= {"classes": len(plain.classes)}
        self.specs: dict[str, Any] = {**found, **given}
        self.data = self.build()

    def build(self, **changes: Any) -> DenseDataset:
        """The data set with its tasks.

        Args:
            **changes: of the arguments.
        """
        return self.kind(**{"tasks": self.specs, **self.options, **changes})

    @property
    def tasks(self) -> dict[str, DenseTask]:
        """The tasks of the targets that are tested."""
        return {name: task for name, task in self.data.tasks.items() if isinstance(task, DenseTask)}

    @property
    def looked_at(self) -> list[int]:
        """Numbers of the images that are looked at."""
        count = len(self.data)
        return sorted({*range(min(count, LOOKED_AT // 2)), *range(max(0, count - LOOKED_AT // 2), count)})


def check_length(opened: OpenedDataset) -> None:
    """It has a length of at least 1, and names the targets that it serves."""
    count = len(opened.data)
    expect(count > 0, "it has no image; say in its constructor, by a ValueError, which folder or pattern finds none.")
    served = opened.serves
    expect(
        isinstance(served, frozenset) and all(isinstance(name, str) for name in served),
        f"serves is {served!r}; give frozenset({{'name of a target', ...}}).",
    )


def check_images(opened: OpenedDataset) -> None:
    """An image is (H,W,3), uint8 or float32, RGB in 0..255."""
    for index in opened.looked_at:
        image = opened.data.image(index)
        found = f"image {index} is {image.dtype} {image.shape}"
        fits = image.ndim == 3 and image.shape[2] == 3 and image.dtype in (np.uint8, np.float32)
        expect(fits, f"{found}; return uint8 or float32 (H, W, 3), as `image_files.read_image(path)` does.")
        low, high = float(image.min()), float(image.max())
        expect(low >= 0 and high <= 255, f"{found} with values {low:g}..{high:g}; values must lie in 0..255.")
        unit = image.dtype == np.float32 and 0 < high <= 1
        expect(not unit, f"{found} with values {low:g}..{high:g}; multiply by 255, the network's input is 0..255.")


def check_targets(opened: OpenedDataset) -> None:
    """A target has the layout and type of its task, the size of its image, and labels that the task can use."""
    if not opened.tasks:
        raise Skipped(
            f"no task is registered under a name that it serves ({', '.join(sorted(opened.serves)) or 'none'})"
        )
    for name, task in opened.tasks.items():
        labelled = 0.0
        for index in opened.looked_at:
            sample = opened.data[index]  # its own checks name what does not fit
            target = sample[name]
            valid = task.valid(target[None])[0]
            labelled += float(valid.float().mean())
            output = torch.full((1, task.channels, *target.shape[-2:]), 0.1)
            for what, numbers in {
                "the loss": task.loss(output, target[None]),
                "a statistic": task.statistics(output, target[None]),
            }.items():
                expect(numbers.isfinite().all(), f"{what} of {name!r} on image {index} is not finite.")
            if source_of(task) == name:
                _check_marks(opened, index, name, task)
        expect(
            labelled > 0, f"no pixel of {name!r} has a label in images {opened.looked_at}; check its unit and marks."
        )


def _check_marks(opened: OpenedDataset, index: int, name: str, task: DenseTask) -> None:
    """Pixels without label hold exactly the task's marker, so that resizing leaves them out."""
    target = to_tensor(opened.data.target(index, name))
    if task.class_map:
        return  # statistics refuse unknown ids
    invalid = ~task.valid(target[None])[0]
    marks = target[..., invalid]
    wrong = marks[marks.isfinite() & (marks != task.invalid_value)]
    remedy = f"write {task.invalid_value:g}, invalid_value of its task, into every channel of such a pixel."
    expect(not wrong.numel(), f"{name!r} of image {index} has values {wrong[:3].tolist()} that are no label; {remedy}")


def check_reading_again(opened: OpenedDataset) -> None:
    """Two reads, in any order and by another instance, give the same sample, with its index."""
    other = opened.build()
    first = {index: opened.data[index] for index in opened.looked_at}
    for index in reversed(opened.looked_at):
        for again in (opened.data[index], other[index]):
            expect(again["index"] == index, f"sample {index} has the index {again['index']}.")
            for name, value in first[index].items():
                same = name == "index" or torch.equal(again[name].nan_to_num(), value.nan_to_num())
                expect(same, f"{name!r} of image {index} is another one when it is read again; draw nothing at random.")


def check_workers(opened: OpenedDataset) -> None:
    """It travels to loader workers: a copy of it reads the same."""
    try:
        other = copy.deepcopy(opened.data)  # by the same rules as a process that is started
    except TypeError as error:
        raise AssertionError(f"{error}; open files where they are read, not in the constructor.") from error
    index = opened.looked_at[-1]
    same = torch.equal(other[index]["image"], opened.data[index]["image"])
    expect(same, f"image {index} of a copy is another one.")


def check_errors_name_the_file(opened: OpenedDataset) -> None:
    """A broken file is an error that names it."""
    parameter = inspect.signature(opened.kind).parameters.get("root")
    given = opened.options.get("root", parameter.default if parameter else None)
    root = Path(given) if isinstance(given, (str, Path)) else None
    if root is None or not root.is_dir():
        raise Skipped("it has no argument `root` that is a folder")
    files = [path for path in root.rglob("*") if path.is_file() and not is_hidden(path.relative_to(root))]
    if len(files) > MOST_FILES:
        raise Skipped(f"{root} has more than {MOST_FILES} files")
    with tempfile.TemporaryDirectory() as folder:
        for path in files:
            cut = Path(folder, path.relative_to(root))
            cut.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix.lower() in TEXTS:
                shutil.copyfile(path, cut)
            else:
                with path.open("rb") as file:
                    cut.write_bytes(file.read(CUT))
        names = {path.name for path in files}
        told = _error_of_first_sample(opened, folder)
    remedy = "read files so that a broken one is a ValueError with its path: `image_files.read_image(path)` does."
    expect(told is not None, f"files of which {CUT} bytes are left are read without an error; {remedy}")
    expect(any(name in str(told) for name in names), f"the error of a broken file names none: {told!r}; {remedy}")


def _error_of_first_sample(opened: OpenedDataset, root: str) -> Exception | None:
    try:
        opened.build(root=root)[0]
    except Exception as error:  # foreign code can fail in any way
        return error
    return None


DATASET_CHECKS = (
    check_length,
    check_images,
    check_targets,
    check_reading_again,
    check_workers,
    check_errors_name_the_file,
)
"""The contracts of a data set."""
