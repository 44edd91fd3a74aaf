"""Teachers that do not change while the student learns: the experts, or one multi-task model of a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from symerge_dense.adaptation.teacher import Targets, Teacher
from symerge_dense.models.backbone import TimmBackbone
from symerge_dense.models.checkpoint import load_model, read_metadata
from symerge_dense.models.image_sizes import Size
from symerge_dense.models.multi_task import MultiTaskModel, build_task
from symerge_dense.registry import TEACHERS
from symerge_dense.tasks.base import DenseTask

if TYPE_CHECKING:
    from symerge_dense.adaptation.options import SyMergeOptions
    from symerge_dense.adaptation.student import Student


@TEACHERS.register_module()
class Experts(Teacher):
    """Every task learns from its own expert: the labels as they are."""

    name: ClassVar[str] = "experts"

    def targets(self, student: Student, image: Tensor, labels: Mapping[str, Tensor]) -> Targets:
        return Targets(labels)


@TEACHERS.register_module()
class Model(Teacher):
    """A finished model of this package teaches, such as one that another method merged or that was trained jointly.

    It runs on every batch, one pass more. Tasks that it does not serve learn from their experts. Its backbone may be
    another than the student's; outputs of another resolution are resized bilinearly.

    Args:
        checkpoint: its file (``.safetensors``).
    """

    name: ClassVar[str] = "model"

    def __init__(self, checkpoint: str) -> None:
        super().__init__()
        self.checkpoint = str(checkpoint)
        self._networks: list[MultiTaskModel] = []  # in a list: no part of the student, not saved with it

    def check(self, tasks: Mapping[str, DenseTask], options: SyMergeOptions) -> None:
        """Read what the file says about itself.

        Args:
            tasks: {task: its rules}.
            options: not used.

        Raises:
            ValueError: the file cannot be read, or serves no task of the merged model, or one with other channels.
        """
        specs = read_metadata(self.checkpoint)["model"]["tasks"]
        shared = [task for task in tasks if task in specs]
        if not shared:
            raise ValueError(
                f"teacher {self.checkpoint} serves {', '.join(specs)}, none of {', '.join(tasks)}; name a model that "
                "serves a task of the merged one."
            )
        for task in shared:
            found = build_task(task, specs[task]).channels
            if found != tasks[task].channels:
                raise ValueError(
                    f"teacher {self.checkpoint} gives {task} in {found} channels, the merged model in "
                    f"{tasks[task].channels}; name a model of the same classes."
                )

    def check_size(self, backbone: TimmBackbone, size: Size) -> None:
        """The teacher's network must pad images as the student's does: outputs of both cover the padded image.

        Args:
            backbone: of the student.
            size: (H,W) of the images.

        Raises:
            ValueError: it does not, or does not take their size.
        """
        with torch.device("meta"):
            own = TimmBackbone(**read_metadata(self.checkpoint)["model"]["backbone"])
        try:
            padded = own.padded_size(*size)
        except ValueError as error:
            raise ValueError(f"teacher {self.checkpoint}, images of {size[0]}x{size[1]}: {error}") from error
        ours = backbone.padded_size(*size)
        if padded != ours:
            raise ValueError(
                f"teacher {self.checkpoint} pads images of {tuple(size)} to {padded}, the merged model to {ours}; "
                "choose a size that both take as it is."
            )

    def attach(self, student: Student) -> None:
        model, _ = load_model(self.checkpoint)
        model.keep_tasks([task for task in model.tasks if task in student.model.tasks])
        self._networks[:] = [model.to(student.device).requires_grad_(False)]

    def targets(self, student: Student, image: Tensor, labels: Mapping[str, Tensor]) -> Targets:
        (model,) = self._networks
        found = model.raw_outputs(image, [task for task in model.tasks if task in student.active])
        return Targets({**labels, **{task: _resized(output, labels[task]) for task, output in found.items()}})


def _resized(output: Tensor, label: Tensor) -> Tensor:
    size = label.shape[-2:]
    if output.shape[-2:] == size:
        return output
    return F.interpolate(output.float(), size=size, mode="bilinear")
