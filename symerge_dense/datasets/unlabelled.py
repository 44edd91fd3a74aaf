"""Images without labels, by construction: all that adaptation is allowed to see."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from symerge_dense.datasets.base import DenseDataset, to_tensor
from symerge_dense.datasets.pools import Pools, check_labels_of
from symerge_dense.registry import DATASETS

FINGERPRINT_IMAGES = 16


@DATASETS.register_module()
class Unlabelled(Dataset[dict[str, Any]]):
    """View of a data set that reads images and has no way to read a target.

    ``view[key]`` with ``draw, index = divmod(key, len(view))`` is ``{'image': float32 (3,H,W) 0..255, 'index': int}``,
    never augmented, until a run attaches the predictions of its experts (``attach``).

    Args:
        dataset: a data set, or the dict that builds it; or a list of them, whose images come one set after the other,
            each with ``limit`` and ``labels_of`` of its own: see ``Pools``.
        limit: at most this many images, the first ones; None takes all.
        held_out: this many of them, evenly spaced, are left out of the view, to measure something on them later.

    Raises:
        ValueError: ``limit`` is below 1, ``held_out`` leaves no image, or one of several data sets does not fit.

    >>> class Grey(DenseDataset):
    ...     def __len__(self):
    ...         return 3
    ...     def image(self, index):
    ...         return np.full((2, 4, 3), 100 + index, np.uint8)
    ...     def target(self, index, name):
    ...         raise AssertionError("no label is ever read")
    >>> view = Unlabelled(Grey(), limit=2)
    >>> len(view)
    2
    >>> sample = view[3]  # image 1, second draw
    >>> tuple(sample["image"].shape), sample["index"]
    ((3, 2, 4), 1)
    """

    def __init__(
        self,
        dataset: DenseDataset | Mapping[str, Any] | Sequence[DenseDataset | Mapping[str, Any]],
        limit: int | None = None,
        held_out: int = 0,
    ) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"limit={limit}: must be at least 1, or None for all images.")
        self._source: DenseDataset = _source(dataset)
        count = len(self._source) if limit is None else min(limit, len(self._source))
        if held_out < 0 or (held_out and held_out >= count):
            raise ValueError(f"held_out={held_out} of {count} images: at least one must be left to learn from.")
        self._shown = np.setdiff1d(np.arange(count), _middles(count, held_out))
        self.length = len(self._shown)
        self._join: Callable[[dict[str, Any], int], dict[str, Any]] | None = None

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: int) -> dict[str, Any]:
        if key < 0:
            raise IndexError(f"key {key} is negative: keys are draw * {len(self)} + index.")
        draw, index = divmod(int(key), self.length)
        sample = {"image": self.image(index), "index": index}
        return sample if self._join is None else self._join(sample, draw)

    def image(self, index: int) -> Tensor:
        """Image float32 (3,H,W) in 0..255, unchanged by what is attached.

        Args:
            index: image number, from 0.
        """
        return to_tensor(self._source.resized_image(int(self._shown[index])))

    def split(self, held_out: int) -> tuple[Unlabelled, Unlabelled]:
        """Two views of the same data set: what is left, as ``held_out=`` leaves it, and what is held out.

        Args:
            held_out: number of evenly spaced images.
        """
        rest, other = self.fresh(), self.fresh()
        other._shown = _middles(len(self), held_out)
        rest._shown = np.setdiff1d(np.arange(len(self)), other._shown)
        for view in (rest, other):
            view._shown, view.length = self._shown[view._shown], len(view._shown)
            view.__dict__.pop("fingerprint", None)
        return rest, other

    def check_images(self) -> None:
        """``DenseDataset.check_images`` up to the last image in view, held-out ones included.

        Raises:
            ValueError: images cannot be read, or differ in size.
        """
        self._source.check_images(int(self._shown.max()) + 1)

    @property
    def remark(self) -> str:
        """What the data set remarks on its images, such as files that it passes over; mostly empty."""
        return self._source.remark

    def labelled_by(self, task: str) -> NDArray[np.bool_]:
        """Whether a task's expert labels each image, (images,): all True, but for pools that say ``labels_of``.

        Args:
            task: its name.
        """
        if not isinstance(self._source, Pools):
            return np.ones(len(self), bool)
        return self._source.labelled_by(task)[self._shown]

    def check_tasks(self, tasks: Collection[str]) -> None:
        """Check that the pools' ``labels_of`` fit the tasks, and leave each of them an image in view.

        Args:
            tasks: all that there are.

        Raises:
            ValueError: an unknown task, or one without an image.
        """
        if isinstance(self._source, Pools):
            check_labels_of([pool.labels_of for pool in self._source.pools], tasks)
        for task in tasks:
            if not self.labelled_by(task).any():
                raise ValueError(f"no image in view is labelled by the expert of {task}; give its pools more images.")

    def attach(self, join: Callable[[dict[str, Any], int], dict[str, Any]]) -> None:
        """Let a function add predictions of experts to every sample, and augment both alike.

        Args:
            join: takes a sample and its draw, returns the sample that the view gives.
        """
        self._join = join

    def fresh(self) -> Unlabelled:
        """The same view with nothing attached; it shares the data set."""
        other = copy.copy(self)
        other._join = None
        return other

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the length and of evenly spaced images: enough to notice another data set, size or order.

        Of several data sets it has the length and the images of each.
        """
        digest, groups = hashlib.sha256(str(len(self)).encode()), [np.arange(len(self))]
        if isinstance(self._source, Pools) and len(self._source.pools) > 1:
            numbers = self._source.numbers[self._shown]
            groups = [np.flatnonzero(numbers == number) for number in range(len(self._source.pools))]
            digest.update(str([len(group) for group in groups]).encode())
        for group in groups:
            places = np.linspace(0, len(group) - 1, FINGERPRINT_IMAGES if len(group) else 0)
            for place in np.unique(places.astype(int)):
                digest.update(self.image(int(group[place])).contiguous().numpy().tobytes())
        return digest.hexdigest()


def _source(dataset: DenseDataset | Mapping[str, Any] | Sequence[DenseDataset | Mapping[str, Any]]) -> DenseDataset:
    if isinstance(dataset, Mapping):
        built: DenseDataset = DATASETS.build({"tasks": {}, **dataset})
        return built
    return dataset if isinstance(dataset, DenseDataset) else Pools(dataset)


def _middles(count: int, parts: int) -> NDArray[np.int64]:
    """The middle of each of ``parts`` equal parts of ``count`` images."""
    return ((np.arange(parts) + 0.5) * count / max(parts, 1)).astype(np.int64)
