"""What the variance between views of an image does to the loss: it weighs pixels, or leaves the worst ones out.

An expert that gives another answer for every view of an image is wrong more often than one that always gives the same.
Weights are those of a weighted mean whose errors have the variance of the views plus the image's mean one (inverse
variance weighting, bounded below); leaving out the worst tenth of the pixels is what Depth Anything V2 (arXiv
2406.09414) does with the largest losses.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from symerge_dense.adaptation.label_cache import variance_name
from symerge_dense.adaptation.objective import PREFIX
from symerge_dense.adaptation.options import SyMergeOptions
from symerge_dense.tasks.base import MOVES, Array


class VarianceLayer:
    """How a map of variances moves when image and labels are augmented: by nearest pixel, values as they are.

    Args:
        name: of the layer beside the labels.
    """

    interpolation: ClassVar[Literal["nearest", "masked"]] = "nearest"
    invalid_value: ClassVar[float] = 0.0
    moves: ClassVar[frozenset[str]] = frozenset(MOVES)

    def __init__(self, name: str) -> None:
        self.name = name

    def derive(self, target: Array) -> Array:
        """The map itself.

        Args:
            target: (h,w,1).
        """
        return target

    def flip(self, target: Array) -> Array:
        """The map itself.

        Args:
            target: mirrored map, (h,w,1).
        """
        return target

    def zoom(self, target: Array, scale: float) -> Array:
        """The map itself.

        Args:
            target: zoomed map, (h,w,1).
            scale: zoom factor.
        """
        return target

    def rotate(self, target: Array, angle: float) -> Array:
        """The map itself.

        Args:
            target: turned map, (h,w,1).
            angle: in radians.
        """
        return target


def variance_layers(tasks: Collection[str], options: SyMergeOptions) -> dict[str, VarianceLayer]:
    """The layers that stand beside the labels; none where the options do not ask for them.

    Args:
        tasks: names of the tasks.
        options: of the adaptation.
    """
    if options.uncertainty == "ignore":
        return {}
    return {name: VarianceLayer(name) for name in map(variance_name, tasks)}


def with_uncertainty(
    weights: Mapping[str, Tensor], batch: Mapping[str, Tensor], tasks: Collection[str], options: SyMergeOptions
) -> Mapping[str, Tensor]:
    """Weights of the pixels, times those that the variance over the views gives them.

    Args:
        weights: {task: (N,h,w)}; a task without them weighs all alike.
        batch: of the data loader; variances (N,1,h,w) are called ``label_<task>.variance``.
        tasks: names of the tasks.
        options: of the adaptation.

    Returns:
        {task: (N,h,w)}; ``weights`` as they are where the options ignore the variance.
    """
    if options.uncertainty == "ignore":
        return weights
    own = {task: pixel_weights(batch[PREFIX + variance_name(task)][:, 0], options) for task in tasks}
    return {task: weight * weights[task] if task in weights else weight for task, weight in own.items()}


def pixel_weights(variance: Tensor, options: SyMergeOptions) -> Tensor:
    """Weights by variance, of mean 1 in each image.

    With 'weight' they are 1 / (v + mean of v over the image): a pixel of the mean variance weighs half as much as one
    that all views agree on. With 'filter' the ``uncertain_share`` of the pixels with the largest variance weighs 0.

    Args:
        variance: (N,h,w), >= 0.
        options: of the adaptation.
    """
    variance = variance.float()
    if options.uncertainty == "filter":
        flat = variance.flatten(1)
        kept = flat.shape[1] - int(options.uncertain_share * flat.shape[1])
        limit = flat.sort(dim=1).values[:, kept - 1].view(-1, 1, 1)
        weight = (variance <= limit).float()
    else:
        mean = variance.mean(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
        weight = 1 / (1 + variance / mean)
    return weight / weight.mean(dim=(1, 2), keepdim=True)
