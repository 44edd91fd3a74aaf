"""The experts' predictions on the unlabelled pool: computed once and cached, or computed in every step.

Cached labels are the experts' raw outputs at head resolution, as float16 in one memory-mapped file per task, one row
per image. A record beside it holds the hashes of expert and pool, so that labels of another expert or pool are never
used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from mmengine.dataset import default_collate
from mmengine.dist import barrier, is_main_process
from torch import Tensor
from torch.utils.data import DataLoader

from symerge_dense.adaptation.student import PREFIX
from symerge_dense.datasets.transforms import Augment
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.fileio import atomic_write, write_text
from symerge_dense.models.checkpoint import state_hash
from symerge_dense.models.image_sizes import padded
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


class CachedLabels:
    """Joins unlabelled images with the experts' raw outputs as ``label_<task>``, and augments both alike.

    Args:
        folder: where ``write_labels`` puts the labels; opened at first use, once in every process.
        rules: {task: DenseTask}; a task knows how its values change under a mirror or a zoom.
        augment: joint augmentation; None for none.
        seed: of the augmentation; sample ``index`` of pass ``draw`` depends on (seed, draw, index) alone.
        size: (H,W) that the experts' backbone pads images to. The labels cover the padded image, so a view of it is
            only the same view of both if the image is padded first. None: labels cover the image.
    """

    def __init__(
        self,
        folder: Path,
        rules: Mapping[str, Any],
        augment: Augment | None = None,
        seed: int = 0,
        size: tuple[int, int] | None = None,
    ) -> None:
        self.folder, self.rules, self.augment, self.seed, self.size = folder, rules, augment, seed, size
        self._stores: dict[str, np.ndarray] = {}

    def __call__(self, sample: dict[str, Any], draw: int) -> dict[str, Any]:
        """A sample ('image' float32 (3,H,W), 'index') with ``label_<task>`` (C,h,w) of every task."""
        index = sample["index"]
        labels = {task: self._label(task, index) for task in self.rules}
        if self.augment is not None:
            if self.size is not None:
                sample["image"] = padded(sample["image"][None], self.size)[0]
            arrays = {"image": rearrange(sample["image"], "c h w -> h w c").numpy()}
            arrays |= {task: rearrange(label, "c h w -> h w c").astype(np.float32) for task, label in labels.items()}
            arrays = self.augment(arrays, self.rules, np.random.default_rng((self.seed, draw, index)))
            layers = {name: np.ascontiguousarray(rearrange(array, "h w c -> c h w")) for name, array in arrays.items()}
            sample["image"] = torch.from_numpy(layers.pop("image")).float()
            labels = layers
        return sample | {PREFIX + task: torch.from_numpy(labels[task]) for task in self.rules}

    def _label(self, task: str, index: int) -> np.ndarray:
        if task not in self._stores:
            self._stores[task] = np.load(self.folder / f"{task}.npy", mmap_mode="r", allow_pickle=False)
        return np.array(self._stores[task][index])


class OnlineLabels:
    """Runs every expert on every batch, without a cache: images in, raw outputs {task: (N,C,h,w)} out.

    Args:
        experts: {task: expert}; put into evaluation mode.
    """

    def __init__(self, experts: Experts) -> None:
        self.experts = {task: expert.eval() for task, expert in experts.items()}

    @torch.no_grad()
    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        return {task: expert(image, mode="tensor")[task] for task, expert in self.experts.items()}
