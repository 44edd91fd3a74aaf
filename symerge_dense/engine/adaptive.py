"""What an adaptive merging method is: from base, experts and unlabelled images to a multi-task network.

All of them run through ``adapt``: one loop, one cache of expert labels, one treatment of BatchNorm. A method says which
student learns, and with which options.
"""

from __future__ import annotations

import dataclasses
import inspect
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.engine.adapt import adapt
from symerge_dense.engine.history import read_history
from symerge_dense.engine.options import SyMergeOptions
from symerge_dense.engine.student import Student
from symerge_dense.engine.symerge_model import SyMergeModel
from symerge_dense.experts.assemble import assemble
from symerge_dense.experts.backbone import TimmBackbone
from symerge_dense.experts.model import MultiTaskModel


@dataclass
class Setting:
    """What every method is given.

    Args:
        base: the experts' common start. experts: {task: expert}. pool: unlabelled images.
        options: the config's adaptation; a method keeps all of it but what makes the method.
        device: where to work. seed: of everything random.
        work_dir: methods share its ``labels``; each has ``adaptive/<name>`` for its curve and log.
    """

    base: TimmBackbone
    experts: Mapping[str, MultiTaskModel]
    pool: Unlabelled
    options: SyMergeOptions
    device: torch.device
    seed: int
    work_dir: Path


@dataclass
class Adapted:
    """What a method returns.

    ``model`` is in evaluation mode, BatchNorm statistics by the options' policy. ``extra_parameters`` counts what it
    keeps at inference beyond one backbone and the heads. ``history``: rows of the run's curve. ``note``: what differs
    from the published method, empty where nothing does.
    """

    model: MultiTaskModel
    extra_parameters: int
    history: list[dict[str, Any]]
    note: str


class AdaptiveMethod(ABC):
    """An adaptive merging method, registered in ``ADAPTERS``; built with its own hyper-parameters, all optional.

    ``title`` and ``learns`` are for tables, ``paper`` is a URL. Constructor arguments are kept under their own names.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    learns: ClassVar[str]

    @abstractmethod
    def student(self, setting: Setting) -> Student:
        """The model that learns, with the options that it learns by, on ``setting.device``."""

    def note(self, setting: Setting) -> str:
        """What differs from the published method in this setting."""
        return ""

    def run(self, setting: Setting) -> Adapted:
        """Adapt; base and experts are left as they were found. Raises ValueError as ``adapt`` does."""
        folder = setting.work_dir / "adaptive" / self.name
        with left_alone(setting.experts.values()):
            student = self.student(setting).to(setting.device)
            student.options = dataclasses.replace(student.options, save_every=student.options.rounds + 1)  # never
            adapt(student, setting.experts, setting.pool, folder, seed=setting.seed,
                  labels=setting.work_dir / "labels", title=self.title)
        model = student.model.eval().requires_grad_(False)
        parts = (setting.base, *(expert.heads[task] for task, expert in setting.experts.items()))
        extra = parameters(model) - sum(map(parameters, parts))
        return Adapted(model, extra, read_history(folder / "history.jsonl"), self.note(setting))

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The constructor's arguments, for the record of a run."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}


def parameters(module: nn.Module) -> int:
    """Number of a module's parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def initial_merge(setting: Setting) -> MultiTaskModel:
    """The network that SyMerge starts from, its backbone merged with the options' initial coefficient for good."""
    model = assemble(setting.base, setting.experts).to(setting.device)
    merged = SyMergeModel(model, dataclasses.replace(setting.options, density=None))
    merged.attach(setting.experts)
    merged.fold()
    return merged.model


def probe_image(setting: Setting) -> Tensor:
    """One image of the pool (1,3,H,W), to learn a network's shapes from."""
    image: Tensor = setting.pool[0]["image"]
    return image[None].to(setting.device)


@contextmanager
def left_alone(experts: Collection[MultiTaskModel]) -> Iterator[None]:
    """On leaving, the experts are on the device and in the modes in which they came."""
    devices = [next(expert.parameters()).device for expert in experts]
    modes = [(module, module.training) for expert in experts for module in expert.modules()]
    try:
        yield
    finally:
        for expert, device in zip(experts, devices, strict=True):
            expert.to(device)
        for module, training in modes:
            module.training = training
