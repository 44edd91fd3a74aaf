"""Views of an image: tiles of a large one, blended without seams, and its mirror image.

Shape legend: N images, C channels of a task, H x W image size, h x w tile size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from symerge_dense.tasks.base import DenseTask

Outputs = dict[str, Tensor]
Run = Callable[[Tensor], Outputs]
OVERLAP = 4  # neighbouring tiles share a quarter of a side


def mirrored_too(run: Run, tasks: Mapping[str, DenseTask]) -> Run:
    """A program that averages the raw outputs of images and of their mirror images.

    Args:
        run: images (N,3,H,W) to raw outputs.
        tasks: {name: task}.
    """

    def both(images: Tensor) -> Outputs:
        plain, mirrored = run(images), run(images.flip(-1))
        return {
            name: task.average([plain[name], task.mirror_output(mirrored[name])])[0] for name, task in tasks.items()
        }

    return both


def starts(length: int, tile: int) -> list[int]:
    """Where tiles begin that cover a side, evenly spaced, with an overlap of at least a quarter of a tile.

    Args:
        length: of the side.
        tile: of a tile's side.

    >>> starts(100, 40), starts(40, 40), starts(30, 40)
    ([0, 30, 60], [0], [0])
    """
    if length <= tile:
        return [0]
    step = max(tile - tile // OVERLAP, 1)
    count = -(-(length - tile) // step) + 1
    return [round(place * (length - tile) / (count - 1)) for place in range(count)]


def tiled(
    run: Run, image: Tensor, tile: tuple[int, int], tasks: Mapping[str, DenseTask], batch_size: int
) -> Iterator[Outputs]:
    """Raw outputs of one image in bands of rows, from top to bottom; only a band is in memory at a time.

    Where tiles overlap, the task's own average of them is taken, with weights that go linearly from one to the other.

    Args:
        run: images (N,3,h,w) to raw outputs.
        image: (1,3,H,W).
        tile: (h,w); sides beyond the image's are cut to these.
        tasks: {name: task}.
        batch_size: tiles per pass.

    Yields:
        {task: (1,C,rows,W)}.
    """
    height, width = min(tile[0], image.shape[-2]), min(tile[1], image.shape[-1])
    tops, lefts = starts(image.shape[-2], height), starts(image.shape[-1], width)
    pending: Outputs = {}  # rows from ``begin`` that the next tiles may still change
    begin = 0
    for top in tops:
        crops = torch.cat([image[..., top : top + height, left : left + width] for left in lefts])
        parts = [run(batch) for batch in crops.split(batch_size)]
        outputs = {name: torch.cat([part[name] for part in parts]) for name in tasks}
        band = {name: _joined(task, outputs[name].split(1), lefts, -1) for name, task in tasks.items()}
        if pending:
            yield {name: output[..., : top - begin, :] for name, output in pending.items()}
            rest = {name: output[..., top - begin :, :] for name, output in pending.items()}
            band = {name: _joined(task, [rest[name], band[name]], [0, 0], -2) for name, task in tasks.items()}
        pending, begin = band, top
    yield pending


def _joined(task: DenseTask, parts: Sequence[Tensor], begins: Sequence[int], axis: int) -> Tensor:
    """Neighbours along an axis as one, blended line by line where they overlap."""
    result = parts[0]
    for part, begin in zip(parts[1:], begins[1:], strict=True):
        shared = result.shape[axis] - begin
        old, new = result.narrow(axis, begin, shared).float(), part.narrow(axis, 0, shared).float()
        lines = []
        for line in range(shared):
            share = (line + 0.5) / shared
            lines.append(task.average([old.narrow(axis, line, 1), new.narrow(axis, line, 1)], [1 - share, share])[0])
        rest = part.narrow(axis, shared, part.shape[axis] - shared).float()
        result = torch.cat([result.narrow(axis, 0, begin).float(), *lines, rest], axis)
    return result
