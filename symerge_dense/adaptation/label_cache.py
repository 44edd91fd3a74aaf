"""Writes the experts' predictions on the unlabelled pool: each expert runs once on every view of every image.

Labels are the experts' raw outputs at head resolution, as float16 in one memory-mapped file per task, one row per
image. A record beside it holds the hashes of expert and pool, and the views, so that labels of another expert, pool or
views are never used. Averages over several views have a folder of their own, with the variance beside each.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import default_collate
from mmengine.dist import barrier, is_main_process
from torch.utils.data import DataLoader, Subset

from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.fileio import atomic_write, mapped_array, write_text
from symerge_dense.models.checkpoint import state_hash
from symerge_dense.models.modes import evaluating
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.models.views import Views, average_of_views, check_views
from symerge_dense.progress import track

Experts = Mapping[str, MultiTaskModel]
DIMENSIONS = 4  # of the files: image, channel, row, column


def labels_folder(folder: Path, views: Views | None = None) -> Path:
    """Where labels of some views are kept, so that a change of the views keeps what was computed with others.

    Args:
        folder: of all labels.
        views: that are averaged; None for the plain image.
    """
    if views is None:
        return folder
    return folder / f"views-{hashlib.sha256(json.dumps(views.spec).encode()).hexdigest()[:8]}"


def write_labels(experts: Experts, pool: Unlabelled, folder: Path, batch_size: int, views: Views | None = None) -> Path:
    """Run every expert once on every image that it labels; labels that the folder already holds are kept.

    Files: ``<task>.npy`` float16 (images, C, h, w) and ``<task>.json``; of several views also ``<task>.variance.npy``
    float32 (images, 1, h, w). A row of an image that the expert does not label (``labels_of`` of its pool) is 0. The
    main process writes, others wait.

    Args:
        experts: {task: expert}.
        pool: the unlabelled images.
        folder: of the labels; made where it is missing.
        batch_size: images per pass.
        views: that are averaged; None asks for the plain image alone.

    Returns:
        The folder of the files: ``labels_folder(folder, views)``.

    Raises:
        ValueError: the pool is empty, a task has no average of several views, or a network does not take their sizes.
    """
    if len(pool) == 0:
        raise ValueError("the unlabelled pool is empty: point data.unlabelled at a set with images.")
    place = labels_folder(folder, views)
    if views is not None:
        height, width = pool.image(0).shape[-2:]
        for task, expert in experts.items():
            check_views(views, expert.backbone, {task: expert.tasks[task]}, (height, width))
    if is_main_process():
        place.mkdir(parents=True, exist_ok=True)
        images = pool.fingerprint
        for task, expert in experts.items():
            asked: dict[str, Any] = {} if views is None else {"views": views.spec}
            asked |= _images_of(pool, task)
            record = json.dumps({"expert": state_hash(expert.state_dict()), "pool": images, **asked})
            paths, about = _files(place, task, views), place / f"{task}.json"
            if about.exists() and about.read_bytes() == record.encode() and all(_is_whole(p, len(pool)) for p in paths):
                continue
            about.unlink(missing_ok=True)  # a record never stands beside labels that it does not describe
            with evaluating(expert):
                _predict(task, expert, pool, paths, batch_size, views)
            write_text(about, record)
    barrier()
    return place


def _is_whole(path: Path, images: int) -> bool:
    """Whether a file holds labels of so many images, or has to be written again: it may be missing, or cut short."""
    try:
        array = mapped_array(path, "it is written again")
    except (OSError, ValueError):
        return False
    return array.ndim == DIMENSIONS and len(array) == images and array.dtype.kind == "f"


def _images_of(pool: Unlabelled, task: str) -> dict[str, str]:
    """What a record says of the images that the expert labels, where these are not all."""
    labelled = pool.labelled_by(task)
    return {} if labelled.all() else {"images": hashlib.sha256(labelled.tobytes()).hexdigest()}


def variance_name(task: str) -> str:
    """Name of a task's variance over the views: the stem of its file, and its layer beside the labels.

    Args:
        task: its name.
    """
    return f"{task}.variance"


def _files(folder: Path, task: str, views: Views | None) -> list[Path]:
    return [folder / f"{name}.npy" for name in (task, *([] if views is None else [variance_name(task)]))]


@torch.no_grad()
def _predict(
    task: str, expert: MultiTaskModel, pool: Unlabelled, paths: Sequence[Path], batch_size: int, views: Views | None
) -> None:
    """Write one expert's answers for the whole pool, under temporary names until they are complete."""
    device = next(expert.parameters()).device
    stores: list[np.memmap[Any, Any]] = []
    labelled = Subset(pool, np.flatnonzero(pool.labelled_by(task)).tolist())  # rows of the others stay 0
    loader: DataLoader[Any] = DataLoader(labelled, batch_size, collate_fn=default_collate)
    title = f"labels of expert {task}" + ("" if views is None else f", {views}")
    with ExitStack() as stack:
        temporary = [stack.enter_context(atomic_write(path)) for path in paths]
        for batch in track(loader, title):
            image = batch["image"].to(device)
            if views is None:
                answers = [expert(image, mode="tensor")[task].half()]
            else:
                average, variance = average_of_views(expert, image, views, [task])[task]
                answers = [average.half(), variance[:, None]]
            arrays = [answer.cpu().numpy() for answer in answers]
            if not stores:
                stores = [_store(path, len(pool), array) for path, array in zip(temporary, arrays, strict=True)]
            for store, array in zip(stores, arrays, strict=True):
                store[batch["index"].numpy()] = array
        for store in stores:
            store.flush()


def _store(path: Path, images: int, array: np.ndarray) -> np.memmap[Any, Any]:
    return np.lib.format.open_memmap(path, "w+", array.dtype, (images, *array.shape[1:]))
