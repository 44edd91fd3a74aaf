"""What computes a model's outputs: PyTorch, or onnxruntime for an exported file.

Shape legend: N images, C channels of a task, H x W image size.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from mmengine.device import get_device
from torch import Tensor

from symerge_dense.engine.optim_wrapper import half_precision
from symerge_dense.inference.onnx_model import OnnxModel
from symerge_dense.models.checkpoint import load_model
from symerge_dense.models.hub import model_file
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.registry import did_you_mean
from symerge_dense.tasks.base import DenseTask

ONNX = ".onnx"


class Backend(Protocol):
    """A program that turns images into the outputs of some tasks.

    Attributes:
        tasks: {name: task}.
        size: (H,W) that all images must have; None where any will do.
        record: what the model's file says of it; ``image_size`` in it is (H,W) of the images it learned on.
        decided: whether outputs are what ``task.decide`` gives, in place of raw outputs.
    """

    tasks: dict[str, DenseTask]
    size: tuple[int, int] | None
    record: dict[str, Any]
    decided: bool

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """{task: output (N,C,H,W)} at the size of the images.

        Args:
            images: (N,3,H,W), RGB in 0..255.
        """
        ...


class TorchModel:
    """A model of this package as a backend.

    Args:
        model: the network; put into evaluation mode.
        device: where it runs; None takes the best one.
        amp: mixed precision: bfloat16, or float16 on a GPU that lacks it.

    Raises:
        ValueError: there is no such device.
    """

    decided = False
    size: tuple[int, int] | None = None

    def __init__(
        self,
        model: MultiTaskModel,
        device: str | torch.device | None = None,
        amp: bool = False,
    ) -> None:
        self.device = checked_device(device)
        self.model = model.eval().to(self.device)
        self.record = {**model.record, "image_size": model.image_size}
        self.tasks = dict(model.tasks)
        self.amp = amp
        self.steps = model.backbone.steps

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        images = images.to(self.device)
        with torch.inference_mode(), self._precision():
            outputs = self.model.raw_outputs(images, self.tasks)
            size = images.shape[-2:]
            return {
                name: self.model.upsample(self.model.without_padding(output, size), size)
                for name, output in outputs.items()
            }

    def _precision(self) -> AbstractContextManager[Any]:
        if not self.amp:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=half_precision(self.device.type))


def checked_device(device: str | torch.device | None) -> torch.device:
    """A device that this machine has.

    Args:
        device: its name, for example 'cpu', 'cuda' or 'cuda:1'; None takes the best one.

    Raises:
        ValueError: there is none of that name.
    """
    try:
        found = torch.device(get_device() if device is None else device)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = str(error).splitlines()[0][:120]
        raise ValueError(f"device {str(device)!r} cannot be used ({first}); give 'cpu', or leave it out.") from error
    return found


def open_backend(
    model: str | Path | MultiTaskModel | Backend,
    device: str | torch.device | None = None,
    tasks: Collection[str] | None = None,
    amp: bool = False,
) -> Backend:
    """A backend for a model.

    Args:
        model: a file of this package (``.safetensors``, or ``.onnx`` as ``symerge export`` writes it), a folder of the
            Hub, a model, or a backend, which is used as it is.
        device: where it runs; None takes the best one.
        tasks: the wanted ones; None takes all.
        amp: mixed precision, of a PyTorch model.

    Raises:
        ValueError: the file is no model, lacks a task, or the device is not there.
    """
    backend: Backend
    if isinstance(model, (str, Path)) and Path(model).suffix == ONNX:
        if amp:
            raise ValueError(f"{model}: amp is of PyTorch models; export the file with half precision instead.")
        backend = OnnxModel(model, str(device or get_device()))
    elif isinstance(model, (str, Path)):
        backend = TorchModel(load_model(model_file(model))[0], device, amp)
    elif isinstance(model, MultiTaskModel):
        backend = TorchModel(model, device or next(model.parameters()).device, amp)
    else:
        backend = model
    if tasks is not None:
        for name in tasks:
            if name not in backend.tasks:
                raise ValueError(did_you_mean(name, backend.tasks, "task of this model"))
        backend = copy.copy(backend)  # that of the caller keeps its tasks
        backend.tasks = {name: task for name, task in backend.tasks.items() if name in set(tasks)}
    return backend
