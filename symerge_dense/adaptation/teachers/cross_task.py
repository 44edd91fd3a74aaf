"""Depth and normals teach each other: what one expert knows and the other does not (GeoNet++, arXiv 2012.06980).

Normals that are computed from the depth expert's output are averaged with those of the normals expert, and the result
smooths the depth. Both need the camera. A focal length that is wrong tilts the normals from depth all alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from mmengine.dist import all_reduce
from torch import Tensor

from symerge_dense.adaptation.strong_views import StrongViews
from symerge_dense.adaptation.teacher import Targets, Teacher, build_teacher
from symerge_dense.adaptation.teachers._geometry import depth_from_normals, fused, normals_from_depth
from symerge_dense.datasets.nyuv2.camera import Intrinsics
from symerge_dense.datasets.nyuv2.normals import CANDIDATES, OWN_AXES, NormalAxes, parse_axes, written
from symerge_dense.registry import TEACHERS
from symerge_dense.tasks.base import DenseTask
from symerge_dense.tasks.normals import unit

if TYPE_CHECKING:
    from symerge_dense.adaptation.options import SyMergeOptions
    from symerge_dense.adaptation.student import Student

CLOSE = 0.7  # least mean cosine (45 degrees) of axes that fit
CLEAR = 0.05  # by which the mean cosine of the next must be worse
PROBE = (64, 64)  # size of the images on which strong views are tried
OFF_CENTRE = 0.05  # of the focal length, 3 degrees: how far a mirror may move the principal point


class _Mirrored:
    """The rule of a teacher that knows one camera: a mirror is the one movement that it allows for."""

    moves: ClassVar[frozenset[str]] = frozenset({"mirror"})


@TEACHERS.register_module()
class CrossTask(Teacher):
    """Normals from depth averaged with the normals' own, and depth smoothed along these normals.

    The camera is given by ``fx``, ``fy``, ``cx`` and ``cy`` in pixels, the first pixel's centre at (0, 0), or by the
    horizontal field of view. NYUv2's is ``datasets.nyuv2.camera.RGB_CAMERA`` at size (480, 640); rooms have a ``fov``
    of 60 degrees. Images may be mirrored (``augment``), but not zoomed.

    Args:
        fx: horizontal focal length.
        fy: vertical focal length; None: ``fx``.
        cx: column of the principal point; None: the middle.
        cy: row of the principal point; None: the middle.
        size: (H,W) of the picture that these pixels are of; None: the images as the adaptation sees them.
        fov: horizontal field of view in degrees, in place of the four.
        axes: what the channels of the normals are, as ``normal_axes`` of NYUv2 has it; 'auto' finds them among all 48
            by agreement with the depth on the first batch.
        window: odd number of a head's pixels, at least 3, through which a plane is fitted to depth.
        reach: odd number of pixels, at least 3, from which depth is refined.
        normals_share: factor in [0,1] of the share of normals from depth; 0 leaves the normals alone.
        depth_share: share in [0,1] of the refined depth; 0 leaves depth alone.
        depth: name of the depth task.
        normals: name of the normals task.
        of: the teacher whose depth and normals are used.

    Raises:
        ValueError: the camera is missing, given twice or impossible, or another value is out of range.
    """

    name: ClassVar[str] = "cross_task"
    between_tasks: ClassVar[bool] = True
    found: Tensor  # number of the axes in CANDIDATES; -1 before the first batch

    def __init__(
        self,
        fx: float | None = None,
        fy: float | None = None,
        cx: float | None = None,
        cy: float | None = None,
        size: Sequence[int] | None = None,
        fov: float | None = None,
        axes: str = OWN_AXES,
        window: int = 3,
        reach: int = 9,
        normals_share: float = 0.25,
        depth_share: float = 1.0,
        depth: str = "depth",
        normals: str = "normals",
        of: str | Mapping[str, Any] = "experts",
    ) -> None:
        super().__init__()
        _check_camera(fx, fy, fov, size)
        for option, pixels in (("window", window), ("reach", reach)):
            if not isinstance(pixels, int) or pixels < 3 or pixels % 2 == 0:
                raise ValueError(f"{option}={pixels!r} must be an odd number of pixels, 3 or more.")
        if not (0 <= normals_share <= 1 and 0 <= depth_share <= 1):
            raise ValueError(f"normals_share={normals_share!r}, depth_share={depth_share!r} must lie in [0, 1].")
        self.pixels, self.size, self.fov = (fx, fy, cx, cy), size, fov
        self.axes = None if axes == "auto" else parse_axes(axes)
        self.window, self.reach, self.shares, self.names = window, reach, (normals_share, depth_share), (depth, normals)
        self.of = build_teacher(of)
        self.register_buffer("found", torch.tensor(-1))
        self._angle: Tensor | None = None

    def check(self, tasks: Mapping[str, DenseTask], options: SyMergeOptions) -> None:
        """Check that there are depth and normals, and that the camera stays what it is.

        Args:
            tasks: {task: its rules}.
            options: ``augment`` must not zoom, and ``strong`` must move pixels by a mirror alone.

        Raises:
            ValueError: a task is missing or has other channels, or the camera is moved.
        """
        super().check(tasks, options)
        for option, name, channels in zip(("depth", "normals"), self.names, (1, 3), strict=True):
            if name not in tasks or tasks[name].channels != channels:
                raise ValueError(
                    f"teacher 'cross_task' needs depth and normals; {option}={name!r} is no task of {channels} "
                    f"channel(s) among {', '.join(tasks) or 'none'}; name yours, or take another teacher."
                )
        augment = options.augment or {}
        if any(scale != 1 for scale in augment.get("zoom") or ()) or augment.get("protocol", "default") != "default":
            raise ValueError(
                f"teacher 'cross_task' knows one camera, which adaptation.augment={augment} moves: a zoom takes parts "
                "of the frame; leave zoom and protocol out, or take another teacher."
            )
        if options.strong is not None:
            StrongViews(options.strong, PROBE).check({f"{self.names[1]} with teacher 'cross_task'": _Mirrored()})

    def targets(self, student: Student, image: Tensor, labels: Mapping[str, Tensor]) -> Targets:
        given = self.of.targets(student, image, labels)
        outputs = {**labels, **given.outputs}
        depth, normals = (outputs[name].to(student.device, torch.float32) for name in self.names)
        camera = self.camera(student, image, depth)
        derived = normals_from_depth(depth, camera, self.window)
        axes = self._axes(unit(normals), derived)
        expert = _turned(unit(normals), axes)
        known = derived.square().sum(1) > 0
        self._angle = _mean((expert * derived).sum(1), known).clamp(-1, 1).acos().rad2deg()
        better = fused(expert, derived, self.window, self.shares[0])
        refined = depth_from_normals(depth, better, camera, self.reach)
        changed = {self.names[0]: depth.lerp(refined, self.shares[1]), self.names[1]: _turned_back(better, axes)}
        return Targets({**outputs, **changed}, given.weights)

    def log_scalars(self) -> dict[str, Tensor]:
        """Mean angle between the normals and those from depth, in degrees."""
        own = {} if self._angle is None else {"normals_from_depth_angle": self._angle}
        return {**super().log_scalars(), **own}

    def camera(self, student: Student, image: Tensor, output: Tensor) -> Intrinsics:
        """The camera at the size of a head's output.

        Args:
            student: it may pad the image, and its options may mirror it.
            image: (N,3,H,W).
            output: (N,C,h,w), of the padded image.

        Raises:
            ValueError: images are mirrored, and the principal point lies too far from the middle.
        """
        height, width = image.shape[-2:]
        fx, fy, cx, cy = self.pixels
        of_height, of_width = self.size or (height, width)
        if self.fov is not None:
            fx = of_width / 2 / math.tan(math.radians(self.fov) / 2)
        assert fx is not None, "the constructor checks it"
        whole = Intrinsics(
            fx,
            fx if fy is None else fy,
            (of_width - 1) / 2 if cx is None else cx,
            (of_height - 1) / 2 if cy is None else cy,
        ).scaled(height / of_height, width / of_width)
        padded = student.model.backbone.padded_size(height, width)
        augment, middle = student.options.augment, (padded[1] - 1) / 2
        if augment is not None and augment.get("flip", 0.5):
            if abs(whole.cx - middle) > OFF_CENTRE * whole.fx:
                raise ValueError(
                    f"teacher 'cross_task': the principal point, column {whole.cx:.1f} of {padded[1]}, is too far from "
                    "the middle for mirrored images; correct cx, or set adaptation.augment=None."
                )
            whole = whole._replace(cx=middle)  # of image and mirror image
        return whole.scaled(output.shape[-2] / padded[0], output.shape[-1] / padded[1])

    def _axes(self, normals: Tensor, derived: Tensor) -> NormalAxes:
        """The axes of the normals, judged once; all processes come to one verdict."""
        if self.found < 0:
            products = torch.einsum("nchw,ndhw->cd", derived.double(), normals.double())
            count = (derived.square().sum(1) > 0).sum().double()
            totals = torch.cat([products.flatten(), count[None]])
            all_reduce(totals)
            self.found.fill_(CANDIDATES.index(judge(totals[:9].view(3, 3) / totals[9].clamp(min=1), self.axes)))
        return CANDIDATES[int(self.found)]


def judge(cosines: Tensor, given: NormalAxes | None) -> NormalAxes:
    """The axes of normals, from their agreement with normals from depth.

    Args:
        cosines: (3,3), mean over pixels of component c of the normals from depth times channel d of the normals.
        given: what the axes are said to be; None asks for the best.

    Returns:
        ``given``, or the best.

    Raises:
        ValueError: other axes than ``given`` fit clearly better; or none fits clearly, and none is given.
    """
    fits = [
        sum(sign * float(cosines[row, channel]) for row, (channel, sign) in enumerate(zip(*axes, strict=True)))
        for axes in CANDIDATES
    ]
    (best, axes), (second, _) = sorted(zip(fits, CANDIDATES, strict=True), key=lambda pair: -pair[0])[:2]
    sure = best >= CLOSE and best - second >= CLEAR
    told = f"{written(axes)!r} has a mean cosine of {best:.2f} to the normals from depth, the next {second:.2f}"
    if given is None and not sure:
        raise ValueError(
            f"teacher 'cross_task' cannot find the axes of the normals: {told}; {CLOSE} and a margin of {CLEAR} are "
            "asked for. Give axes, such as 'x,z,y' (right, forward, up), and check the camera."
        )
    if given is not None and sure and axes != given:
        raise ValueError(
            f"teacher 'cross_task': axes={written(given)!r} has {fits[CANDIDATES.index(given)]:.2f}, but {told}. "
            f"Set axes={written(axes)!r}."
        )
    return axes if given is None else given


def _check_camera(fx: float | None, fy: float | None, fov: float | None, size: Sequence[int] | None) -> None:
    if (fx is None) == (fov is None):
        raise ValueError(
            f"teacher 'cross_task' needs the camera, fx={fx!r}, fov={fov!r}: give either fx (and fy, cx, cy) in "
            "pixels, with size=(H,W) of the picture they are of, or the horizontal field of view fov in degrees."
        )
    if (fov is not None and not 0 < fov < 180) or any(value is not None and not value > 0 for value in (fx, fy)):
        raise ValueError(f"fx={fx!r}, fy={fy!r} must be positive pixels, fov={fov!r} degrees between 0 and 180.")
    if size is not None and (len(size) != 2 or not all(side > 0 for side in size)):
        raise ValueError(f"size={size!r} must be (height, width) in pixels, or None.")


def _turned(normals: Tensor, axes: NormalAxes) -> Tensor:
    signs = torch.tensor(axes.signs, dtype=normals.dtype, device=normals.device)
    return normals[:, list(axes.channels)] * signs.view(1, 3, 1, 1)


def _turned_back(normals: Tensor, axes: NormalAxes) -> Tensor:
    stored = torch.empty_like(normals)
    for row, (channel, sign) in enumerate(zip(*axes, strict=True)):
        stored[:, channel] = sign * normals[:, row]
    return stored


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp(min=1)
