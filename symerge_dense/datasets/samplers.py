"""Orders in which images are seen. A key, ``draw * len(dataset) + index``, says which image and which augmentation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sized

import numpy as np
from mmengine.dist import get_dist_info
from torch.utils.data import Sampler

from symerge_dense.registry import DATA_SAMPLERS


def _order(length: int, shuffle: bool, seed: int, draw: int) -> np.ndarray:
    return np.random.default_rng((seed, draw)).permutation(length) if shuffle else np.arange(length)


def _length(dataset: Sized) -> int:
    if len(dataset) == 0:
        raise ValueError("the data set is empty: a sampler needs at least one image.")
    return len(dataset)


@DATA_SAMPLERS.register_module()
class EpochSampler(Sampler[int]):
    """Every image once per epoch; the draw is the epoch, so a run resumed with ``set_epoch`` sees the same samples.

    In a distributed run rank r takes every world-th key from r on; the first keys are repeated at the end so that all
    ranks take equally many.

    Args:
        dataset: anything with a length.
        shuffle: a new random order in each epoch, or else the order of the data set.
        seed: of the order; None is 0.

    Raises:
        ValueError: the data set is empty.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int | None = 0) -> None:
        self.rank, self.world = get_dist_info()
        self.length, self.shuffle, self.seed, self.epoch = _length(dataset), shuffle, seed or 0, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose keys the next iteration yields.

        Args:
            epoch: number of the epoch, from 0.
        """
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(self.length / self.world)

    def __iter__(self) -> Iterator[int]:
        order = _order(self.length, self.shuffle, self.seed, self.epoch)
        slots = np.arange(self.rank, len(self) * self.world, self.world) % self.length
        return iter((self.epoch * self.length + order[slots]).tolist())


@DATA_SAMPLERS.register_module()
class PoolSampler(Sampler[int]):
    """One endless stream of shuffled passes over the data, shared among the ranks key by key.

    The stream does not depend on the number of ranks. ``skip`` resumes a run without loading what it has seen.

    Args:
        dataset: anything with a length.
        seed: of the order; None is 0.
        shuffle: a new random order in each pass, or else the order of the data set.

    Raises:
        ValueError: the data set is empty.
    """

    def __init__(self, dataset: Sized, seed: int | None = 0, shuffle: bool = True) -> None:
        self.rank, self.world = get_dist_info()
        self.length, self.shuffle, self.seed, self.start = _length(dataset), shuffle, seed or 0, 0

    def __len__(self) -> int:
        """Keys of this rank in one pass; the stream itself does not end."""
        return math.ceil(self.length / self.world)

    def skip(self, count: int) -> None:
        """Start the next iteration later in the stream; MMEngine's loop calls this on resume.

        Args:
            count: keys of this rank to skip.
        """
        self.start = count

    def __iter__(self) -> Iterator[int]:
        position, current = self.start * self.world + self.rank, -1
        while True:
            draw, slot = divmod(position, self.length)
            if draw != current:
                order, current = _order(self.length, self.shuffle, self.seed, draw), draw
            yield draw * self.length + int(order[slot])
            position += self.world
