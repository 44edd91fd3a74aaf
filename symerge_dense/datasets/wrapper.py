"""Data sets made of another data set: what its subclasses change of it, and the rest as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from symerge_dense.datasets.base import Array, DenseDataset
from symerge_dense.datasets.transforms import Augment, TargetRule
from symerge_dense.registry import DATASETS


class Wrapper(DenseDataset):
    """Another data set; by default its images and targets as they are.

    Args:
        dataset: spec of the data set, ``dict(type=...)``.
        tasks: as in ``DenseDataset``.
        augment: as in ``DenseDataset``.
        seed: of the augmentation.
    """

    def __init__(
        self,
        dataset: Mapping[str, Any],
        tasks: Mapping[str, TargetRule | dict[str, Any]] | None = None,
        augment: Augment | dict[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        self.source: DenseDataset = DATASETS.build(dict(dataset), tasks=dict(tasks or {}))
        vars(self)["serves"] = self.source.serves
        self.classes = self.source.classes
        super().__init__(tasks, augment, self.source.size, seed)

    def number(self, index: int) -> int:
        """Number of an image in the other data set.

        Args:
            index: image number, from 0.
        """
        return index

    def __len__(self) -> int:
        return len(self.source)

    def image(self, index: int) -> Array:
        return self.source.image(self.number(index))

    def target(self, index: int, name: str) -> Array:
        return self.source.target(self.number(index), name)

    def image_name(self, index: int) -> str:
        return self.source.image_name(self.number(index))

    def target_name(self, index: int, name: str) -> str:
        return self.source.target_name(self.number(index), name)

    def image_size(self, index: int) -> tuple[int, int]:
        return self.source.image_size(self.number(index))
