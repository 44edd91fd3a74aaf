"""Your own photos with label files: one pattern for the images, one for the labels of each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from symerge_dense.datasets.base import Array, DenseDataset, source_of
from symerge_dense.datasets.folder_files import FoundImage, find, names_of_split
from symerge_dense.datasets.image_files import image_size, read_image, size_if_whole
from symerge_dense.datasets.label_files import read_label
from symerge_dense.datasets.label_values import LabelSpec, class_numbers, label_spec, quantity
from symerge_dense.datasets.transforms import Augment, TargetRule
from symerge_dense.registry import DATASETS, TASKS

SHOWN = 5  # faults that a message lists


@DATASETS.register_module()
class FolderDataset(DenseDataset):
    """Images and label files of any common format, paired by name.

    ``FolderDataset("data", "photos/*.jpg", dict(segmentation="masks/{}.png", depth=dict(path="depth/{}.png",
    scale=1e-3)))`` pairs photos/0001.jpg with masks/0001.png and depth/0001.png. Patterns are relative to ``root``;
    ``{}`` is what the wildcards matched, without the image's suffix (with ``**``, folders included), and ``{split}``
    the split. What labels are read from: ``label_files.read_label``; what their numbers mean: ``LabelSpec``.

    A class map holds class numbers (palette indices, not colours); 255 is no label. Whole numbers of any other task
    need a ``scale``. A label may have another resolution than its image, and is then resized as its task allows, but
    not another shape of frame. Labels are opened for the tasks that are asked for, images alone otherwise.

    Args:
        root: folder that the patterns start from.
        images: pattern of the image files, with ``*`` and ``**``, or a folder.
        targets: {task: pattern of the label files, or a dict of ``LabelSpec``'s arguments}.
        split: which images. None: all. A name: the folder put in place of '{split}' if a pattern has it, else the
            images listed in ``root/NAME``, ``root/splits/NAME.txt`` or ``root/NAME.txt``, one name a line. Two shares,
            ('0%', '80%') or '0%:80%': a contiguous part of the sorted images, so that neighbouring frames of a video
            stay together.
        tasks: as in ``DenseDataset``.
        augment: as in ``DenseDataset``.
        size: as in ``DenseDataset``.
        seed: as in ``DenseDataset``.

    Raises:
        ValueError: nothing matches, a label file is missing, a name of the split is unknown, or an argument is wrong;
            on reading, a file is damaged or does not fit its task (saying which, how, and what to do).
    """

    serves: ClassVar[frozenset[str]] = frozenset()  # of an instance: the keys of ``targets``

    def __init__(
        self,
        root: str | Path,
        images: str = "images/*",
        targets: Mapping[str, str | Mapping[str, Any] | LabelSpec] | None = None,
        split: str | Sequence[str] | None = None,
        tasks: Mapping[str, TargetRule | dict[str, Any]] | None = None,
        augment: Augment | dict[str, Any] | None = None,
        size: tuple[int, int] | None = None,
        seed: int = 0,
    ) -> None:
        if not isinstance(images, str) or not isinstance(targets or {}, Mapping):
            raise ValueError(
                f"images={images!r}, targets={targets!r}: give a pattern such as 'photos/*.jpg', and a dict "
                "{task: pattern or dict}."
            )
        self.specs = {name: label_spec(name, spec) for name, spec in (targets or {}).items()}
        vars(self)["serves"] = frozenset(self.specs)
        super().__init__(tasks, augment, size, seed)
        self.root = Path(root)
        by_folder = any("{split}" in pattern for pattern in (images, *(spec.path for spec in self.specs.values())))
        if by_folder and not isinstance(split, str):
            raise ValueError(f"the patterns have {{split}}, but split={split!r}; give it the name of a folder.")
        self.folder = str(split) if by_folder else ""
        found = self._without_labels(find(self.root, images.replace("{split}", self.folder)))
        self.found = found if split is None or by_folder else names_of_split(self.root, found, split)
        self.classes = getattr(self.tasks.get("segmentation"), "class_names", None)
        self._rules = dict[str, Any]()  # of targets without a task here
        self._last: tuple[int, tuple[int, int]] | None = None  # the image seen last, and its size
        if self.tasks:
            self._check_pairs()

    def __len__(self) -> int:
        return len(self.found)

    def _without_labels(self, found: list[FoundImage]) -> list[FoundImage]:
        """Images that are not the label file of another image in the same folder, such as 0001_depth.png."""
        owners = {self._file(image, name): image for image in found for name in self.specs}
        return [image for image in found if owners.get(image.path, image) is image]

    def _file(self, image: FoundImage, name: str) -> Path:
        return self.root / image.fill(self.specs[name].path.replace("{split}", self.folder), f"targets[{name!r}]")

    def _check_pairs(self) -> None:
        """Every image has its label files, and none two images share."""
        owners: dict[str, FoundImage] = {}
        for image in self.found:
            if (other := owners.setdefault(image.name, image)) is not image:
                raise ValueError(f"{other.path} and {image.path} have one name, {image.name!r}; rename one of them.")
        for name in sorted({source_of(rule) for rule in self.tasks.values()}):
            missing = [image for image in self.found if not self._file(image, name).is_file()]
            if missing:
                lines = [f"{image.path} has no {self._file(image, name)}" for image in missing[:SHOWN]]
                more = [f"... and {len(missing) - SHOWN} more"] if len(missing) > SHOWN else []
                raise ValueError(
                    f"{len(missing)} of {len(self.found)} images have no label file for {name!r}; add the files, "
                    f"correct targets[{name!r}], or leave the images out by split=:\n" + "\n".join([*lines, *more])
                )

    def image(self, index: int) -> Array:
        """Image (H,W,3) uint8 RGB, as ``read_image`` gives it.

        Args:
            index: image number, from 0.
        """
        image = read_image(self.found[index].path)
        self._last = index, (image.shape[0], image.shape[1])
        return image

    def image_name(self, index: int) -> str:
        """Path of the image.

        Args:
            index: image number, from 0.
        """
        return str(self.found[index].path)

    def image_size(self, index: int) -> tuple[int, int]:
        """(H, W) of the image; its file is looked over, and decoded only where it is neither JPEG nor PNG.

        Args:
            index: image number, from 0.
        """
        return size_if_whole(self.found[index].path)

    def target_name(self, index: int, name: str) -> str:
        """Path of the label file.

        Args:
            index: image number, from 0.
            name: name of a requested task.
        """
        return str(self._file(self.found[index], source_of(self.tasks[name])))

    def target_size(self, index: int) -> tuple[int, int]:
        """(H, W) that labels are brought to: ``size``, or else that of the image.

        Args:
            index: image number, from 0.
        """
        return self.size or self._frame(index)

    def _frame(self, index: int) -> tuple[int, int]:
        """(H, W) of the image; its file is opened only if another image was the last one: a sample asks per task."""
        last = self._last
        if last is None or last[0] != index:
            self._last = last = index, image_size(self.found[index].path)
        return last[1]

    def _rule(self, name: str) -> Any:
        """The task of a target, built once; None for a target that only other tasks are made from."""
        if name in self.tasks:
            return self.tasks[name]
        if name not in self._rules:
            self._rules[name] = TASKS.get(name)() if name in TASKS else None
        return self._rules[name]

    def target(self, index: int, name: str) -> Array:
        """Label at its own resolution: int64 (H,W) class numbers, else float32 (H,W) or (H,W,C).

        Args:
            index: image number, from 0.
            name: one of ``serves``.

        Raises:
            ValueError: the file does not fit the task or the image.
        """
        image, spec = self.found[index], self.specs[name]
        path = self._file(image, name)
        stored = read_label(path, spec.key and image.fill(spec.key, f"targets[{name!r}].key"))
        rule = self._rule(name)
        if rule is None:
            ids = stored.dtype.kind in "biu" and spec.scale is None
            channels = 1 if stored.ndim == 2 else stored.shape[2]
            rule = SimpleNamespace(name=name, class_map=ids, channels=channels, invalid_value=float("nan"))
        values = (
            class_numbers(stored, spec, path)
            if getattr(rule, "class_map", False)
            else quantity(stored, spec, path, rule)
        )
        self._check_frame(index, path, (values.shape[0], values.shape[1]))
        return values

    def _check_frame(self, index: int, label: Path, size: tuple[int, int]) -> None:
        (height, width), frame = size, self._frame(index)
        if _same_frame(size, frame):
            return
        turned = "the photo is turned by its EXIF orientation and the label is not: turn the label"
        remedy = turned if _same_frame((width, height), frame) else "cut or export the label to the frame of its image"
        raise ValueError(
            f"{label} is {height} x {width} pixels (height x width), but its image {self.image_name(index)} is "
            f"{frame[0]} x {frame[1]}; {remedy}."
        )


def _same_frame(size: tuple[int, int], frame: tuple[int, int]) -> bool:
    """Whether sizes have one ratio of the sides, to within a pixel."""
    return abs(size[0] - frame[0] * size[1] / frame[1]) <= 1 or abs(size[1] - frame[1] * size[0] / frame[0]) <= 1
