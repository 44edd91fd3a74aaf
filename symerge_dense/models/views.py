"""A model's answer averaged over several views of an image: mirrored, resized, moved by a few pixels.

Every view is mapped back to the pixels of the plain image's raw output, its values are changed back as the task says,
and the task averages them by its own rule. Averages of this kind improve dense predictions without any training:
multi-scale and mirrored testing of segmentation networks (Chen et al. 2018, arXiv 1802.02611), equivariant averaging of
depth and normals (arXiv 2309.16646).

Shape legend: N images, C channels of a task, H x W image size, h x w the size of a raw output.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symerge_dense.models.backbone import TimmBackbone
from symerge_dense.models.image_sizes import Size, padded
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.registry import did_you_mean
from symerge_dense.tasks.base import DenseTask

Averages = dict[str, tuple[Tensor, Tensor]]
SCALES = (0.25, 4.0)


class View(NamedTuple):
    """One view of an image.

    Args:
        mirrored: whether it is mirrored horizontally.
        scale: by which it is enlarged.
        shift: pixels by which it is then moved to the right and down.
    """

    mirrored: bool = False
    scale: float = 1.0
    shift: int = 0


@dataclass(frozen=True)
class Views:
    """The views of an image that a model is asked for: every scale, plain and mirrored, in place and moved.

    Args:
        flip: whether mirrored views belong to them.
        scales: by which the image is enlarged, 0.25 to 4; 1.0 is one of them.
        shift: pixels by which further views are moved to the right and down, half a patch or stride; 0 for none.

    Raises:
        ValueError: a value is out of range, or there is no view but the plain one.

    >>> views = Views(flip=True, scales=(1.0, 1.5))
    >>> len(views.all), views.all[:2]
    (4, [View(mirrored=False, scale=1.0, shift=0), View(mirrored=True, scale=1.0, shift=0)])
    >>> str(views)
    '4 views'
    """

    flip: bool = True
    scales: tuple[float, ...] = (1.0,)
    shift: int = 0

    def __post_init__(self) -> None:
        given, (low, high) = self.scales, SCALES
        scales = tuple(given) if isinstance(given, (list, tuple)) else (given,)
        numbers = all(isinstance(scale, (int, float)) and not isinstance(scale, bool) for scale in scales)
        if not numbers or not all(low <= scale <= high for scale in scales) or 1 not in scales:
            raise ValueError(
                f"views: scales={given!r}: give numbers from {low:g} to {high:g}, 1.0 among them: the labels have the "
                "pixels of that view. For instance scales=(0.75, 1.0, 1.25)."
            )
        if type(self.shift) is not int or self.shift < 0:
            raise ValueError(f"views: shift={self.shift!r} must be a whole number of pixels >= 0.")
        if type(self.flip) is not bool:
            raise ValueError(f"views: flip={self.flip!r} must be True or False.")
        object.__setattr__(self, "scales", tuple(dict.fromkeys(map(float, scales))))
        if len(self.all) == 1:
            raise ValueError("views: there is no view but the plain one; set flip=True, or views=None for one view.")

    @classmethod
    def of(cls, given: Mapping[str, Any] | Views | None) -> Views | None:
        """Views from a config's value.

        Args:
            given: the constructor's arguments by name; None for no further views.

        Raises:
            ValueError: it is no mapping, has an unknown key, or the constructor refuses a value.
        """
        if given is None or isinstance(given, Views):
            return given
        if not isinstance(given, Mapping):
            raise ValueError(f"views={given!r}: give dict(flip=True, scales=(1.0,), shift=0) or some of it, or None.")
        known = [field.name for field in dataclasses.fields(cls)]
        for name in given:
            if name not in known:
                raise ValueError(f"views: {did_you_mean(str(name), known, 'key')}")
        return cls(**given)

    @property
    def all(self) -> list[View]:
        """Every view; the first is the plain image."""
        moved, mirrored = ((0, self.shift) if self.shift else (0,)), ((False, True) if self.flip else (False,))
        scales = sorted(self.scales, key=lambda scale: scale != 1)
        return [View(turn, scale, shift) for scale, shift, turn in itertools.product(scales, moved, mirrored)]

    @property
    def spec(self) -> dict[str, Any]:
        """Plain values that ``of`` takes."""
        return {"flip": self.flip, "scales": list(self.scales), "shift": self.shift}

    def __str__(self) -> str:
        return f"{len(self.all)} views"


# -- averages ---------------------------------------------------------------------------------------------------------
def average_of_views(
    model: MultiTaskModel, image: Tensor, views: Views, only: Collection[str] | None = None
) -> Averages:
    """Raw outputs averaged over several views of the same images, one pass of the model per view.

    Args:
        model: in evaluation mode.
        image: (N,3,H,W), RGB in 0..255.
        views: that are averaged.
        only: the wanted tasks; None for all.

    Returns:
        {task: (raw output (N,C,h,w), variance over the views (N,h,w))}, float32, of the pixels that the model's raw
        output of the plain image has.

    Raises:
        ValueError: the network does not take the size of a view.
    """
    size = model.backbone.padded_size(*image.shape[-2:])
    frame = padded(image, size)
    plain: dict[str, Tensor] = model(frame, mode="tensor", only=only)
    outputs = {name: [output.float()] for name, output in plain.items()}
    for view in views.all[1:]:
        warp = _Warp(view, size, model)
        answers = model(warp.image(frame), mode="tensor", only=only)
        for name, seen in outputs.items():
            output, task = warp.back(answers[name].float(), seen[0]), model.tasks[name]
            output = task.mirror_output(output) if view.mirrored else output
            seen.append(output if view.scale == 1 else task.rescale_output(output, view.scale, seen[0]))
    return {name: model.tasks[name].average(seen) for name, seen in outputs.items()}


class ViewsModel(nn.Module):
    """A model that answers with the average over several views. It can be measured and asked, not trained.

    Args:
        model: that is asked.
        views: that are averaged.
    """

    def __init__(self, model: MultiTaskModel, views: Views) -> None:
        super().__init__()
        self.model, self.views = model, views

    @property
    def tasks(self) -> dict[str, DenseTask]:
        """The model's tasks by name."""
        return self.model.tasks

    def forward(self, image: Tensor, mode: str = "tensor", only: Collection[str] | None = None) -> Any:
        """As MultiTaskModel's.

        Args:
            image: (N,3,H,W), RGB in 0..255.
            mode: 'tensor' or 'predict'.
            only: the wanted tasks; None for all.

        Raises:
            ValueError: another mode, or the network does not take the size of a view.
        """
        if mode not in ("tensor", "predict"):
            raise ValueError(did_you_mean(mode, ("tensor", "predict"), "mode"))
        averages = average_of_views(self.model, image, self.views, only)
        outputs = {name: average for name, (average, _) in averages.items()}
        return outputs if mode == "tensor" else self.model.to_image_size(outputs, image)


# -- geometry ---------------------------------------------------------------------------------------------------------
class _Warp:
    """The way to a view and back.

    Args:
        view: the view.
        frame: (H,W) of the images, padded as the network pads them.
        model: that is asked.
    """

    def __init__(self, view: View, frame: Size, model: MultiTaskModel) -> None:
        self.view, self.frame, self.corners = view, frame, model.align_corners
        self.resized, self.whole = _sizes(view, self.frame, model.backbone)

    def image(self, frame: Tensor) -> Tensor:
        """The view of the padded images (N,3,H,W), with borders repeated so that it has whole patches."""
        seen = frame.flip(-1) if self.view.mirrored else frame
        if self.resized != self.frame:
            seen = F.interpolate(seen.float(), self.resized, mode="bilinear", align_corners=False, antialias=True)
        shift = self.view.shift
        return padded(F.pad(seen, (shift, 0, shift, 0), mode="replicate") if shift else seen, self.whole)

    def back(self, output: Tensor, plain: Tensor) -> Tensor:
        """The view's raw output (N,C,h',w') at the pixels of the plain image's (N,C,h,w), or of its mirror image's."""
        if self.frame == self.resized == self.whole and not self.view.shift and output.shape == plain.shape:
            return output
        rows, columns = (self._places(axis - 2, plain.shape[axis], output.shape[axis]) for axis in (2, 3))
        grid = torch.stack(torch.broadcast_tensors(columns[None, :], rows[:, None]), dim=-1).to(output)
        grid = grid.expand(len(output), -1, -1, -1)
        return F.grid_sample(output, grid, mode="bilinear", padding_mode="border", align_corners=False)

    def _places(self, axis: int, wanted: int, given: int) -> Tensor:
        """Where the ``wanted`` pixels of the plain output lie among the ``given`` ones of the view's, as -1..1.

        A pixel's centre is taken to the frame, from there to the view, and from there to the view's output. Outputs
        cover their images as ``align_corners`` says, which is how the model enlarges them.
        """
        frame, resized, whole = self.frame[axis], self.resized[axis], self.whole[axis]
        index = torch.arange(wanted, dtype=torch.float64)
        pixel = index * (frame - 1) / max(wanted - 1, 1) if self.corners else (index + 0.5) * frame / wanted - 0.5
        seen = (pixel + 0.5) * resized / frame - 0.5 + self.view.shift
        place = seen * (given - 1) / max(whole - 1, 1) if self.corners else (seen + 0.5) * given / whole - 0.5
        return (2 * place + 1) / given - 1


def _sizes(view: View, frame: Size, backbone: TimmBackbone) -> tuple[Size, Size]:
    """(H,W) of the resized images, and of the view: with its shift, and padded to whole patches or strides."""
    resized = max(round(frame[0] * view.scale), 1), max(round(frame[1] * view.scale), 1)
    if resized == frame and not view.shift:
        return frame, frame
    steps = backbone.steps
    down, across = (-(-(side + view.shift) // step) * step for side, step in zip(resized, steps, strict=True))
    return resized, backbone.padded_size(down, across)


# -- checks before any work -------------------------------------------------------------------------------------------
def check_views(views: Views, backbone: TimmBackbone, tasks: Mapping[str, DenseTask], size: Size) -> None:
    """Find what would keep a network and its tasks from being asked for several views.

    Args:
        views: that are averaged.
        backbone: of the network; it may have no memory for its weights.
        tasks: {name: task}.
        size: (H,W) of the images.

    Raises:
        ValueError: a task has no average of several views, or the network does not take the size of one.
    """
    for name, task in tasks.items():
        _check_task(views, name, task)
    frame = backbone.padded_size(*size)
    for view in views.all:
        try:
            _sizes(view, frame, backbone)
        except ValueError as error:
            raise ValueError(
                f"views: {view.scale:g} times the image, moved by {view.shift} pixels: {error} Or keep the image's "
                "size in all views: views=dict(flip=True)."
            ) from error


def _check_task(views: Views, name: str, task: DenseTask) -> None:
    output = torch.full((1, task.channels, 4, 4), 0.5)
    try:
        other = task.mirror_output(output) if views.flip else output
        mean, variance = task.average([output, task.rescale_output(other, max(views.scales), output)])
        if mean.shape != output.shape or variance.shape != (1, 4, 4):
            raise ValueError(f"average gives {tuple(mean.shape)} and {tuple(variance.shape)}")
    except Exception as error:  # whatever a task of somebody else's raises
        raise ValueError(
            f"views: task {name!r} ({type(task).__name__}) has no average of several views: "
            f"{str(error) or type(error).__name__}. Take labels of one view, views=None, or give the task the methods "
            "`average`, `mirror_output` and `rescale_output`."
        ) from error
