"""Several data sets of images side by side, as one: more unlabelled images from wherever there are some."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from symerge_dense.datasets.base import Array, DenseDataset, ImagesOnly
from symerge_dense.registry import DATASETS, did_you_mean

OWN = ("limit", "labels_of")
"""Keys of a pool's spec that are no arguments of its data set."""


class Pool(NamedTuple):
    """One of the data sets.

    Args:
        data: the data set.
        images: how many of its images are taken, the first ones.
        labels_of: tasks whose experts label its images; None means all.
    """

    data: DenseDataset
    images: int
    labels_of: tuple[str, ...] | None


@DATASETS.register_module()
class Pools(ImagesOnly):
    """The images of several data sets, one set after the other; serves no task.

    Args:
        datasets: data sets, or dicts that build them. A dict may also have ``limit``, the number of its images that
            are taken, the first ones, and ``labels_of``, a list of tasks: only their experts label its images, and the
            other tasks learn nothing from them.
        tasks: must be empty.

    Raises:
        ValueError: there is no data set; one cannot be built, is empty, or its first image cannot be read; or their
            images differ in size. The message names the data set by its number, from 0.
    """

    def __init__(
        self, datasets: Sequence[DenseDataset | Mapping[str, Any]], tasks: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(tasks)
        if isinstance(datasets, str | Mapping) or not datasets:
            raise ValueError(f"datasets={datasets!r}: give a list of one data set or more, for instance of dicts.")
        self.pools: list[Pool] = []
        sizes: list[tuple[int, int]] = []
        for number, spec in enumerate(datasets):
            with _named(number, spec):
                self.pools.append(pool := _build(spec))
                sizes.append(pool.data.size or pool.data.image_size(0))
        self.numbers: NDArray[np.int64] = np.repeat(np.arange(len(self.pools)), [pool.images for pool in self.pools])
        """Number of every image's data set, (images,)."""
        self._starts = np.concatenate([[0], np.cumsum([pool.images for pool in self.pools])])
        if len(set(sizes)) > 1:
            titles = [_title(number, spec) for number, spec in enumerate(datasets)]
            found = ", ".join(f"{title}: {h} x {w}" for title, (h, w) in zip(titles, sizes, strict=True))
            raise ValueError(
                f"the images of the pools differ in size (height x width), but a batch needs images of one size. "
                f"{found}. Give them all the same size=(height, width), for instance size={sizes[0]}."
            )

    def __len__(self) -> int:
        return len(self.numbers)

    def image(self, index: int) -> Array:
        """Image (H,W,3) at the size of its data set.

        Args:
            index: image number, from 0.
        """
        pool, own = self._place(index)
        return pool.data.resized_image(own)

    def image_name(self, index: int) -> str:
        """What its data set calls an image.

        Args:
            index: image number, from 0.
        """
        pool, own = self._place(index)
        return pool.data.image_name(own)

    def image_size(self, index: int) -> tuple[int, int]:
        """(H, W) of an image at the size of its data set.

        Args:
            index: image number, from 0.
        """
        pool, own = self._place(index)
        return pool.data.size or pool.data.image_size(own)

    def check_images(self, limit: int | None = None) -> None:
        """``DenseDataset.check_images`` of every data set's images that are taken.

        Args:
            limit: look at this many images, the first ones; None looks at all.

        Raises:
            ValueError: images cannot be read, or differ in size; the message names the data set.
        """
        for number, pool in enumerate(self.pools):
            left = pool.images if limit is None else min(pool.images, limit - int(self._starts[number]))
            if left > 0:
                with _named(number, pool.data):
                    pool.data.check_images(left)

    @property
    def remark(self) -> str:
        """What the data sets remark on their images, one line each; empty where none does."""
        return "\n".join(filter(None, (str(getattr(pool.data, "remark", "")) for pool in self.pools)))

    def labelled_by(self, task: str) -> NDArray[np.bool_]:
        """Whether a task's expert labels each image, (images,).

        Args:
            task: its name.
        """
        asked = [pool.labels_of is None or task in pool.labels_of for pool in self.pools]
        return np.asarray(asked, bool)[self.numbers]

    def _place(self, index: int) -> tuple[Pool, int]:
        number = int(self.numbers[index])
        return self.pools[number], int(index - self._starts[number])


def check_labels_of(given: Sequence[Collection[str] | None], tasks: Collection[str]) -> None:
    """Check which tasks' experts label which pool.

    Args:
        given: ``labels_of`` of every pool; None means all tasks.
        tasks: all that there are.

    Raises:
        ValueError: an unknown task, or a task that no pool has labels of.
    """
    for number, names in enumerate(given):
        for name in _listed(names, f"pool [{number}]: ") or ():
            if name not in tasks:
                raise ValueError(f"pool [{number}]: labels_of: {did_you_mean(name, tasks, 'task')}")
    missing = [task for task in tasks if all(names is not None and task not in names for names in given)]
    if missing:
        raise ValueError(
            f"no pool has labels of {', '.join(missing)}: name the task in labels_of of a pool, or leave labels_of out."
        )


def _listed(names: Any, where: str = "") -> tuple[str, ...] | None:
    if names is None:
        return None
    if not isinstance(names, list | tuple | set) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"{where}labels_of={names!r}; give a list of tasks, such as labels_of=['depth'], or leave it out for all."
        )
    return tuple(names)


def _build(spec: DenseDataset | Mapping[str, Any]) -> Pool:
    if isinstance(spec, Mapping) and "type" not in spec:
        raise ValueError(f"{dict(spec)} has no 'type'; give that of its data set, for example type='ImageFolder'.")
    arguments = dict(spec) if isinstance(spec, Mapping) else {}
    limit, labels_of = (arguments.pop(key, None) for key in OWN)
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ValueError(f"limit={limit!r}: must be a whole number of at least 1, or None for all images.")
    data = DATASETS.build({"tasks": {}, **arguments}) if isinstance(spec, Mapping) else spec
    if not isinstance(data, DenseDataset):
        raise ValueError(f"a pool is a data set or a dict that builds one, not {type(data).__name__}.")
    if not len(data):
        raise ValueError("there is no image; check its root and split, or take it off the list.")
    count = len(data) if limit is None else min(limit, len(data))
    return Pool(data, count, _listed(labels_of))


def _title(number: int, spec: Any) -> str:
    kind = spec.get("type", "no type") if isinstance(spec, Mapping) else type(spec)
    return f"pool [{number}] ({kind.__name__ if isinstance(kind, type) else kind})"


@contextmanager
def _named(number: int, spec: Any) -> Iterator[None]:
    """Let errors inside say which pool they are about."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(f"{_title(number, spec)}: {error}") from error
