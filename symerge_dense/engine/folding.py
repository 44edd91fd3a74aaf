"""The merged model as it will be delivered, for a while: weights folded, BatchNorm re-estimated, then undone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.engine.batchnorm import recalibrate, statistics
from symerge_dense.engine.symerge_model import SyMergeModel
from symerge_dense.experts.model import MultiTaskModel


def image_batches(pool: Unlabelled, count: int, batch_size: int, device: torch.device) -> Iterator[Tensor]:
    """Up to ``count`` evenly spaced images of the pool, as batches (N,3,H,W); the same in every process."""
    indices = torch.linspace(0, len(pool) - 1, min(count, len(pool))).long().unique()
    for chunk in indices.split(batch_size):
        yield torch.stack([pool[int(i)]["image"] for i in chunk]).to(device)


@contextmanager
def folded(model: SyMergeModel, images: Iterable[Tensor]) -> Iterator[MultiTaskModel]:
    """Fold and re-estimate BatchNorm on ``images``; afterwards weights and statistics are as they were."""
    before = [value.clone() for value in statistics(model.model)]
    model.fold()
    try:
        recalibrate(model.model, images)
        yield model.model
    finally:
        model.unfold()
        for value, old in zip(statistics(model.model), before, strict=True):
            value.copy_(old)
