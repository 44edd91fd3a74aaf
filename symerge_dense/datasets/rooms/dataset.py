"""Rooms: rendered indoor scenes with perfect labels for many tasks, rendered at first use and kept."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from mmengine.dist import barrier, get_rank, is_distributed
from numpy.typing import NDArray

from symerge_dense.datasets.base import Array, DenseDataset, source_of
from symerge_dense.datasets.checksums import is_changed
from symerge_dense.datasets.class_names import NYU13
from symerge_dense.datasets.rooms.labels import LABELS
from symerge_dense.datasets.rooms.render import FIELDS, FURTHER, SPLITS, field_shape, render_fields, render_set
from symerge_dense.datasets.rooms.scene import focal_length
from symerge_dense.datasets.rooms.shift import Shift
from symerge_dense.datasets.transforms import Augment, TargetRule
from symerge_dense.fileio import mapped_array
from symerge_dense.progress import say
from symerge_dense.registry import DATASETS, did_you_mean

VERSION = 1  # of the frames: raise it with every change that alters a pixel
SIZE = (96, 128)
COUNTS = {"train": 450, "val": 200, "test": 200}


@DATASETS.register_module()
class Rooms(DenseDataset):
    """Ray-cast rooms in the 13 classes of NYUv2, with labels for some twenty dense tasks (``serves``).

    The image is albedo times shading plus sensor noise. Depth is along the optical axis in metres; normals have
    NYUv2's channels (x right, z forward, y up); edges are the boundaries of things (two walls count as two). Every
    pixel is valid, but the room's own faces have no centre of a thing. The camera's horizontal field of view is 60
    degrees (``intrinsics``). Functions in ``labels`` say what the other labels are.

    Frames are rendered at first use and kept in ``root/v<VERSION>-<H>x<W>-s<scene_seed>/<split>-<count>/<field>.npy``.
    Labels that need more of the scenes than these fields render them again when they are first asked for. So do files
    that are lost or, by their shape or checksum, damaged.

    Args:
        split: 'train', 'val' or 'test'; their scenes are drawn independently.
        root: folder where frames are kept.
        count: number of frames, default 450 / 200 / 200.
        tasks: as in ``DenseDataset``.
        augment: as in ``DenseDataset``.
        size: (H, W) to render at, default (96, 128).
        seed: of the augmentation.
        scene_seed: of the scenes.
        shift: of camera and light, a ``Shift`` or its arguments, such as dict(pitch=-20): the same scenes, seen in
            another way, kept in a folder of their own. None changes nothing.

    Raises:
        ValueError: the split is unknown, ``count`` is below 1, or the shift is wrong.
    """

    DEFAULT_SIZE: ClassVar[tuple[int, int]] = SIZE
    serves: ClassVar[frozenset[str]] = frozenset(LABELS)
    classes = NYU13

    def __init__(
        self,
        split: Literal["train", "val", "test"] = "train",
        root: str | Path = "data/rooms",
        count: int | None = None,
        tasks: Mapping[str, TargetRule | dict[str, Any]] | None = None,
        augment: Augment | dict[str, Any] | None = None,
        size: tuple[int, int] | None = None,
        seed: int = 0,
        scene_seed: int = 0,
        shift: Shift | Mapping[str, float] | None = None,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split={split!r}: rooms have {', '.join(map(repr, SPLITS))}.")
        super().__init__(tasks, augment, size or SIZE, seed)
        self.frame: tuple[int, int] = self.size or SIZE
        self.count = COUNTS[split] if count is None else count
        if self.count < 1:
            raise ValueError(f"count={count}: must be at least 1, or None for {COUNTS[split]}.")
        self.shift = shift if isinstance(shift, Shift) else _shift(shift)
        name = "-".join(filter(None, [f"v{VERSION}-{self.frame[0]}x{self.frame[1]}-s{scene_seed}", self.shift.name]))
        self.folder = _kept(Path(root) / name, split, self.count, self.frame, scene_seed, self.shift)
        self._open: dict[str, Array] = {}
        wanted = {"image"}.union(*(LABELS[source_of(rule)][0] for rule in self.tasks.values()))
        _complete(self.folder, wanted, split, self.frame, scene_seed, self.shift)
        for field in sorted(wanted):
            self._field(field)

    def __len__(self) -> int:
        return self.count

    def __getstate__(self) -> dict[str, Any]:
        """State without the memory maps: a worker process opens its own instead of receiving a copy of the data."""
        return {**self.__dict__, "_open": {}}

    def _field(self, name: str) -> Array:
        if name not in self._open:
            self._open[name] = _mapped(self.folder, name, self.frame)
        return self._open[name]

    @property
    def intrinsics(self) -> NDArray[np.float64]:
        """Camera matrix (3,3) in pixels, where the first pixel's centre is at 0.5."""
        focal = focal_length(self.frame[1])
        return np.array([[focal, 0, self.frame[1] / 2], [0, focal, self.frame[0] / 2], [0, 0, 1]])

    def image(self, index: int) -> Array:
        """Image (H,W,3) uint8 RGB.

        Args:
            index: image number, from 0.
        """
        return np.array(self._field("image")[index])

    def image_size(self, index: int) -> tuple[int, int]:
        """(H, W) of every image, the same for all.

        Args:
            index: image number, from 0.
        """
        return self.frame

    def target(self, index: int, name: str) -> Array:
        """Class maps int64 (H,W), numbers float32 (H,W), vectors and colours float32 (H,W,C).

        Args:
            index: image number, from 0.
            name: one of ``serves``.
        """
        fields, label = LABELS[name]
        return np.asarray(label(*(np.array(self._field(field)[index]) for field in fields)))


def _shift(arguments: Mapping[str, float] | None) -> Shift:
    known = vars(Shift())
    if not isinstance(arguments, Mapping | None):
        raise ValueError(f"shift={arguments!r}: give a dict with keys out of {', '.join(known)}, or None.")
    for key in arguments or {}:
        if key not in known:
            raise ValueError(f"shift: {did_you_mean(str(key), known, 'key')}")
    return Shift(**(arguments or {}))


def _kept(parent: Path, split: str, count: int, size: tuple[int, int], seed: int, shift: Shift) -> Path:
    """Folder with at least ``count`` frames; if there is none, one process on every node renders it."""
    if _renders() and _largest_fit(parent, split, count) is None:
        render_set(parent / f"{split}-{count}", split, count, size, seed, shift=shift)
    barrier()
    folder = _largest_fit(parent, split, count)
    if folder is None:
        raise ValueError(f"{parent}: no rendered frames of {split!r}; the processes of a run must share this folder.")
    return folder


def _renders() -> bool:
    """Whether this process renders: one on every node does, and each one where they form no group, as in a study."""
    return not is_distributed() or int(os.environ.get("LOCAL_RANK", get_rank())) == 0


def _complete(folder: Path, wanted: set[str], split: str, size: tuple[int, int], seed: int, shift: Shift) -> None:
    """Render fields of a set, where one is missing or damaged: one process on every node does."""
    if _renders():
        missing = (
            set(FURTHER) if any(not (folder / f"{field}.npy").is_file() for field in wanted & FURTHER.keys()) else set()
        )
        damaged = {field: fault for field in sorted({*wanted} - missing) if (fault := _damage(folder, field, size))}
        for fault in damaged.values():
            say(f"{fault}: it is rendered again.")
        if fields := [*missing, *damaged]:
            render_fields(folder, fields, split, int(folder.name.split("-")[1]), size, seed, shift=shift)
    barrier()


def _damage(folder: Path, field: str, size: tuple[int, int]) -> str:
    """What is wrong with a kept file; empty where nothing is."""
    try:
        _mapped(folder, field, size)
    except ValueError as error:
        return str(error).partition("; delete")[0]
    path = folder / f"{field}.npy"
    return f"{path}: damaged (its checksum is another)" if is_changed(path) else ""


def _largest_fit(parent: Path, split: str, count: int) -> Path | None:
    sets = {
        int(path.name.removeprefix(f"{split}-")): path
        for path in parent.glob(f"{split}-*")
        if path.name.removeprefix(f"{split}-").isdecimal()
    }
    return max(((number, path) for number, path in sets.items() if number >= count), default=(0, None))[1]


def _mapped(folder: Path, field: str, size: tuple[int, int]) -> Array:
    path, remedy = folder / f"{field}.npy", f"delete {folder} and it will be rendered again"
    try:
        array: Array = mapped_array(path, remedy, "damaged")
    except FileNotFoundError:
        raise ValueError(f"{path}: damaged (it is missing); {remedy}.") from None
    expected = field_shape(field, int(folder.name.split("-")[1]), size)
    kind = np.dtype((FIELDS | FURTHER)[field][0])
    if array.shape != expected or array.dtype != kind:
        raise ValueError(f"{path}: damaged (expected {kind} {expected}); {remedy}.")
    return array
