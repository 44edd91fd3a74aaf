"""The one network class of the package: a shared backbone and a head per task. An expert is the one-task case.

Shape legend: N images, C channels of a task, H x W image size, h x w a head's own resolution.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symerge_dense.models.backbone import TimmBackbone
from symerge_dense.models.heads import mmseg as mmseg_head  # noqa: F401 - enters its head into HEADS
from symerge_dense.models.heads.base import Head
from symerge_dense.models.hub import HubModel
from symerge_dense.models.module_head import build_head, fitted
from symerge_dense.models.plugins import check_registered
from symerge_dense.models.task_specs import Spec, build_task, task_spec
from symerge_dense.models.training import NonFiniteLoss, StackingPreprocessor, TrainableModel, check_finite
from symerge_dense.registry import MODELS, did_you_mean
from symerge_dense.tasks.base import DenseTask

__all__ = ["MultiTaskModel", "NonFiniteLoss", "StackingPreprocessor", "assemble", "build_task", "check_finite"]

MODES = ("tensor", "predict", "loss")


@MODELS.register_module()
class MultiTaskModel(HubModel, TrainableModel):
    """A backbone, and a head for each task.

    Args:
        backbone: TimmBackbone or its spec.
        heads: {task name: head spec ``{'type': 'DeepLab', ...}``, Head or other nn.Module}, one for each task.
        tasks: {task name: task spec or DenseTask}.
        mean: of each colour channel, on the 0..255 scale of the images.
        std: of each colour channel, on the same scale.
        align_corners: of the upsampling of outputs.

    Attributes:
        record: what ``save_model`` writes about the model beside its caller's metadata; empty unless somebody fills it.
        encoder_passes: passes through the backbone that all tasks of one image take.

    Raises:
        ValueError: heads and tasks do not fit together, or the preprocessing is not three values each with std > 0.
    """

    mean: Tensor
    std: Tensor
    encoder_passes: int = 1

    def __init__(
        self,
        backbone: TimmBackbone | Spec,
        heads: Mapping[str, nn.Module | Spec],
        tasks: Mapping[str, DenseTask | Spec],
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (255.0, 255.0, 255.0),
        align_corners: bool = False,
    ) -> None:
        super().__init__(StackingPreprocessor())
        self.record: dict[str, Any] = {}
        _check_preprocessing(mean, std)
        if set(heads) != set(tasks) or not tasks:
            raise ValueError(f"heads for {sorted(heads)} and tasks {sorted(tasks)}: every task needs one head.")
        self.backbone = TimmBackbone(**backbone) if isinstance(backbone, Mapping) else backbone
        self.tasks: dict[str, DenseTask] = {name: build_task(name, task) for name, task in tasks.items()}
        self._task_specs = {name: task_spec(self.tasks[name], tasks[name]) for name in tasks}
        features = self.backbone.channels, self.backbone.strides
        self.heads = nn.ModuleDict(
            {name: fitted(build_head(heads[name], task, *features), task) for name, task in self.tasks.items()}
        )
        self.align_corners = align_corners
        self._preprocessing = {"mean": [float(value) for value in mean], "std": [float(value) for value in std]}
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(3, 1, 1), persistent=False)

    # -- describing -------------------------------------------------------------------------------------------------
    @property
    def spec(self) -> dict[str, Any]:
        """JSON-able description from which ``from_spec`` builds the same network (without its weights).

        Raises:
            ValueError: a head is an object that a file cannot describe.
        """
        around = self.frame
        return {
            "backbone": around.pop("backbone"),
            "heads": {name: head.spec for name, head in self.named_heads()},
            **around,
        }

    @property
    def frame(self) -> dict[str, Any]:
        """The spec without its heads, which not every head has."""
        return {
            "backbone": self.backbone.spec,
            "tasks": {name: self._task_specs[name] for name in self.tasks},
            "preprocessing": self._preprocessing,
            "align_corners": self.align_corners,
        }

    @classmethod
    def from_spec(cls, spec: Spec, plugins: Any = None) -> MultiTaskModel:
        """Build a network, without its weights, from the description that ``spec`` gives.

        It may come from an untrusted file: types are looked up by registered name only.

        Args:
            spec: with all keys of the property ``spec``.
            plugins: of the same file: {'task saliency': module that registered it}; shown where that is missing.

        Raises:
            ValueError: a key is missing or unknown, or a type is not registered.
        """
        wanted = ("backbone", "heads", "tasks", "preprocessing", "align_corners")
        if not isinstance(spec, Mapping) or set(spec) != set(wanted):
            found = sorted(spec) if isinstance(spec, Mapping) else type(spec).__name__
            raise ValueError(f"a model's spec has the keys {', '.join(wanted)}; found {found}.")
        check_registered(spec, plugins)
        return cls(
            spec["backbone"], spec["heads"], spec["tasks"], **spec["preprocessing"], align_corners=spec["align_corners"]
        )

    def keep_tasks(self, names: Collection[str]) -> None:
        """Remove all other tasks, with their heads.

        Args:
            names: tasks to keep.

        Raises:
            ValueError: the model has no task of that name.
        """
        for name in names:
            if name not in self.tasks:
                raise ValueError(did_you_mean(name, self.tasks, "task"))
        for name in [name for name in self.tasks if name not in names]:
            del self.tasks[name], self.heads[name]

    # -- computing --------------------------------------------------------------------------------------------------
    def features(self, image: Tensor) -> list[Tensor]:
        """The backbone's feature maps (N,C,h,w), finest first.

        Args:
            image: (N,3,H,W), RGB in 0..255.
        """
        maps: list[Tensor] = self.backbone(self.normalised(image))
        return maps

    def normalised(self, image: Tensor) -> Tensor:
        """Images as the backbone takes them: minus ``mean``, over ``std``.

        Args:
            image: (N,3,H,W), RGB in 0..255.
        """
        return (image - self.mean) / self.std

    def raw_outputs(self, image: Tensor, only: Collection[str] | None = None) -> dict[str, Tensor]:
        """{task: raw head output (N,C,h,w)}, after one pass through the backbone.

        Args:
            image: (N,3,H,W), RGB in 0..255.
            only: the wanted tasks; None for all.
        """
        chosen = [(name, head) for name, head in self.named_heads() if only is None or name in only]
        for _, head in chosen:
            head.refuse_single_image(len(image))
        features = self.features(image)
        return {name: head(self.task_features(name, features)) for name, head in chosen}

    def task_features(self, task: str, features: list[Tensor]) -> list[Tensor]:
        """The feature maps that a task's head is given: here the shared ones, as they are.

        Args:
            task: whose head.
            features: shared feature maps (N,C,h,w), finest first.
        """
        return features

    def forward(self, image: Tensor, mode: str = "tensor", only: Collection[str] | None = None, **batch: Tensor) -> Any:
        """MMEngine's entry point.

        Args:
            image: (N,3,H,W), RGB in 0..255.
            mode: 'tensor', 'predict' or 'loss'.
            only: the wanted tasks; None for all.
            **batch: {task: target}, for 'loss'.

        Returns:
            'tensor': {task: raw output (N,C,h,w)}. 'predict': a list with one {task: raw output (C,H,W)}, float32, per
            image. 'loss': {'loss_<task>': scalar}, with outputs upsampled to the size of the targets.

        Raises:
            ValueError: an unknown mode, or a task without target.
        """
        if mode not in MODES:
            raise ValueError(did_you_mean(mode, MODES, "mode"))
        outputs = self.raw_outputs(image, only)
        if mode == "tensor":
            return outputs
        if mode == "predict":
            return self.to_image_size(outputs, image)
        size = image.shape[-2:]
        return {f"loss_{name}": self._loss(name, output, batch, size) for name, output in outputs.items()}

    def _loss(self, name: str, output: Tensor, batch: Mapping[str, Tensor], size: Sequence[int]) -> Tensor:
        if name not in batch:
            raise ValueError(
                f"the batch has no target of task {name!r} (it has {sorted(batch)}); list the task in the "
                "data set's tasks."
            )
        target = batch[name]
        output = self.upsample(self.without_padding(output, size), target.shape[-2:])
        return self.tasks[name].loss(output, target)

    def to_image_size(self, outputs: Mapping[str, Tensor], image: Tensor) -> list[dict[str, Tensor]]:
        """Raw outputs at the size of the images, as one {task: (C,H,W)} per image.

        Args:
            outputs: {task: (N,C,h,w)}.
            image: (N,3,H,W).
        """
        size = image.shape[-2:]
        large = {name: self.upsample(self.without_padding(output, size), size) for name, output in outputs.items()}
        return [{name: output[row] for name, output in large.items()} for row in range(len(image))]

    def without_padding(self, output: Tensor, size: Sequence[int]) -> Tensor:
        """A raw output for the images alone, where the backbone padded them: upsampled to the padded size, and cropped.

        Args:
            output: (N,C,h,w), of the padded images.
            size: (H,W) of the images.

        Returns:
            (N,C,H,W); the output as it is, where nothing was padded.
        """
        padded = self.backbone.padded_size(*size)
        if padded == tuple(size):
            return output
        return self.upsample(output, padded)[..., : size[0], : size[1]].contiguous()

    def upsample(self, output: Tensor, size: Sequence[int]) -> Tensor:
        """Resize a raw output bilinearly, in float32.

        Args:
            output: (N,C,h,w).
            size: (H,W) of the result.
        """
        if tuple(output.shape[-2:]) == tuple(size):
            return output.float()
        return F.interpolate(output.float(), size=tuple(size), mode="bilinear", align_corners=self.align_corners)

    def named_heads(self) -> list[tuple[str, Head]]:
        """(task, head) of every task."""
        return [(name, head) for name, head in self.heads.items() if isinstance(head, Head)]


def _check_preprocessing(mean: Sequence[float], std: Sequence[float]) -> None:
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError(
            f"mean={list(mean)}, std={list(std)}: three values each (R, G, B on the 0..255 scale), std > 0."
        )


# -- experts' heads on one shared backbone ----------------------------------------------------------------------------
def assemble(backbone: TimmBackbone, experts: Mapping[str, MultiTaskModel]) -> MultiTaskModel:
    """A multi-task model with copies of a backbone and of each expert's head for its task.

    Args:
        backbone: the shared backbone.
        experts: {task: expert}.

    Raises:
        ValueError: experts or backbone differ in preprocessing, upsampling or architecture: one pass through one
            backbone cannot serve them all.
    """
    specs = {task: expert.frame for task, expert in experts.items()}
    first, reference = next(iter(specs.items()))
    for task, spec in specs.items():
        for part in ("backbone", "preprocessing", "align_corners"):
            if spec[part] != reference[part]:
                raise ValueError(
                    f"experts {first!r} and {task!r} differ in {part}: {reference[part]} and "
                    f"{spec[part]}; merging needs one architecture that sees images in the same way."
                )
    if backbone.spec != reference["backbone"]:
        raise ValueError(
            f"the base is {backbone.spec}, the experts' backbone is {reference['backbone']}; use the base "
            "that the experts were fine-tuned from."
        )
    heads = {task: copy.deepcopy(experts[task].heads[task]) for task in experts}
    tasks = {task: specs[task]["tasks"][task] for task in experts}
    return MultiTaskModel(
        copy.deepcopy(backbone), heads, tasks, **reference["preprocessing"], align_corners=reference["align_corners"]
    )
