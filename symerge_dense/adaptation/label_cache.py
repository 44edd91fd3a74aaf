"""Writes the experts' predictions on the unlabelled pool: each expert runs once on every view of every image.

Labels are the experts' raw outputs at head resolution, as float16 in one memory-mapped file per task, one row per
image. A record beside it holds the hashes of expert and pool, and the views, so that labels of another expert, pool or
views are never used; a checksum finds damaged ones. Averages over several views have a folder of their own, with the
variance beside each.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import default_collate
from mmengine.dist import barrier, broadcast_object_list, get_rank, get_world_size, is_main_process
from torch import Tensor
from torch.utils.data import DataLoader

from symerge_dense.datasets.checksums import is_changed, write_checksum
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.fileio import atomic_write, mapped_array, new_array, write_text
from symerge_dense.models.checkpoint import state_hash
from symerge_dense.models.modes import evaluating
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.models.views import Views, average_of_views, check_views
from symerge_dense.progress import say, track

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
    float32 (images, 1, h, w). A row of an image that the expert does not label (``labels_of`` of its pool) is 0.
    Processes share out the images; the files are those of one. Damaged files are named and made anew: kept ones are
    read once by each program that uses them.

    Args:
        experts: {task: expert}.
        pool: the unlabelled images.
        folder: of the labels; made where it is missing.
        batch_size: images per pass.
        views: that are averaged; None asks for the plain image alone.

    Returns:
        The folder of the files: ``labels_folder(folder, views)``.

    Raises:
        ValueError: the pool is empty, a task has no average of several views, a network does not take their sizes, or
            the disk is too small.
    """
    if len(pool) == 0:
        raise ValueError("the unlabelled pool is empty: point data.unlabelled at a set with images.")
    place = labels_folder(folder, views)
    if views is not None:
        height, width = pool.image(0).shape[-2:]
        for task, expert in experts.items():
            check_views(views, expert.backbone, {task: expert.tasks[task]}, (height, width))
    for task, record in _missing(experts, pool, place, views).items():
        with evaluating(experts[task]):
            _predict(task, experts[task], pool, _files(place, task, views), batch_size, views)
        if is_main_process():
            for path in _files(place, task, views):
                write_checksum(path)
            write_text(place / f"{task}.json", record)
    barrier()
    return place


def _damage(path: Path, images: int) -> str:
    """Why a file does not hold the labels of so many images that were written; empty where it does."""
    try:
        array = mapped_array(path, "it is made anew")
        if array.ndim != DIMENSIONS or len(array) != images or array.dtype.kind != "f":
            return f"{path}: holds {array.dtype} of shape {array.shape}"
        return f"{path}: its checksum is another" if is_changed(path) else ""
    except FileNotFoundError:
        return f"{path}: is missing"
    except (OSError, ValueError) as error:
        return f"{path}: cannot be read ({error})" if str(path) not in str(error) else str(error)


def _missing(experts: Experts, pool: Unlabelled, place: Path, views: Views | None) -> dict[str, str]:
    """{task: record} of the labels that are asked for and not there, as the main process finds them."""
    found: dict[str, str] = {}
    if is_main_process():
        place.mkdir(parents=True, exist_ok=True)
        for task, expert in experts.items():
            paths, about = _files(place, task, views), place / f"{task}.json"
            record = _record(task, expert, pool, views)
            if (fault := _fault(about, record, paths, len(pool))) is not None:
                if fault:
                    say(f"{fault.rstrip('.')}. The labels of {task} are made anew.")
                about.unlink(missing_ok=True)  # a record never stands beside labels that it does not describe
                found[task] = record
    told = [found]
    broadcast_object_list(told)
    return told[0]


def _fault(about: Path, record: str, paths: Sequence[Path], images: int) -> str | None:
    """Why labels have to be made: empty where there are none, None where they are there and whole."""
    if not about.exists():
        return ""
    if about.read_bytes() != record.encode():
        return f"{about}: is damaged, or of another expert, other images or views"
    return next(filter(None, (_damage(path, images) for path in paths)), None)


def _record(task: str, expert: MultiTaskModel, pool: Unlabelled, views: Views | None) -> str:
    asked: dict[str, Any] = {} if views is None else {"views": views.spec}
    asked |= _images_of(pool, task)
    return json.dumps({"expert": state_hash(expert.state_dict()), "pool": pool.fingerprint, **asked})


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
    """Write one expert's answers for the whole pool, under temporary names until they are complete.

    Every process answers whole batches in its turn, so that the answers do not depend on the number of processes.
    """
    labelled = np.flatnonzero(pool.labelled_by(task)).tolist()  # rows of the others stay 0
    batches = [labelled[start : start + batch_size] for start in range(0, len(labelled), batch_size)]
    own = batches[get_rank() :: get_world_size()]
    loader: DataLoader[Any] = DataLoader(pool, batch_sampler=own, collate_fn=default_collate)
    title = f"labels of expert {task}" + ("" if views is None else f", {views}")
    answers = (
        (batch["index"].numpy(), _answers(task, expert, batch["image"], views)) for batch in track(loader, title)
    )
    first = next(answers, None)
    with ExitStack() as stack:
        stores, told = list[np.memmap[Any, Any]](), list[list[Path]]([[]])
        if is_main_process() and first is not None:
            _check_space(task, sum(array[0].nbytes for array in first[1]) * len(pool), paths[0].parent)
            told[0] = [stack.enter_context(atomic_write(path)) for path in paths]
            stores = [_store(path, len(pool), array) for path, array in zip(told[0], first[1], strict=True)]
        broadcast_object_list(told)
        if not is_main_process():
            stores = [np.lib.format.open_memmap(path, "r+") for path in told[0]]
        for index, arrays in itertools.chain([first] if first else [], answers):
            for store, array in zip(stores, arrays, strict=True):
                store[index] = array
        for store in stores:
            store.flush()
        barrier()  # before the files get their names


def _check_space(task: str, size: int, folder: Path) -> None:
    """Say how large the files of a task will be; ValueError where the disk is smaller."""
    free, needed = shutil.disk_usage(folder).free, f"{size / 2**20:.1f} MiB"
    if size > free:
        raise ValueError(
            f"{folder}: the labels of {task} take {needed}, and {free / 2**20:.1f} are free; make room, give fewer "
            "images, or keep no labels: adaptation.labels='online'."
        )
    say(f"labels of {task}: {needed} in {folder}")


def _answers(task: str, expert: MultiTaskModel, image: Tensor, views: Views | None) -> list[np.ndarray]:
    """Labels of a batch, and their variance where there are several views."""
    image = image.to(next(expert.parameters()).device)
    if views is None:
        return [expert(image, mode="tensor")[task].half().cpu().numpy()]
    average, variance = average_of_views(expert, image, views, [task])[task]
    return [average.half().cpu().numpy(), variance[:, None].cpu().numpy()]


def _store(path: Path, images: int, array: np.ndarray) -> np.memmap[Any, Any]:
    return new_array(path, array.dtype, (images, *array.shape[1:]))
