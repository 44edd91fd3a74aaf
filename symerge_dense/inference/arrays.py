"""From a model's outputs to arrays at the image's own size.

Shape legend: C channels of a task, H x W an image's own size, h x w the size at which the model was asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from symerge_dense.tasks.base import DenseTask

Prediction = dict[str, NDArray[Any]]
MOST_VALUES = 1 << 26  # raw values at the image's own size that are in memory at a time


def as_array(task: DenseTask, decided: Tensor) -> NDArray[Any]:
    """A decided prediction of one image as an array: class ids uint8 (int32 of many classes), else float32.

    Args:
        task: whose prediction.
        decided: (1,H,W), (1,1,H,W) or (1,C,H,W).

    Returns:
        (H,W), or (H,W,C) of several channels.
    """
    value = decided[0].cpu()
    if value.ndim == 3:
        value = value[0] if value.shape[0] == 1 else value.permute(1, 2, 0)
    if task.class_map:
        kind: Any = np.uint8 if task.channels <= 256 else np.int32
        return np.ascontiguousarray(value.numpy().astype(kind))
    return np.ascontiguousarray(value.float().numpy())


def nearest(decided: Tensor, own: Sequence[int]) -> Tensor:
    """Decisions at the image's own size: for each pixel, the one in which its centre lies.

    Args:
        decided: (...,h,w).
        own: (H,W).
    """
    rows, columns = (
        ((torch.arange(side, device=decided.device) + 0.5) * given / side).long()
        for side, given in zip(own, decided.shape[-2:], strict=True)
    )
    return decided[..., rows[:, None], columns]


def enlarged(output: Tensor, own: Sequence[int]) -> Iterator[Tensor]:
    """A raw output at the image's own size, bilinear; in bands of rows, from top to bottom, where it is large.

    Args:
        output: (1,C,h,w).
        own: (H,W).

    Yields:
        (1,C,rows,W).
    """
    height, width = own
    if tuple(output.shape[-2:]) == (height, width):
        yield output
        return
    if output.shape[1] * height * width <= MOST_VALUES:
        yield F.interpolate(output, size=(height, width), mode="bilinear", align_corners=False)
        return
    wide = F.interpolate(output, size=(output.shape[-2], width), mode="bilinear", align_corners=False)
    places = ((torch.arange(height, device=output.device) + 0.5) * output.shape[-2] / height - 0.5).clamp(min=0)
    above = places.long().clamp(max=output.shape[-2] - 1)
    below = (above + 1).clamp(max=output.shape[-2] - 1)
    share = (places - above)[:, None].clamp(max=1)
    rows = max(MOST_VALUES // (output.shape[1] * width), 1)
    for top in range(0, height, rows):
        band = slice(top, min(top + rows, height))
        yield wide[..., above[band], :] * (1 - share[band]) + wide[..., below[band], :] * share[band]
