"""The experts' predictions on the unlabelled pool: read from the cache, or computed in every step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from symerge_dense.adaptation.label_cache import DIMENSIONS, Experts
from symerge_dense.adaptation.objective import PREFIX, VALID
from symerge_dense.adaptation.strong_views import StrongViews
from symerge_dense.datasets.transforms import Augment
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.fileio import mapped_array
from symerge_dense.models.image_sizes import padded
from symerge_dense.models.views import Views, average_of_views

Valid = Mapping[str, NDArray[np.bool_]]


def labelled_images(pool: Unlabelled, tasks: Iterable[str]) -> Valid:
    """Which images the expert of each task labels, {task: (images,)}; empty where every expert labels all.

    Args:
        pool: the unlabelled images.
        tasks: all that there are.
    """
    found = {task: pool.labelled_by(task) for task in tasks}
    return {} if all(images.all() for images in found.values()) else found


class MarkedImages:
    """Joins unlabelled images with ``valid_<task>``, bool (1,1): whether the task's expert labels the image.

    Args:
        valid: as ``labelled_images`` gives it.
    """

    def __init__(self, valid: Valid) -> None:
        self.valid = valid

    def __call__(self, sample: dict[str, Any], draw: int) -> dict[str, Any]:
        """A sample with the marks of every task."""
        return sample | {VALID + task: torch.tensor([[bool(own[sample["index"]])]]) for task, own in self.valid.items()}


class CachedLabels(MarkedImages):
    """Joins unlabelled images with the experts' raw outputs as ``label_<task>``, and augments both alike.

    Args:
        folder: where ``write_labels`` puts the labels; opened at first use, once in every process.
        rules: {task: DenseTask}; a task knows how its values change under a mirror or a zoom.
        augment: joint augmentation; None for none.
        seed: of the augmentation; sample ``index`` of pass ``draw`` depends on (seed, draw, index) alone.
        size: (H,W) that the experts' backbone pads images to. The labels cover the padded image, so a view of it is
            only the same view of both if the image is padded first. None: labels cover the image.
        valid: which images each task's expert labels, as ``labelled_images`` gives it; empty: all.
        strong: the student's view, after ``augment``; it depends on (seed, draw, index) too.
        cut: whether images and labels will be cut (``CutMix``), so that they must cover the same frame.
        clean: whether a sample has ``clean``, too: the image that teachers see, moved like the labels and not changed.
    """

    def __init__(
        self,
        folder: Path,
        rules: Mapping[str, Any],
        augment: Augment | None = None,
        seed: int = 0,
        size: tuple[int, int] | None = None,
        valid: Valid = MappingProxyType({}),
        strong: StrongViews | None = None,
        cut: bool = False,
        clean: bool = False,
    ) -> None:
        super().__init__(dict(valid))
        self.strong, self.cut, self.clean = strong, cut, clean
        self.folder, self.rules, self.augment, self.seed, self.size = folder, rules, augment, seed, size
        self._stores: dict[str, np.ndarray] = {}

    def __call__(self, sample: dict[str, Any], draw: int) -> dict[str, Any]:
        """A sample ('image' float32 (3,H,W), 'index') with ``label_<task>`` (C,h,w) of every task, and the marks."""
        index, marks = sample["index"], super().__call__({"index": sample["index"]}, draw)
        labels = {task: self._label(task, index) for task in self.rules}
        if self.size is not None and (self.augment or self.strong or self.cut):
            sample["image"] = padded(sample["image"][None], self.size)[0]
        if self.augment is not None or self.strong is not None:
            arrays = {"image": rearrange(sample["image"], "c h w -> h w c").numpy()}
            arrays |= {task: rearrange(label, "c h w -> h w c").astype(np.float32) for task, label in labels.items()}
            if self.augment is not None:
                arrays = self.augment(arrays, self.rules, np.random.default_rng((self.seed, draw, index)))
            if self.strong is not None:
                arrays |= {"clean": arrays["image"].astype(np.float32)} if self.clean else {}
                arrays, inside = self.strong(arrays, self.rules, (self.seed, draw, index))
                known = {VALID + task: torch.from_numpy(pixels) for task, pixels in inside.items()}
                marks |= {name: pixels & marks.get(name, torch.tensor(True)) for name, pixels in known.items()}
            layers = {name: np.ascontiguousarray(rearrange(array, "h w c -> c h w")) for name, array in arrays.items()}
            sample |= {
                name: torch.from_numpy(layers.pop(name)).float() for name in ("image", "clean") if name in layers
            }
            labels = layers
        return sample | marks | {PREFIX + task: torch.from_numpy(labels[task]) for task in self.rules}

    def _label(self, task: str, index: int) -> np.ndarray:
        if task not in self._stores:
            path, remedy = self.folder / f"{task}.npy", f"remove {self.folder}, and the labels are made anew"
            store = mapped_array(path, remedy)
            if store.ndim != DIMENSIONS or store.dtype.kind != "f":
                raise ValueError(f"{path}: holds {store.dtype} of shape {store.shape}, and no labels; {remedy}.")
            self._stores[task] = store
        if index >= len(self._stores[task]):
            raise ValueError(
                f"{self.folder}: labels of {len(self._stores[task])} images; remove it, and they are made anew."
            )
        return np.array(self._stores[task][index])


class OnlineLabels:
    """Runs every expert on every batch, without a cache: images in, raw outputs {task: (N,C,h,w)} out.

    Args:
        experts: {task: expert}; put into evaluation mode.
        views: that are averaged, one pass of every expert for each; None asks for the plain image alone.
    """

    def __init__(self, experts: Experts, views: Views | None = None) -> None:
        self.experts, self.views = {task: expert.eval() for task, expert in experts.items()}, views

    @torch.no_grad()
    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        if self.views is None:
            return {task: expert(image, mode="tensor")[task] for task, expert in self.experts.items()}
        return {
            task: average_of_views(expert, image, self.views, [task])[task][0] for task, expert in self.experts.items()
        }
