"""The layers of a network as rows of channels: which entries of which tensors belong to each channel."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.conv import _ConvNd

Place = tuple[str, int]
SAME = 1e-4  # how far numbers about 1 may be apart and still be one number, rounded


@dataclass(frozen=True)
class Layer:
    """The channels of a layer, and the entries of tensors that belong to each.

    Args:
        axes: of the channels, in input and output.
        counts: of channels, in input and output.
        reads: (tensor, axis) with an entry for each input channel.
        makes: (tensor, axis) with an entry for each output channel.
        groups: of channels that keep together from input to output; None where every output reads all inputs.
        matrix: whether it is a convolution or a linear layer.
    """

    axes: tuple[int, int]
    counts: tuple[int, int]
    reads: tuple[Place, ...] = ()
    makes: tuple[Place, ...] = ()
    groups: int | None = None
    matrix: bool = False

    def ties(self) -> Tensor:
        """(2, pairs): input and output channels that can only move together."""
        if self.groups is None:
            return torch.empty(2, 0, dtype=torch.long)
        wide, narrow = (count // self.groups for count in self.counts)
        inputs, outputs = map(torch.arange, self.counts)
        pairs = [
            torch.stack([inputs, inputs // wide * narrow]),
            torch.stack([outputs // narrow * wide, outputs]),
        ]
        return torch.cat(pairs, 1)


def holds_tensors(module: nn.Module) -> bool:
    """Whether a module has tensors, all of them its own.

    Args:
        module: of a network.
    """
    names = module.state_dict().keys()
    return bool(names) and not any("." in name for name in names)


def layer_of(path: str, module: nn.Module, shape: torch.Size) -> Layer | None:
    """What is known of a module; None for one of an unknown kind.

    Args:
        path: its name in the network.
        module: one that ``holds_tensors``.
        shape: of its input.
    """
    state = module.state_dict()
    bias = ((f"{path}.bias", 0),) if "bias" in state else ()
    weight = f"{path}.weight"
    if isinstance(module, nn.Linear) and "weight" in state:
        return Layer(
            (-1, -1), (module.in_features, module.out_features), ((weight, 1),), ((weight, 0), *bias), matrix=True
        )
    if isinstance(module, _ConvNd) and "weight" in state and not (module.transposed and module.groups > 1):
        counts, made = (module.in_channels, module.out_channels), int(module.transposed)
        reads = ((weight, 1 - made),) if module.groups == 1 else ()
        groups = None if module.groups == 1 else module.groups
        return Layer((1, 1), counts, reads, ((weight, made), *bias), groups, matrix=True)
    if (axis := _channel_axis(module, shape)) is not None:
        makes = tuple((f"{path}.{name}", 0) for name, value in state.items() if value.ndim)
        return Layer((axis, axis), (shape[axis],) * 2, makes=makes, groups=shape[axis])
    return None


def _channel_axis(module: nn.Module, shape: torch.Size) -> int | None:
    """The axis along which a module treats all entries alike, each with its own entry of every tensor of its state."""
    state = {name: value for name, value in module.state_dict().items() if value.ndim}
    counts = {tuple(value.shape) for value in state.values()}
    if len(counts) != 1 or len(count := next(iter(counts))) != 1 or count[0] == 1:
        return None
    drawn = {name: fixed_numbers(name, value.shape, least=0.5) for name, value in state.items()}
    x = fixed_numbers("x", shape)
    fitting = [axis for axis in range(1, len(shape)) if shape[axis] == count[0]]
    return next((axis for axis in fitting if _alike(module, drawn, x, axis)), None)


def _alike(module: nn.Module, state: dict[str, Tensor], x: Tensor, axis: int) -> bool:
    """Whether entries that change places along an axis do so in the output, too, and nothing else happens."""
    turned = torch.arange(x.shape[axis]).roll(1)
    swapped = turned.clone()
    swapped[[0, 1]] = turned[[1, 0]]
    for order in (turned, swapped):  # all other orders follow from these two
        moved = {name: value[order] for name, value in state.items()}
        try:
            plain = functional_call(module, state, (x,))
            other = functional_call(module, moved, (x.index_select(axis, order),))
        except (RuntimeError, TypeError, ValueError):
            return False
        if not isinstance(plain, Tensor) or plain.shape != x.shape:
            return False
        if not torch.allclose(plain.index_select(axis, order), other, atol=SAME):
            return False
    return True


def fixed_numbers(key: str, shape: torch.Size, least: float = -1.5) -> Tensor:
    """Numbers in ``least`` to ``least`` + 3 that follow from a name.

    Args:
        key: the name.
        shape: of the tensor.
        least: of the numbers.
    """
    return torch.rand(shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode()))) * 3 + least
