"""Writes the experts' predictions on the unlabelled pool: each expert runs once on every image.

Labels are the experts' raw outputs at head resolution, as float16 in one memory-mapped file per task, one row per
image. A record beside it holds the hashes of expert and pool, so that labels of another expert or pool are never used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import default_collate
from mmengine.dist import barrier, is_main_process
from torch.utils.data import DataLoader

from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.fileio import atomic_write, write_text
from symerge_dense.models.checkpoint import state_hash
from symerge_dense.models.modes import evaluating
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.progress import track

Experts = Mapping[str, MultiTaskModel]


@torch.no_grad()
def _predict(task: str, expert: MultiTaskModel, pool: Unlabelled, path: Path, batch_size: int) -> None:
    """Write one expert's raw outputs for the whole pool, under a temporary name until they are complete."""
    device = next(expert.parameters()).device
    store: np.memmap[Any, Any] | None = None
    loader: DataLoader[Any] = DataLoader(pool, batch_size, collate_fn=default_collate)
    with atomic_write(path) as temporary:
        for batch in track(loader, f"labels of expert {task}"):
            output = expert(batch["image"].to(device), mode="tensor")[task].half().cpu().numpy()
            if store is None:
                shape = (len(pool), *output.shape[1:])
                store = np.lib.format.open_memmap(temporary, "w+", np.float16, shape)
            store[batch["index"].numpy()] = output
        if store is not None:
            store.flush()


def write_labels(experts: Experts, pool: Unlabelled, folder: Path, batch_size: int) -> None:
    """Run every expert once on every image of the pool; labels that the folder already holds are kept.

    Files: ``folder/<task>.npy`` float16 (images, C, h, w) and ``<task>.json``. The main process writes, others wait.

    Args:
        experts: {task: expert}.
        pool: the unlabelled images.
        folder: of the labels; made where it is missing.
        batch_size: images per pass.

    Raises:
        ValueError: the pool is empty.
    """
    if len(pool) == 0:
        raise ValueError("the unlabelled pool is empty: point data.unlabelled at a set with images.")
    if is_main_process():
        folder.mkdir(parents=True, exist_ok=True)
        images = pool.fingerprint
        for task, expert in experts.items():
            record = json.dumps({"expert": state_hash(expert.state_dict()), "pool": images})
            path, about = folder / f"{task}.npy", folder / f"{task}.json"
            if path.exists() and about.exists() and about.read_text() == record:
                continue
            about.unlink(missing_ok=True)  # a record never stands beside labels that it does not describe
            with evaluating(expert):
                _predict(task, expert, pool, path, batch_size)
            write_text(about, record)
    barrier()
