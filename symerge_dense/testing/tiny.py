"""Tiny real things: a labelled data set, a base, experts near it. Everything follows from a seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch

from symerge_dense.datasets.base import Array, DenseDataset
from symerge_dense.models.backbone import TimmBackbone
from symerge_dense.models.heads.native import MultiScale
from symerge_dense.models.multi_task import MultiTaskModel, assemble
from symerge_dense.tasks.base import DenseTask
from symerge_dense.tasks.depth import Depth
from symerge_dense.tasks.normals import Normals
from symerge_dense.tasks.segmentation import Segmentation

SIZE = (32, 48)
CNN: dict[str, Any] = {"name": "resnet10t", "channels": (8, 16, 24, 32), "stem_width": 8}
VIT: dict[str, Any] = {
    "name": "vit_tiny_patch16_224",
    "img_size": SIZE,
    "patch_size": 8,
    "embed_dim": 24,
    "depth": 3,
    "num_heads": 2,
}
PREPROCESSING: dict[str, Any] = {"mean": (127.0, 127.0, 127.0), "std": (60.0, 60.0, 60.0)}
Family = tuple[TimmBackbone, dict[str, MultiTaskModel], MultiTaskModel]


class TinySet(DenseDataset):
    """Colour bands with a class, a depth and a normal each, so that every task can be learnt from colour.

    Args:
        tasks: as every data set takes them.
        count: number of images.
        split: name that the images depend on.
        **options: of ``DenseDataset``.
    """

    DEFAULT_SIZE = SIZE
    serves = frozenset({"segmentation", "depth", "normals"})
    targets_read: ClassVar[list[tuple[str, int, str]]] = []  # of all instances: a copy made on the way to a loader too

    def __init__(self, tasks: Mapping[str, Any], count: int = 12, split: str = "train", **options: Any) -> None:
        super().__init__(tasks, **options)
        self.count, self.split = count, split

    def __len__(self) -> int:
        return self.count

    def _bands(self, index: int) -> Array:
        rng = np.random.default_rng((sum(map(ord, self.split)), index))
        return np.repeat(rng.integers(0, 4, size=(4, 6)), 8, axis=0).repeat(8, axis=1)

    def image(self, index: int) -> Array:
        """Bands with some noise.

        Args:
            index: image number.
        """
        noise = np.random.default_rng(index).integers(0, 20, size=(*SIZE, 3))
        return (self._bands(index)[..., None] * [50, 30, 10] + noise).astype(np.uint8)

    def target(self, index: int, name: str) -> Array:
        """Class, depth or normal of the bands; the read is noted in ``targets_read``.

        Args:
            index: image number.
            name: one of ``serves``.
        """
        self.targets_read.append((self.split, index, name))
        bands = self._bands(index)
        if name == "segmentation":
            return bands.astype(np.int64)
        if name == "depth":
            return (bands + 1).astype(np.float32)
        angle = bands.astype(np.float32) / 4
        return np.stack([np.sin(angle), -np.cos(angle), np.zeros_like(angle)], -1)


def tasks() -> dict[str, DenseTask]:
    """The tasks of ``TinySet``."""
    return {"segmentation": Segmentation(classes=4), "depth": Depth(), "normals": Normals()}


def backbone(spec: Mapping[str, Any] = CNN, seed: int = 0) -> TimmBackbone:
    """A backbone with random weights.

    Args:
        spec: its arguments.
        seed: of its weights.
    """
    torch.manual_seed(seed)
    return TimmBackbone(**spec)


def expert(name: str, base: TimmBackbone, seed: int, noise: float = 0.02) -> MultiTaskModel:
    """A one-task model near ``base``: weights moved by noise, BatchNorm statistics of its own.

    Args:
        name: of its task.
        base: its origin.
        seed: of noise and head.
        noise: standard deviation.
    """
    torch.manual_seed(seed)
    own = backbone(base.spec)
    own.load_state_dict(base.state_dict())
    model = MultiTaskModel(own, {name: {"type": MultiScale, "width": 8}}, {name: tasks()[name]}, **PREPROCESSING)
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.add_(torch.randn_like(parameter) * noise)
        model.train()
        for _ in range(3):
            model(torch.rand(4, 3, *SIZE) * 255, mode="tensor")
    return model.eval()


def family(spec: Mapping[str, Any] = CNN, noise: float = 0.02) -> Family:
    """Base backbone, {task: expert}, and a multi-task model with the base's weights.

    Args:
        spec: of the backbone.
        noise: of the experts.
    """
    base = backbone(spec)
    experts = {name: expert(name, base, seed, noise) for seed, name in enumerate(tasks(), start=1)}
    return base, experts, assemble(base, experts)
