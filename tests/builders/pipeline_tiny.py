"""A tiny main job: its config file, real rooms in a folder of its own, and the command-line tools in this process."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
TASKS = ("segmentation", "depth", "normals")
FRAME = (16, 24)  # of the NYUv2 fixture
ENV = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": str(ROOT)}
CONFIG = """
from symerge_dense.datasets.rooms.dataset import Rooms
from symerge_dense.datasets.transforms import Augment
from symerge_dense.models.heads.native import MultiScale
from symerge_dense.tasks.intrinsic import Albedo
from symerge_dense.tasks.depth import Depth
from symerge_dense.tasks.edges import Edges
from symerge_dense.tasks.normals import Normals
from symerge_dense.tasks.segmentation import Segmentation

tasks = dict(segmentation=dict(type=Segmentation), depth=dict(type=Depth), normals=dict(type=Normals))
data = dict(
    train=dict(type=Rooms, root=ROOMS, split="train", count=8, size=(32, 48), augment=dict(type=Augment, flip=0.5)),
    unlabelled=dict(type=Rooms, root=ROOMS, split="val", count=6, size=(32, 48)),
    test=dict(type=Rooms, root=ROOMS, split="test", count=6, size=(32, 48)),
)
backbone = dict(name="resnet10t", channels=(8, 16, 24, 32), stem_width=8)
head = dict(type=MultiScale, width=8)
preprocessing = dict(mean=(127.0, 127.0, 127.0), std=(60.0, 60.0, 60.0))
base = dict(train=dict(tasks=dict(albedo=dict(type=Albedo), edges=dict(type=Edges)),
                       recipe=dict(epochs=1, batch_size=4)))
experts = dict(folder=EXPERTS, recipe=dict(epochs=1, batch_size=4))
adaptation = dict(rounds=4, batch_size=4, save_every=2, recalibration_images=6, coefficient_lr=3e-2, views=None)
baselines = dict(scales=[0.3])
evaluation = dict(batch_size=3, panels=2)
"""


def write_config(folder, name="tiny.py", more="", rooms=None, experts=None):
    """A config file in ``folder``, with further lines at its end; its rooms and experts are kept in ``folder`` too."""
    path = folder / name
    text = CONFIG.replace("ROOMS", repr(str(rooms or folder / "rooms")))
    path.write_text('"""A tiny run."""\n' + text.replace("EXPERTS", repr(str(experts or folder / "experts"))) + more)
    return path


def tool(name, *arguments):
    """Exit code of ``python tools/NAME ARGUMENTS``, run in this process."""
    before, sys.argv = sys.argv, [name, *map(str, arguments)]
    try:
        runpy.run_path(str(ROOT / "tools" / name), run_name="__main__")
    except SystemExit as end:
        return end.code
    finally:
        sys.argv = before
    raise AssertionError(f"{name} ends without an exit code")


def write_nyuv2(root, counts=None, frame=FRAME):
    """NYUv2 as the .npy packaging has it: float64 images in 0..1, labels -1..12, metres, unit normals."""
    rng = np.random.default_rng(0)
    for split, count in (counts or {"train": 3, "val": 2}).items():
        for index in range(count):
            normal = rng.normal(size=(*frame, 3))
            arrays = {
                "image": rng.integers(0, 256, (*frame, 3)) / 255,
                "label": rng.integers(-1, 13, frame).astype(np.float32),
                "depth": rng.uniform(0.7, 10, (*frame, 1)).astype(np.float32),
                "normal": normal / np.linalg.norm(normal, axis=-1, keepdims=True),
            }
            arrays["depth"][0, 0] = arrays["normal"][0, 0] = 0  # pixels without a measurement
            for part, array in arrays.items():
                folder = Path(root) / split / part
                folder.mkdir(parents=True, exist_ok=True)
                np.save(folder / f"{index}.npy", array)
    return Path(root)


def write_cityscapes(root, count, frame):
    """Cityscapes as MTAN's .npy packaging has it: images in 0..1, labels -1..6, inverse depth in 0..0.5."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for index in range(count):
            arrays = {
                "image": rng.integers(0, 256, (*frame, 3)) / 255,
                "label": rng.integers(-1, 7, frame),
                "depth": rng.uniform(0.0, 0.5, (*frame, 1)),
            }
            for part, array in arrays.items():
                folder = Path(root) / split / part
                folder.mkdir(parents=True, exist_ok=True)
                np.save(folder / f"{index}.npy", array)
