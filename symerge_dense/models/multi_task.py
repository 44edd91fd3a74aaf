"""The one network class of the package: a shared backbone and a head per task. An expert is the one-task case.

Shape legend: N images, C channels of a task, H x W image size, h x w a head's own resolution.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce
from mmengine.model import BaseDataPreprocessor, BaseModel
from torch import Tensor, nn

from symerge_dense.models.backbone import TimmBackbone
from symerge_dense.models.heads import mmseg as mmseg_head  # noqa: F401 - enters its head into HEADS
from symerge_dense.models.heads.base import Head
from symerge_dense.registry import HEADS, MODELS, TASKS, did_you_mean
from symerge_dense.tasks.base import DenseTask

Spec = Mapping[str, Any]
MODES = ("tensor", "predict", "loss")


class NonFiniteLoss(ValueError):
    """A loss became NaN or infinite; raised before the optimizer could use it."""


def check_finite(losses: Mapping[str, Tensor]) -> None:
    """Raise NonFiniteLoss, naming the tasks, where a value under a ``loss_<task>`` key is NaN or infinite.

    Called by every process or by none: all of them raise where one has to, for the others would wait for its gradient.
    """
    named = {key.removeprefix("loss_"): value.detach() for key, value in losses.items() if key.startswith("loss_")}
    if not named:
        return
    finite = torch.stack([value.isfinite().all() for value in named.values()]).all().float()
    all_reduce(finite, "min")  # does nothing in a single process
    if not bool(finite):
        bad = [f"{task} ({float(value.mean())})" for task, value in named.items() if not bool(value.isfinite().all())]
        raise NonFiniteLoss(
            f"the loss of {', '.join(bad) or 'another process'} is not finite; no weight was changed "
            "by it. Lower the learning rate, switch off mixed precision, or check the labels."
        )


@MODELS.register_module()
class StackingPreprocessor(BaseDataPreprocessor):
    """Moves a batch to the model, and stacks what MMEngine's default collation leaves as lists of tensors."""

    def forward(self, data: Mapping[str, Any], training: bool = False) -> Any:
        """``data`` {name: tensor, or list of equally large tensors} on the model's device, lists stacked."""
        stacked = {
            name: torch.stack(list(value))
            if isinstance(value, list | tuple) and all(isinstance(item, Tensor) for item in value)
            else value
            for name, value in data.items()
        }
        return super().forward(stacked, training)


@MODELS.register_module()
class MultiTaskModel(BaseModel):
    """A backbone, and a head for each task.

    Args:
        backbone: TimmBackbone or its spec.
        heads: {task name: head spec ``{'type': 'DeepLab', ...}`` or Head}, one for each task.
        tasks: {task name: task spec or DenseTask}.
        mean, std: of each colour channel, on the 0..255 scale of the images.
        align_corners: of the upsampling of outputs.

    Raises ValueError where heads and tasks do not fit together.
    """

    mean: Tensor
    std: Tensor

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
        _check_preprocessing(mean, std)
        if set(heads) != set(tasks) or not tasks:
            raise ValueError(f"heads for {sorted(heads)} and tasks {sorted(tasks)}: every task needs one head.")
        self.backbone = TimmBackbone(**backbone) if isinstance(backbone, Mapping) else backbone
        self.tasks: dict[str, DenseTask] = {name: build_task(name, task) for name, task in tasks.items()}
        self._task_specs = {name: task_spec(self.tasks[name], tasks[name]) for name in tasks}
        self.heads = nn.ModuleDict({name: self._head(heads[name], task) for name, task in self.tasks.items()})
        self.align_corners = align_corners
        self._preprocessing = {"mean": [float(value) for value in mean], "std": [float(value) for value in std]}
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(3, 1, 1), persistent=False)

    def _head(self, head: nn.Module | Spec, task: DenseTask) -> Head:
        if isinstance(head, Head):
            if head.channels != task.channels:
                raise ValueError(
                    f"the head of {task.name} has {head.channels} channels, the task {task.channels}; "
                    "build the head with the task's channels."
                )
            return head
        if not isinstance(head, Mapping) or "type" not in head:
            raise ValueError(
                f"head {head} of {task.name}: give a Head, or a spec with 'type', one of {', '.join(HEADS)}."
            )
        made = {"in_channels": self.backbone.channels, "strides": self.backbone.strides, "channels": task.channels}
        try:
            built: Head = HEADS.build({**head, **made})
        except TypeError as error:
            raise ValueError(f"head {dict(head)} of {task.name}: {error}") from error
        return built

    def init_weights(self) -> None:
        """Keep the weights: MMEngine's runner calls this before training and must not re-initialise anything."""

    # -- describing -------------------------------------------------------------------------------------------------
    @property
    def spec(self) -> dict[str, Any]:
        """JSON-able description from which ``from_spec`` builds the same network (without its weights)."""
        return {
            "backbone": self.backbone.spec,
            "heads": {name: head.spec for name, head in self.named_heads()},
            "tasks": {name: self._task_specs[name] for name in self.tasks},
            "preprocessing": self._preprocessing,
            "align_corners": self.align_corners,
        }

    @classmethod
    def from_spec(cls, spec: Spec) -> MultiTaskModel:
        """Build from a ``spec``. It may come from an untrusted file: types are looked up by registered name only."""
        wanted = ("backbone", "heads", "tasks", "preprocessing", "align_corners")
        if not isinstance(spec, Mapping) or set(spec) != set(wanted):
            found = sorted(spec) if isinstance(spec, Mapping) else type(spec).__name__
            raise ValueError(f"a model's spec has the keys {', '.join(wanted)}; found {found}.")
        named = {**spec["heads"], **spec["tasks"]}
        if not all(isinstance(part, Mapping) and isinstance(part.get("type"), str) for part in named.values()):
            raise ValueError("in a model's spec every head and task is {'type': registered name, ...}.")
        for registry, parts in ((HEADS, spec["heads"]), (TASKS, spec["tasks"])):
            for part in parts.values():
                if part["type"] not in registry:  # a name that a registry would import is not looked for
                    raise ValueError(did_you_mean(part["type"], list(registry), registry.kind))
        return cls(
            spec["backbone"], spec["heads"], spec["tasks"], **spec["preprocessing"], align_corners=spec["align_corners"]
        )

    def keep_tasks(self, names: Collection[str]) -> None:
        """Remove all tasks but ``names``, with their heads. An unknown name: ValueError."""
        for name in names:
            if name not in self.tasks:
                raise ValueError(did_you_mean(name, self.tasks, "task"))
        for name in [name for name in self.tasks if name not in names]:
            del self.tasks[name], self.heads[name]

    # -- computing --------------------------------------------------------------------------------------------------
    def features(self, image: Tensor) -> list[Tensor]:
        """Feature maps of images (N,3,H,W), RGB in 0..255."""
        maps: list[Tensor] = self.backbone(self.normalised(image))
        return maps

    def normalised(self, image: Tensor) -> Tensor:
        """Images (N,3,H,W), RGB in 0..255, as the backbone takes them."""
        return (image - self.mean) / self.std

    def raw_outputs(self, image: Tensor, only: Collection[str] | None = None) -> dict[str, Tensor]:
        """{task: raw head output (N,C,h,w)} of all tasks, or of those in ``only``; one pass through the backbone."""
        chosen = [(name, head) for name, head in self.named_heads() if only is None or name in only]
        for _, head in chosen:
            head.refuse_single_image(len(image))
        features = self.features(image)
        return {name: head(self.task_features(name, features)) for name, head in chosen}

    def task_features(self, task: str, features: list[Tensor]) -> list[Tensor]:
        """What the head of ``task`` sees of the shared feature maps: all of them, as they are."""
        return features

    def forward(self, image: Tensor, mode: str = "tensor", only: Collection[str] | None = None, **batch: Tensor) -> Any:
        """MMEngine's entry point for images (N,3,H,W), RGB in 0..255.

        'tensor': {task: raw output (N,C,h,w)}. 'predict': a list with one {task: raw output (C,H,W)}, float32,
        per image. 'loss': {'loss_<task>': scalar} against the targets in ``batch``, outputs upsampled to their size.
        """
        if mode not in MODES:
            raise ValueError(did_you_mean(mode, MODES, "mode"))
        outputs = self.raw_outputs(image, only)
        if mode == "tensor":
            return outputs
        if mode == "predict":
            return self.to_image_size(outputs, image)
        return {f"loss_{name}": self._loss(name, output, batch) for name, output in outputs.items()}

    def _loss(self, name: str, output: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        if name not in batch:
            raise ValueError(
                f"the batch has no target of task {name!r} (it has {sorted(batch)}); list the task in the "
                "data set's tasks."
            )
        target = batch[name]
        return self.tasks[name].loss(self.upsample(output, target.shape[-2:]), target)

    def to_image_size(self, outputs: Mapping[str, Tensor], image: Tensor) -> list[dict[str, Tensor]]:
        """Raw outputs as one {task: (C,H,W)} per image of ``image`` (N,3,H,W), at its size."""
        large = {name: self.upsample(output, image.shape[-2:]) for name, output in outputs.items()}
        return [{name: output[row] for name, output in large.items()} for row in range(len(image))]

    def upsample(self, output: Tensor, size: Sequence[int]) -> Tensor:
        """A raw output (N,C,h,w) at ``size`` (H,W), bilinear, in float32."""
        if tuple(output.shape[-2:]) == tuple(size):
            return output.float()
        return F.interpolate(output.float(), size=tuple(size), mode="bilinear", align_corners=self.align_corners)

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """MMEngine's sum of the losses; raises NonFiniteLoss before the optimizer sees one that is not finite."""
        check_finite(losses)
        total, logs = super().parse_losses(losses)
        return total, logs

    def named_heads(self) -> list[tuple[str, Head]]:
        """(task, head) of every task."""
        return [(name, head) for name, head in self.heads.items() if isinstance(head, Head)]


def build_task(name: str, task: DenseTask | Spec) -> DenseTask:
    """The task object of a spec; its own name must be ``name``, under which samples carry its target (ValueError)."""
    if isinstance(task, Mapping):
        task = {"type": name, **task}
        built: DenseTask = TASKS.build(task)
    else:
        built = task
    if built.name != name:
        raise ValueError(f"task {built.name!r} stands under the name {name!r}; a task goes by its own name.")
    return built


def task_spec(task: DenseTask, given: DenseTask | Spec) -> dict[str, Any]:
    """JSON-able ``{'type': registered name, **arguments}``: as given, or read off a task object's attributes."""
    if isinstance(given, Mapping):
        arguments = {key: value for key, value in given.items() if key != "type"}
    else:
        names = [p for p in inspect.signature(type(task)).parameters if hasattr(task, p)]
        arguments = {name: getattr(task, name) for name in names}
        arguments |= {"classes": task.channels} if "classes" in inspect.signature(type(task)).parameters else {}
    try:
        spec: dict[str, Any] = json.loads(json.dumps({"type": task.name, **arguments}))
    except TypeError as error:
        raise ValueError(
            f"task {task.name}: {arguments} cannot be kept in a file ({error}); give plain values."
        ) from error
    return spec


def _check_preprocessing(mean: Sequence[float], std: Sequence[float]) -> None:
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError(
            f"mean={list(mean)}, std={list(std)}: three values each (R, G, B on the 0..255 scale), std > 0."
        )


# -- experts' heads on one shared backbone ----------------------------------------------------------------------------
def assemble(backbone: TimmBackbone, experts: Mapping[str, MultiTaskModel]) -> MultiTaskModel:
    """A multi-task model with a copy of ``backbone`` and of the head that each expert has for its task.

    ``experts`` is {task: expert}. Raises ValueError if experts disagree about preprocessing, upsampling or backbone:
    one pass through one backbone cannot serve both.
    """
    specs = {task: expert.spec for task, expert in experts.items()}
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
