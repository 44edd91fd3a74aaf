"""Tiny real things for tests: a labelled data set, a base, experts near it. Everything follows from a seed."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from symerge_dense.datasets.base import DenseDataset
from symerge_dense.models.backbone import TimmBackbone
from symerge_dense.models.heads.native import MultiScale
from symerge_dense.models.multi_task import MultiTaskModel, assemble
from symerge_dense.tasks.depth import Depth
from symerge_dense.tasks.normals import Normals
from symerge_dense.tasks.segmentation import Segmentation

SIZE = (32, 48)
CNN = {"name": "resnet10t", "channels": (8, 16, 24, 32), "stem_width": 8}
VIT = {"name": "vit_tiny_patch16_224", "img_size": SIZE, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}
PREPROCESSING = {"mean": (127.0, 127.0, 127.0), "std": (60.0, 60.0, 60.0)}


class TinySet(DenseDataset):
    """Colour bands with a class, a depth and a normal each, so that every task can be learnt from colour."""

    DEFAULT_SIZE = SIZE
    serves = frozenset({"segmentation", "depth", "normals"})
    targets_read: ClassVar[list] = []  # of all instances: a copy made on the way to a loader counts too

    def __init__(self, tasks, count=12, split="train", **options):
        super().__init__(tasks, **options)
        self.count, self.split = count, split

    def __len__(self):
        return self.count

    def _bands(self, index):
        rng = np.random.default_rng((sum(map(ord, self.split)), index))
        return np.repeat(rng.integers(0, 4, size=(4, 6)), 8, axis=0).repeat(8, axis=1)

    def image(self, index):
        noise = np.random.default_rng(index).integers(0, 20, size=(*SIZE, 3))
        return (self._bands(index)[..., None] * [50, 30, 10] + noise).astype(np.uint8)

    def target(self, index, name):
        self.targets_read.append((self.split, index, name))
        bands = self._bands(index)
        if name == "segmentation":
            return bands.astype(np.int64)
        if name == "depth":
            return (bands + 1).astype(np.float32)
        angle = bands.astype(np.float32) / 4
        return np.stack([np.sin(angle), -np.cos(angle), np.zeros_like(angle)], -1)


def tasks():
    return {"segmentation": Segmentation(classes=4), "depth": Depth(), "normals": Normals()}


def backbone(spec=CNN, seed=0):
    torch.manual_seed(seed)
    return TimmBackbone(**spec)


def expert(name, base, seed, noise=0.02):
    """A one-task model near ``base``: weights moved by noise, BatchNorm statistics of its own."""
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


def family(spec=CNN, noise=0.02):
    """(base backbone, {task: expert}, assembled multi-task model with base weights)."""
    base = backbone(spec)
    experts = {name: expert(name, base, seed, noise) for seed, name in enumerate(tasks(), start=1)}
    return base, experts, assemble(base, experts)
