"""The merged model in its final form, for good or for a while: weights folded, BatchNorm re-estimated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from symerge_dense.adaptation.student import Student
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.models.batchnorm import recalibrate, statistics
from symerge_dense.models.multi_task import MultiTaskModel


def image_batches(pool: Unlabelled, count: int, batch_size: int, device: torch.device) -> Iterator[Tensor]:
    """Evenly spaced images of the pool, as batches (N,3,H,W) of nearly equal size; the same in every process.

    No batch has a single image, unless the pool has: a layer that pools the whole image could not normalise it.

    Args:
        pool: the unlabelled images.
        count: at most this many images.
        batch_size: images per batch, at least 2; a batch may get more, so that none is left with one image.
        device: of the batches.
    """
    indices = torch.linspace(0, len(pool) - 1, min(count, len(pool))).long().unique()
    for chunk in indices.tensor_split(max(1, len(indices) // max(batch_size, 2))):
        yield torch.stack([pool.image(int(i)) for i in chunk]).to(device)


def finalize(model: Student, images: Iterable[Tensor]) -> None:
    """Fold a student, and set its BatchNorm statistics by the options' policy, unless it learns with fixed ones.

    Args:
        model: changed in place.
        images: batches (N,3,H,W) for re-estimation; other policies do not read them.
    """
    model.fold()
    if model.statistics_fixed:  # what was learned was learned with these
        return
    if model.options.batchnorm == "recalibrate":
        recalibrate(model.model, images)
    else:
        model.load_state_dict(model.policy_statistics, strict=False)


@contextmanager
def finalized(model: Student, images: Iterable[Tensor]) -> Iterator[MultiTaskModel]:
    """``finalize`` inside the context; afterwards weights and statistics are as before.

    Args:
        model: changed in place.
        images: as in ``finalize``.
    """
    if model.folded:  # it already is in its final form
        yield model.model
        return
    before = [value.clone() for value in statistics(model.model)]
    try:
        finalize(model, images)
        yield model.model
    finally:
        model.unfold()
        for value, old in zip(statistics(model.model), before, strict=True):
            value.copy_(old)
