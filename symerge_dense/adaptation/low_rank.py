"""Low-rank corrections of features, and networks that carry them: per task before its head, or shared after blocks."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symerge_dense.merging.tensor_specs import block_names, tensor_specs
from symerge_dense.models.blocks import STEM
from symerge_dense.models.modes import evaluating, outputs_of
from symerge_dense.models.multi_task import MultiTaskModel


@torch.no_grad()
def block_shapes(model: MultiTaskModel, image: Tensor) -> dict[str, tuple[int, ...]]:
    """{block of the backbone: shape of its output}, in the order of computation.

    Blocks are those of ``merging.tensor_specs``. A block is left out if it is no module (the stem), does not contribute
    to the features, or gives anything but one tensor.

    Args:
        model: the network.
        image: (N,3,H,W) in 0..255.
    """
    names = [name for name in block_names(tensor_specs(model.backbone)) if name != STEM]
    with evaluating(model), outputs_of({name: model.backbone.get_submodule(name) for name in names}) as found:
        model.features(image)
    return {name: tuple(output.shape) for name, output in found.items()}


def block_channels(model: MultiTaskModel, image: Tensor) -> dict[str, tuple[int, int]]:
    """{block of the backbone: (channels of its output, their axis)}; axis 1 for maps (N,C,h,w), else -1.

    Args:
        model: the network.
        image: (N,3,H,W) in 0..255.
    """
    axes = {
        name: (shape, 1 if len(shape) == 4 and not model.backbone.channels_last else -1)
        for name, shape in block_shapes(model, image).items()
    }
    return {name: (shape[axis], axis) for name, (shape, axis) in axes.items()}


# -- low-rank layers, and networks that carry them --------------------------------------------------------------------
class LowRank(nn.Module):
    """up(down z) or up(relu(down z)) on the channels of z, without bias; 0 at first, since ``up`` starts at zero.

    Args:
        channels: of z.
        rank: of the map; more than ``channels`` is cut to ``channels``.
        generator: draws ``down`` (Kaiming, as nn.Linear's).
        relu: rectify between the two maps.
        axis: of the channels: 1 for maps (N,C,h,w), -1 for tokens.
    """

    def __init__(self, channels: int, rank: int, generator: torch.Generator, relu: bool, axis: int = 1) -> None:
        super().__init__()
        rank = min(rank, channels)
        self.relu, self.axis = relu, axis
        self.down = nn.Parameter(torch.empty(rank, channels))
        self.up = nn.Parameter(torch.zeros(channels, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5), generator=generator)

    def forward(self, z: Tensor) -> Tensor:
        """The correction, of the shape of z.

        Args:
            z: features, with the channels at ``axis``.
        """
        return self.along(self.code(z), self.up)

    def code(self, z: Tensor) -> Tensor:
        """What ``up`` is given: down z, rectified where the map is.

        Args:
            z: features, with the channels at ``axis``.
        """
        low = self.along(z, self.down)
        return F.relu(low) if self.relu else low

    def add(self, _module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        """A forward hook: the module's output plus its correction.

        Args:
            output: of the module.
        """
        return output + self(output)

    def along(self, z: Tensor, weight: Tensor) -> Tensor:
        """A matrix times the channels.

        Args:
            z: features, with C channels at ``axis``.
            weight: (D,C).
        """
        return F.conv2d(z, weight[:, :, None, None]) if self.axis == 1 else F.linear(z, weight)


class AdaptedNetwork(MultiTaskModel):
    """A multi-task network with low-rank adapters, kept under ``adapters``.

    Args:
        model: its backbone and heads are used, not copied.
    """

    adapters: nn.ModuleList | nn.ModuleDict

    def __init__(self, model: MultiTaskModel) -> None:
        frame = model.frame
        super().__init__(
            model.backbone,
            dict(model.named_heads()),
            frame["tasks"],
            **frame["preprocessing"],
            align_corners=frame["align_corners"],
        )
        self.to(model.mean.device)

    @property
    def frame(self) -> dict[str, Any]:
        """Raises ValueError: a network with adapters has neither frame nor spec, since a file would leave them out."""
        raise ValueError("a network with adapters has no model file; keep its state_dict, or merge without adapters.")


class TaskAdapted(AdaptedNetwork):
    """Every head is given z - adapter(z) of the shared features z, with its own adapter for each level that it reads.

    Args:
        model: its backbone and heads are used, not copied.
        image: (N,3,H,W) in 0..255; one pass over it finds the levels that each head reads.
        rank: of the adapters.
        seed: of their initial weights.
    """

    def __init__(self, model: MultiTaskModel, image: Tensor, rank: int, seed: int) -> None:
        super().__init__(model)
        generator = torch.Generator().manual_seed(seed)
        channels = model.backbone.channels
        self.adapters = nn.ModuleDict(
            {
                task: nn.ModuleDict(
                    {str(level): LowRank(channels[level], rank, generator, relu=True) for level in levels}
                )
                for task, levels in _levels_read(model, image).items()
            }
        ).to(model.mean.device)

    def task_features(self, task: str, features: list[Tensor]) -> list[Tensor]:
        own = self.levels(task)
        return [z - own[level](z) if level in own else z for level, z in enumerate(features)]

    def levels(self, task: str) -> Mapping[int, LowRank]:
        """{feature level: adapter} of a task; level 0 is the finest.

        Args:
            task: a task of the model.
        """
        own = self.adapters.get_submodule(task)
        return {int(level): adapter for level, adapter in own.named_children() if isinstance(adapter, LowRank)}


class BlockAdapted(AdaptedNetwork):
    """Every block of the backbone gives f(x) + adapter(f(x)); all tasks share the adapters.

    Args:
        model: its backbone and heads are used, not copied.
        image: (N,3,H,W) in 0..255; one pass over it finds the channels of the blocks.
        rank: of the adapters.
        seed: of their initial weights.
    """

    def __init__(self, model: MultiTaskModel, image: Tensor, rank: int, seed: int) -> None:
        super().__init__(model)
        generator = torch.Generator().manual_seed(seed)
        adapters = nn.ModuleList()
        for name, (channels, axis) in block_channels(model, image).items():
            adapter = LowRank(channels, rank, generator, relu=False, axis=axis)
            model.backbone.get_submodule(name).register_forward_hook(adapter.add)
            adapters.append(adapter)
        self.adapters = adapters.to(model.mean.device)


def _levels_read(model: MultiTaskModel, image: Tensor) -> dict[str, Collection[int]]:
    """{task: feature levels that its head's output depends on}."""
    with evaluating(model), torch.enable_grad():
        features = [z.detach().requires_grad_() for z in model.features(image)]
        outputs = {task: head(features).sum() for task, head in model.named_heads()}
    gradients = {task: torch.autograd.grad(total, features, allow_unused=True) for task, total in outputs.items()}
    return {task: [level for level, found in enumerate(row) if found is not None] for task, row in gradients.items()}
