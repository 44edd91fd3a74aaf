"""CutMix within a batch: a rectangle of every image, and of all its labels, comes from another image of the batch.

Yun et al., https://arxiv.org/abs/1905.04899. The rectangle is that of French et al., https://arxiv.org/abs/1906.01916,
who mix unlabelled images with the teacher's labels for them: half of the area, any shape that fits, anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

Maps: TypeAlias = Mapping[str, Tensor]
AREA = 0.5  # of the frame that comes from the other image


class CutMix(NamedTuple):
    """One step's mixing.

    Args:
        probability: that the batch is mixed at all.
        key: seed, iteration and rank: all that the mixing depends on.
    """

    probability: float
    key: tuple[int, ...]

    def __call__(self, image: Tensor, maps: Sequence[Maps]) -> tuple[Tensor, list[Maps]]:
        """Images and maps, mixed or as they came. Edges lie between pixels of the coarsest map.

        Args:
            image: (N,3,H,W).
            maps: labels {task: (N,C,h,w)} first, then whatever belongs to them: {task: (N,h,w)}, or (N,1,1) for a mark
                of a whole image.
        """
        numbers, labels = np.random.default_rng(self.key), maps[0]
        if numbers.random() >= self.probability or len(image) < 2:
            return image, list(maps)
        grid = min(tuple(label.shape[-2:]) for label in labels.values())
        boxes = [_rectangle(numbers, (grid[0], grid[1])) for _ in image]
        partners = (np.arange(len(image)) + 1 + numbers.integers(len(image) - 1)) % len(image)
        other = torch.from_numpy(partners).to(image.device)

        def mix(value: Tensor) -> Tensor:
            inside = _inside(boxes, value.shape[-2], value.shape[-1]).to(value.device)
            inside = inside.view(len(value), *[1] * (value.ndim - 3), *value.shape[-2:])
            return torch.where(inside, value[other.to(value.device)], value)

        full = [  # a mark becomes a map, to be cut like its label
            {task: value.expand(*value.shape[:-2], *labels[task].shape[-2:]) for task, value in each.items()}
            for each in maps
        ]
        return mix(image), [{task: mix(value) for task, value in each.items()} for each in full]


def _rectangle(numbers: np.random.Generator, grid: tuple[int, int]) -> tuple[float, float, float, float]:
    """Top, bottom, left and right of a rectangle, as fractions of the frame, on the lines of a grid."""
    tall = np.exp(numbers.random() * np.log(AREA))  # share of the height, AREA..1; the width has the rest
    edges: list[float] = []
    for share, cells in zip((tall, AREA / tall), grid, strict=True):
        length = min(max(round(share * cells), 1), cells)
        first = int(numbers.integers(cells - length + 1))
        edges += [first / cells, (first + length) / cells]
    return edges[0], edges[1], edges[2], edges[3]


def _inside(boxes: list[tuple[float, float, float, float]], height: int, width: int) -> Tensor:
    """Pixels of each rectangle, bool (N,height,width)."""
    found = torch.zeros(len(boxes), height, width, dtype=torch.bool)
    for one, (top, bottom, left, right) in zip(found, boxes, strict=True):
        one[round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = True
    return found
