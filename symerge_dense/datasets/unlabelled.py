"""Images without labels, by construction: what adaptation is allowed to see."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Dataset

from symerge_dense.datasets.base import DenseDataset, to_tensor
from symerge_dense.registry import TASKS


class Unlabelled(Dataset[dict[str, Any]]):
    """View of a data set that reads images and has no way to read a target.

    ``view[key]`` is ``{'image': float32 (3,H,W) 0..255, 'index': int}`` of image ``key % len(view)``, never augmented.

    Args:
        dataset: a data set, or the dict that builds it.
        limit: at most this many images, the first ones. Raises ValueError below 1.
    """

    def __init__(self, dataset: DenseDataset | dict[str, Any], limit: int | None = None) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"limit={limit}: must be at least 1, or None for all images.")
        self._source: DenseDataset = TASKS.build(dataset)
        self.length = len(self._source) if limit is None else min(limit, len(self._source))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: int) -> dict[str, Any]:
        if key < 0:
            raise IndexError(f"key {key} is negative: keys are draw * {len(self)} + index.")
        index = int(key) % self.length
        return {"image": to_tensor(self._source.resized_image(index)), "index": index}
