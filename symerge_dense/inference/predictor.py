"""``Predictor``: images in, arrays in each task's units out, at the images' own size.

Shape legend: N images, C channels of a task, H x W an image's own size, h x w the size at which the model is asked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from symerge_dense.datasets.image_files import Pixels
from symerge_dense.inference.arrays import Prediction, as_array, enlarged, nearest
from symerge_dense.inference.backend import Backend, open_backend
from symerge_dense.inference.image_inputs import (
    ImageInput,
    Size,
    checked_size,
    like_learned,
    several,
    to_batch,
    to_pixels,
)
from symerge_dense.inference.pictures import draw_overlay, draw_panel
from symerge_dense.inference.views import mirrored_too, tiled
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.registry import did_you_mean
from symerge_dense.tasks.base import DenseTask

Images = list[Any] | tuple[Any, ...]
TILE = (512, 512)  # where the model does not say what size it learned on
STEPS = (32, 32)


class Predictor:
    """A model in use: ``predictor(image)`` gives {task: array}, one backbone pass for all tasks.

    Arrays have the image's own size H x W. Class maps are integer ids (H,W); numbers of one channel, such as depth in
    metres, are float32 (H,W); several channels, such as unit normals, are float32 (H,W,C). ``tasks[name].unit`` names
    the unit.

    An image is a path, a PIL image, an array (H,W,3) or a tensor (3,H,W); a list of images, an array (N,H,W,3) or a
    tensor (N,3,H,W) gives a list of predictions. Arrays and tensors follow one rule: uint8 or float in 0..255 (floats
    in 0..1 are refused), one channel is grey, a fourth is transparency, which is laid over white as in files.

    Args:
        model: a model's file (``.safetensors``, or ``.onnx`` as ``symerge export`` writes it), a folder of the Hub, a
            MultiTaskModel, or another backend.
        device: where it runs, for example 'cuda'; None takes the best one.
        size: (H,W) at which the model is asked: every image is resized to it. 'native': each image's own size. None:
            images keep their aspect and get the area of the images that the model learned on, where its file says that,
            else their own size.
        batch_size: images, or tiles, per pass; images of one size share a pass.
        tile: True, a side or (H,W): images are asked in overlapping tiles of this size, at their own size (or at
            ``size``), and blended by each task's average. True takes the size that the model learned on.
        flip: average with the prediction of the mirrored image.
        tasks: the wanted ones; None takes all.
        amp: mixed precision; results differ a little.

    Raises:
        ValueError: the model cannot be read or lacks a task, the device is not there, or an option is out of range.

    >>> model = MultiTaskModel({"name": "resnet18"}, {"depth": {"type": "Linear"}}, {"depth": {"type": "depth"}})
    >>> predictor = Predictor(model, device="cpu")
    >>> prediction = predictor(np.zeros((48, 64, 3), np.uint8))
    >>> prediction["depth"].shape, prediction["depth"].dtype, predictor.tasks["depth"].unit
    ((48, 64), dtype('float32'), 'm')
    """

    def __init__(
        self,
        model: str | Path | MultiTaskModel | Backend,
        device: str | torch.device | None = None,
        size: Sequence[int] | Literal["native"] | None = None,
        batch_size: int = 1,
        tile: bool | int | Sequence[int] | None = None,
        flip: bool = False,
        tasks: Collection[str] | None = None,
        amp: bool = False,
    ) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size={batch_size!r}: give a whole number of images, at least 1.")
        self.size = checked_size(size)
        self.backend = open_backend(model, device, tasks, amp)
        self.tasks: dict[str, DenseTask] = self.backend.tasks
        self.batch_size = batch_size
        self.record: Mapping[str, Any] = getattr(self.backend, "record", {}) or {}
        self.learned: Size | None = _pair(self.record.get("image_size"))
        self.tile = self._tile(tile)
        self.flip = flip
        self._check(flip)
        self._run = mirrored_too(self.backend, self.tasks) if flip else self.backend

    def _tile(self, tile: bool | int | Sequence[int] | None) -> Size | None:
        if tile is None or tile is False:
            return None
        fixed = self.backend.size
        if tile is True:
            return fixed or self.learned or TILE
        checked = checked_size((tile, tile) if isinstance(tile, int) else tile)
        if not isinstance(checked, tuple) or min(checked) < 8:
            raise ValueError(f"tile={tile!r}: give True, or the side or (height, width) of a tile, at least 8 pixels.")
        if fixed is not None and checked != fixed:
            raise ValueError(f"tile={tile!r}: this model's file takes images of {fixed} alone; give tile=True.")
        return checked

    def _check(self, flip: bool) -> None:
        fixed = self.backend.size
        if fixed is not None and self.tile is None and self.size not in (None, fixed):
            raise ValueError(
                f"size={self.size!r}: this model's file takes images of {fixed} alone; leave size out, give tile=True, "
                "or export it with a dynamic size."
            )
        if getattr(self.backend, "decided", False) and (flip or self.tile):
            raise ValueError(
                "this model's file gives decisions, which cannot be averaged; leave out flip and tile, or export it "
                "with raw outputs."
            )
        whole = [name for name, task in self.tasks.items() if task.image_level]
        if self.tile and whole:
            raise ValueError(
                f"tile={self.tile}: {', '.join(whole)} is a task of the whole image, which no tile shows; leave out "
                f"tile, or name other tasks, tasks={[name for name in self.tasks if name not in whole]}."
            )

    # -- predicting -------------------------------------------------------------------------------------------------
    @overload
    def __call__(self, image: ImageInput) -> Prediction: ...

    @overload
    def __call__(self, image: Images) -> list[Prediction]: ...

    def __call__(self, image: ImageInput | Images) -> Prediction | list[Prediction]:
        """Predictions of an image, or of each of a list of them.

        Args:
            image: a path, a PIL image, an array (H,W,3) RGB or (H,W) grey, or a tensor (3,H,W); or a list of them, of
                any sizes; or a batch, an array (N,H,W,3) or a tensor (N,3,H,W).

        Returns:
            {task: array} at the image's own size; for a list or a batch, a list of them.

        Raises:
            ValueError: an image cannot be read, or the network does not take its size.
        """
        images = several(image)
        if images is not None:
            return self._predict([to_pixels(one) for one in images])
        return self._predict([to_pixels(image)])[0]  # type: ignore[arg-type]

    def stream(self, images: Iterable[ImageInput]) -> Iterator[Prediction]:
        """Predictions one after the other, ``batch_size`` images at a time: for videos and endless sources.

        Args:
            images: as for a call.
        """
        waiting: list[Pixels] = []
        for image in images:
            waiting.append(to_pixels(image))
            if len(waiting) == self.batch_size:
                yield from self._predict(waiting)
                waiting = []
        yield from self._predict(waiting)

    def working_size(self, height: int, width: int) -> Size:
        """The size (h,w) at which the model is asked about an image of H x W; of all tiles together where it is tiled.

        Args:
            height: of the image.
            width: of the image.
        """
        if isinstance(self.size, tuple):
            return self.size
        if self.tile is not None:
            smallest = self.backend.size or (1, 1)
            return max(height, smallest[0]), max(width, smallest[1])
        if self.backend.size is not None:
            return self.backend.size
        if self.size == "native" or self.learned is None:
            return height, width
        return like_learned((height, width), self.learned, getattr(self.backend, "steps", STEPS))

    def _predict(self, images: Sequence[Pixels]) -> list[Prediction]:
        found: dict[int, Prediction] = {}
        groups: dict[Size, list[int]] = {}
        for index, pixels in enumerate(images):
            groups.setdefault(self.working_size(*pixels.shape[:2]), []).append(index)
        with torch.inference_mode():
            for size, members in groups.items():
                if self.tile is not None and (size[0] > self.tile[0] or size[1] > self.tile[1]):
                    found |= {index: self._tiled(images[index], size, self.tile) for index in members}
                    continue
                for first in range(0, len(members), self.batch_size):
                    chunk = members[first : first + self.batch_size]
                    outputs = self._run(torch.cat([to_batch(images[index], size) for index in chunk]))
                    for row, index in enumerate(chunk):
                        own = images[index].shape[:2]
                        found[index] = {
                            name: self._decided(name, outputs[name][row : row + 1], own) for name in self.tasks
                        }
        return [found[index] for index in range(len(images))]

    def _tiled(self, pixels: Pixels, size: Size, tile: Size) -> Prediction:
        bands: dict[str, list[NDArray[Any]]] = {name: [] for name in self.tasks}
        resized = size != pixels.shape[:2]  # then rows of the image are no rows of the bands
        whole: dict[str, list[Tensor]] = {name: [] for name in self.tasks}
        for outputs in tiled(self._run, to_batch(pixels, size), tile, self.tasks, self.batch_size):
            for name, output in outputs.items():
                if resized:
                    whole[name].append(output)
                else:
                    bands[name].append(self._decided(name, output, output.shape[-2:]))
        if resized:
            return {name: self._decided(name, torch.cat(rows, -2), pixels.shape[:2]) for name, rows in whole.items()}
        return {name: np.concatenate(rows) for name, rows in bands.items()}

    def _decided(self, name: str, output: Tensor, own: Sequence[int]) -> NDArray[Any]:
        """The array of one image: enlarged, decided, in the layout that is promised."""
        task = self.tasks[name]
        if getattr(self.backend, "decided", False):
            return as_array(task, nearest(output, own))
        rows = [as_array(task, task.decide(part)) for part in enlarged(output.float(), own)]
        return rows[0] if len(rows) == 1 else np.concatenate(rows)

    # -- looking ----------------------------------------------------------------------------------------------------
    def overlay(self, image: ImageInput, task: str, alpha: float = 0.6, legend: bool = False) -> Pixels:
        """An image with a task's prediction laid over it in colours.

        Args:
            image: as for a call.
            task: which prediction.
            alpha: how much of the colours, 0..1.
            legend: put the meaning of the colours beneath.

        Returns:
            uint8 (H,W,3) RGB; with the legend, higher.

        Raises:
            ValueError: the model has no such task, or ``alpha`` is out of range.
        """
        if task not in self.tasks:
            raise ValueError(did_you_mean(task, self.tasks, "task of this model"))
        pixels = to_pixels(image)
        return draw_overlay(pixels, self.tasks[task], self._predict([pixels])[0][task], alpha, legend)

    def panel(self, image: ImageInput) -> Pixels:
        """An image and the predictions of all tasks side by side, with titles, legends and scales.

        Args:
            image: as for a call.

        Returns:
            uint8 RGB.
        """
        pixels = to_pixels(image)
        return draw_panel(pixels, self.tasks, self._predict([pixels])[0])

    def show(self, image: ImageInput) -> None:
        """Show the panel of an image: in a notebook beneath the cell, elsewhere in a window of matplotlib.

        Args:
            image: as for a call.
        """
        import matplotlib.pyplot as plt

        picture = self.panel(image)
        figure, axes = plt.subplots(figsize=(picture.shape[1] / 100, picture.shape[0] / 100), dpi=100)
        figure.subplots_adjust(0, 0, 1, 1)
        axes.imshow(picture)
        axes.set_axis_off()
        plt.show()


def _pair(size: Any) -> Size | None:
    """The size in a record, which is a file's and may be anything."""
    try:
        checked = checked_size(size)
    except ValueError:
        return None
    return checked if isinstance(checked, tuple) else None
