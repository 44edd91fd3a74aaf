"""The data set contract: images, and dense targets for the tasks that are requested."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from symerge_dense.datasets import resize
from symerge_dense.datasets.transforms import Augment, TargetRule, renormalize
from symerge_dense.progress import silent, track
from symerge_dense.registry import TASKS, did_you_mean

Array = NDArray[Any]
MANY_IMAGES = 200  # from here on, looking at all of them shows a bar
FAULTS_SHOWN = 10


def to_tensor(array: Array) -> Tensor:
    """Convert an array from stored layout to sample layout.

    Args:
        array: integer (H,W), or float (H,W) or (H,W,C).

    Returns:
        int64 (H,W) of integers, float32 (C,H,W) of floats.
    """
    if array.ndim == 2 and array.dtype.kind in "iu":
        return torch.from_numpy(array.astype(np.int64))
    layers = array.reshape(*array.shape[:2], -1).transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(layers, np.float32))


def build_rules(tasks: Mapping[str, Any], serves: frozenset[str], owner: str) -> dict[str, TargetRule]:
    """Task objects from objects or spec dicts.

    Args:
        tasks: task objects, or dicts that build them, by task name.
        serves: targets that the data set has.
        owner: name of the data set, for error messages.

    Raises:
        ValueError: a key is not its task's name, or the data set does not serve a target.
    """
    rules: dict[str, TargetRule] = {
        name: TASKS.build({"type": name, **spec} if isinstance(spec, dict) else spec) for name, spec in tasks.items()
    }
    for name, rule in rules.items():
        if rule.name != name:
            raise ValueError(f"tasks[{name!r}] is a task named {rule.name!r}: use {rule.name!r} as its key.")
        if source_of(rule) not in serves:
            raise ValueError(f"{owner}: " + did_you_mean(source_of(rule), serves, "target"))
    return rules


def source_of(rule: TargetRule) -> str:
    """The target that a task's labels are made from: its own name, unless it names another by ``source``.

    Args:
        rule: a task.
    """
    return getattr(rule, "source", None) or rule.name


def _unfit(rule: TargetRule, target: Array) -> str | None:
    """What is wrong with a stored target, and what it should be; None where it fits or the rule does not say."""
    if not hasattr(rule, "class_map") or not hasattr(rule, "channels"):
        return None
    if rule.class_map:
        fits, wanted = target.ndim == 2 and target.dtype.kind in "iu", "(H, W) class numbers of an integer type"
    else:
        ends = [(rule.channels,), ()] if rule.channels == 1 else [(rule.channels,)]
        fits = target.dtype.kind == "f" and target.ndim >= 2 and target.shape[2:] in ends
        wanted = f"float32 {'(H, W)' if rule.channels == 1 else f'(H, W, {rule.channels})'}"
    return None if fits else f"{target.dtype} {target.shape}; return {wanted}."


class DenseDataset(Dataset[dict[str, Any]], ABC):
    """Images with one dense target per requested task.

    ``dataset[key]`` with ``draw, index = divmod(key, len(dataset))`` is a dict: ``image`` float32 (3,H,W) RGB 0..255,
    ``index`` int, and per task its target tensor: int64 (H,W) for class maps, else float32 (C,H,W). Augmentation draws
    from ``np.random.default_rng((seed, draw, index))`` alone: any order, worker count or resume gives the same sample.

    Args:
        tasks: task objects, or dicts that build them, by task name; may be empty.
        augment: joint augmentation (an ``Augment`` or its arguments), or None.
        size: (H, W) to resize to, None for as stored. Depth keeps its metres.
        seed: of the augmentation.

    Raises:
        ValueError: the data set does not serve a task's target, a key is not its task's name, or ``size`` is not a
            pair of positive integers.
    """

    serves: ClassVar[frozenset[str]] = frozenset()
    DEFAULT_SIZE: ClassVar[tuple[int, int]]  # (H, W) of the images without ``size``
    classes: tuple[str, ...] | None = None

    def __init__(
        self,
        tasks: Mapping[str, TargetRule | dict[str, Any]] | None = None,
        augment: Augment | dict[str, Any] | None = None,
        size: tuple[int, int] | None = None,
        seed: int = 0,
    ) -> None:
        self.tasks = build_rules(tasks or {}, self.serves, type(self).__name__)
        if isinstance(augment, dict):
            augment = Augment(**{key: value for key, value in augment.items() if key != "type"})
        if size is not None and (len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size)):
            raise ValueError(f"size={size}: give (height, width) in pixels, both positive integers, or None.")
        self.augment, self.seed = augment, seed
        self.size: tuple[int, int] | None = None if size is None else (size[0], size[1])

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def image(self, index: int) -> Array:
        """Image as stored; reads the image and nothing else.

        Args:
            index: image number, from 0.

        Returns:
            (H,W,3) RGB, uint8 or float32 in 0..255.
        """

    @abstractmethod
    def target(self, index: int, name: str) -> Array:
        """Target as stored; invalid pixels hold exactly the ``invalid_value`` of the task.

        Args:
            index: image number, from 0.
            name: one of ``serves``.

        Returns:
            (H,W) or (H,W,C); class maps are integers, the rest float32.
        """

    def image_name(self, index: int) -> str:
        """What an error message calls an image: its path, where it has one.

        Args:
            index: image number, from 0.
        """
        return f"image {index}"

    def target_name(self, index: int, name: str) -> str:
        """What an error message calls a target: its path, where it has one.

        Args:
            index: image number, from 0.
            name: name of a requested task.
        """
        return f"target {name!r} of image {index}"

    def image_size(self, index: int) -> tuple[int, int]:
        """(H, W) of an image as stored; raises what ``image`` would. Override it where that takes no decoding.

        Args:
            index: image number, from 0.
        """
        height, width = self.image(index).shape[:2]
        return height, width

    @property
    def remark(self) -> str:
        """What a run tells once about the images, such as files that are passed over; mostly empty."""
        return ""

    def check_images(self, limit: int | None = None) -> None:
        """Find what would stop work later: images that cannot be read, or differ in size without ``size``.

        Args:
            limit: look at this many images, the first ones; None looks at all.

        Raises:
            ValueError: one sentence that names the images and what to do.
        """
        count, sizes, faults = len(self) if limit is None else min(limit, len(self)), dict[tuple[int, int], int](), []
        with silent(count < MANY_IMAGES):
            for index in track(range(count), f"check {type(self).__name__}'s images"):
                try:
                    sizes.setdefault(self.image_size(index), index)
                except ValueError as error:
                    faults.append(str(error))
        if faults:
            more = f"\n... and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
            raise ValueError(
                f"{len(faults)} of {count} images cannot be read:\n" + "\n".join(faults[:FAULTS_SHOWN]) + more
            )
        if len(sizes) > 1 and self.size is None:
            (one, first), (other, second) = list(sizes.items())[:2]
            raise ValueError(
                f"{type(self).__name__}: {self.image_name(first)} is {one[0]} x {one[1]} pixels (height x width) and "
                f"{self.image_name(second)} is {other[0]} x {other[1]}, but a batch needs images of one size: give the "
                f"data set a size=(height, width), for instance size={one} (symerge train --size {one[0]} {one[1]})."
            )

    @property
    def metainfo(self) -> dict[str, Any]:
        """Class names and the tasks that are served, which MMEngine hands to metrics."""
        return {"classes": self.classes, "tasks": self.tasks}

    def resized_image(self, index: int) -> Array:
        """Image at ``size``.

        Args:
            index: image number, from 0.
        """
        image = self.image(index)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype.kind not in "fu":
            raise ValueError(
                f"{type(self).__name__}: image {index} is {image.dtype} {image.shape}; return (H, W, 3) RGB, uint8 or "
                "float32 in 0..255."
            )
        return image if self.size in (None, image.shape[:2]) else resize.resize(image, self.size)

    def target_size(self, index: int) -> tuple[int, int] | None:
        """(H, W) that targets are resized to; None leaves them as stored.

        Args:
            index: image number, from 0.
        """
        return self.size

    def resized_target(self, index: int, name: str) -> Array:
        """Target at ``size``, resampled as the task allows.

        Args:
            index: image number, from 0.
            name: name of a requested task.
        """
        rule, size = self.tasks[name], self.target_size(index)
        target = self.target(index, source_of(rule))
        if source_of(rule) != name:
            target = rule.derive(target)
        implausible = getattr(rule, "implausible", None)
        if (wrong := _unfit(rule, target) or (implausible and implausible(target))) is not None:
            raise ValueError(f"{type(self).__name__}: {self.target_name(index, name)} is {wrong}")
        if size is None or target.shape[:2] == size:
            return target
        if rule.interpolation == "nearest":
            return resize.resample_nearest(target, size)
        return renormalize(rule, resize.masked(target, rule.invalid_value, lambda values: resize.resize(values, size)))

    def __getitem__(self, key: int) -> dict[str, Any]:
        if key < 0:
            raise IndexError(f"key {key} is negative: keys are draw * {len(self)} + index.")
        draw, index = divmod(int(key), len(self))
        arrays = {"image": self.resized_image(index)}
        arrays |= {name: self.resized_target(index, name) for name in self.tasks}
        for name in self.tasks:
            if arrays[name].shape[:2] != arrays["image"].shape[:2]:
                raise ValueError(
                    f"{type(self).__name__}: {self.target_name(index, name)} is {arrays[name].shape[:2]}, the image "
                    f"{arrays['image'].shape[:2]}; give the data set a size=(height, width), or mend the files."
                )
        if self.augment is not None:
            arrays = self.augment(arrays, self.tasks, np.random.default_rng((self.seed, draw, index)))
        tensors = {name: to_tensor(array) for name, array in arrays.items()}
        return {**tensors, "index": index}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Every image once, first draw (keys have no end, so the default iteration would not stop)."""
        return (self[index] for index in range(len(self)))


class ImagesOnly(DenseDataset):
    """Images without any target."""

    def target(self, index: int, name: str) -> Array:
        """There is no target; always raises.

        Args:
            index: image number, from 0.
            name: any.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"{type(self).__name__} holds images only; it has no target {name!r}.")
