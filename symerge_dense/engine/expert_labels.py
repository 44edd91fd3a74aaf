"""The experts' predictions on the unlabelled pool: asked once and kept, or asked in every step.

Kept labels are the experts' raw outputs at head resolution, as float16 in one memory-mapped file per task, one row per
image, next to a record of the expert's hash and of the pool, so that labels of another expert or pool are never used.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import default_collate
from mmengine.dist import barrier, is_main_process
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from symerge_dense.datasets.transforms import Augment
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.engine.student import PREFIX
from symerge_dense.experts.checkpoint import state_hash
from symerge_dense.experts.model import MultiTaskModel
from symerge_dense.progress import track

Experts = Mapping[str, MultiTaskModel]
FINGERPRINT_IMAGES = 16


def pool_fingerprint(pool: Unlabelled) -> str:
    """Hash of the pool's length and of evenly spaced images: enough to notice another data set, size or order."""
    digest = hashlib.sha256(str(len(pool)).encode())
    for index in np.unique(np.linspace(0, len(pool) - 1, FINGERPRINT_IMAGES).astype(int)):
        digest.update(pool[int(index)]["image"].contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def _predict(task: str, expert: MultiTaskModel, pool: Unlabelled, path: Path, batch_size: int) -> None:
    """Write one expert's raw outputs for the whole pool; a temporary name until complete."""
    device = next(expert.parameters()).device
    temporary = path.with_suffix(".tmp")
    store: np.memmap[Any, Any] | None = None
    loader: DataLoader[Any] = DataLoader(pool, batch_size, collate_fn=default_collate)
    for batch in track(loader, f"labels of expert {task}"):
        output = expert(batch["image"].to(device), mode="tensor")[task].half().cpu().numpy()
        if store is None:
            shape = (len(pool), *output.shape[1:])
            store = np.lib.format.open_memmap(temporary, "w+", np.float16, shape)
        store[batch["index"].numpy()] = output
    if store is not None:
        store.flush()
    os.replace(temporary, path)


def write_labels(experts: Experts, pool: Unlabelled, folder: Path, batch_size: int) -> None:
    """Ask every expert once about every image of ``pool``; what ``folder`` already holds of them is kept.

    Files: ``folder/<task>.npy`` float16 (images, C, h, w) and ``<task>.json``. The main process writes, others wait.
    Raises ValueError for an empty pool.
    """
    if len(pool) == 0:
        raise ValueError("the unlabelled pool is empty: point data.unlabelled at a set with images.")
    if is_main_process():
        folder.mkdir(parents=True, exist_ok=True)
        images = pool_fingerprint(pool)
        for task, expert in experts.items():
            record = json.dumps({"expert": state_hash(expert.state_dict()), "pool": images})
            path, about = folder / f"{task}.npy", folder / f"{task}.json"
            if path.exists() and about.exists() and about.read_text() == record:
                continue
            about.unlink(missing_ok=True)  # a record never stands beside labels that it does not describe
            was_training = expert.training
            _predict(task, expert.eval(), pool, path, batch_size)
            expert.train(was_training)
            about.write_text(record)
    barrier()


class LabelledPool(Dataset[dict[str, Any]]):
    """Unlabelled images with the experts' raw outputs as ``label_<task>``, geometry applied to both alike.

    Args:
        pool: the images. folder: where ``write_labels`` puts the labels; opened at first use, so the data loader may
        be built before they exist. rules: the tasks, which know how their values change under a mirror or a zoom.
    """

    def __init__(self, pool: Unlabelled, folder: Path, rules: Mapping[str, Any], augment: Augment | None = None,
                 seed: int = 0) -> None:
        self.pool, self.folder, self.rules, self.augment, self.seed = pool, folder, rules, augment, seed
        self._stores: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.pool)

    def _label(self, task: str, index: int) -> np.ndarray:
        if task not in self._stores:
            self._stores[task] = np.load(self.folder / f"{task}.npy", mmap_mode="r", allow_pickle=False)
        return np.array(self._stores[task][index])

    def __getitem__(self, key: int) -> dict[str, Any]:
        draw, index = divmod(key, len(self))
        sample = self.pool[index]
        labels = {task: self._label(task, index) for task in self.rules}
        if self.augment is not None:
            arrays = {"image": sample["image"].permute(1, 2, 0).numpy()}
            arrays |= {task: label.transpose(1, 2, 0).astype(np.float32) for task, label in labels.items()}
            arrays = self.augment(arrays, self.rules, np.random.default_rng((self.seed, draw, index)))
            sample["image"] = torch.from_numpy(np.ascontiguousarray(arrays.pop("image").transpose(2, 0, 1))).float()
            labels = {task: np.ascontiguousarray(arrays[task].transpose(2, 0, 1)) for task in labels}
        return sample | {PREFIX + task: torch.from_numpy(label) for task, label in labels.items()}


class OnlineLabels:
    """The literal variant: every expert is asked about every batch. Called with images, returns raw outputs."""

    def __init__(self, experts: Experts) -> None:
        self.experts = {task: expert.eval() for task, expert in experts.items()}

    @torch.no_grad()
    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        return {task: expert(image, mode="tensor")[task] for task, expert in self.experts.items()}
