"""The kind and depth of every tensor of a state dict, read off its module; mergers choose their rule by kind."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from symerge_dense.merging.sources import layouts
from symerge_dense.models.blocks import block_of_tensors, repeated_blocks

Kind = Literal["matrix", "conv", "norm", "vector", "embedding", "bn_stat", "counter"]
WEIGHT_KINDS: frozenset[Kind] = frozenset(get_args(Kind)) - {"bn_stat", "counter"}
_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_MATRICES = (nn.Linear, nn.Bilinear, nn.MultiheadAttention, nn.RNNBase)
_STATISTICS = frozenset({"running_mean", "running_var"})


@dataclass(frozen=True)
class TensorSpec:
    """One entry of a state dict.

    Args:
        name: its key.
        shape: its shape.
        dtype: its data type.
        kind: 'matrix' (Linear weights, attention projections), 'conv', 'norm' (affine parameters of a normalisation),
            'vector' (biases, LayerScale), 'embedding' (tables, positions, class tokens), 'bn_stat' (running mean and
            variance) or 'counter' (integers and constant buffers: no weight at all).
        block: from 0 (the stem) to ``n_blocks - 1`` in forward order; None where the structure is unknown.
        n_blocks: number of blocks of the network.
        block_name: name of the block, see ``block_of_tensors``.
        depth: place among the blocks that repeat, 0 the first, 1 the last; without any, among all blocks. None for what
            lies outside of them (stem, downsampling, final norm), or where the structure is unknown.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    kind: Kind
    block: int | None = None
    n_blocks: int = 0
    block_name: str = ""
    depth: float | None = None

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def tensor_specs(module: nn.Module) -> list[TensorSpec]:
    """Specs of a network's state dict, in its order; the kind comes from the owning module's class.

    A parameter that a module of no known class holds itself is a 'vector' when it has at most one dimension
    (LayerScale's gamma) and an 'embedding' otherwise (pos_embed, cls_token, relative position tables). Floating buffers
    that are not running statistics are constants: 'counter'.

    Args:
        module: the network.
    """
    state = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    blocks = block_of_tensors(module, state)
    numbers = {block: number for number, block in enumerate(dict.fromkeys(blocks.values()))}
    links = repeated_blocks(module)
    repeated = [block for block in numbers if block in links] or list(numbers)
    depths = {block: number / max(len(repeated) - 1, 1) for number, block in enumerate(repeated)}
    specs = []
    for name, value in state.items():
        path, _, leaf = name.rpartition(".")
        kind = _kind(module.get_submodule(path), leaf, value, name in parameters)
        block = blocks[name]
        place = numbers[block], len(numbers), block, depths.get(block)
        specs.append(TensorSpec(name, tuple(value.shape), value.dtype, kind, *place))
    return specs


def specs_from_state(state: Mapping[str, Tensor]) -> list[TensorSpec]:
    """Specs of a state dict without its module, by data type, dimensions and the siblings in the same group.

    A group is all tensors that share a name up to the last dot. Integers are counters. A group with a ``running_mean``
    or with a one-dimensional ``weight`` is a normalisation. Else one dimension is a vector, two are a matrix, and more
    are a convolution when the leaf is ``weight`` and an embedding otherwise. Blocks are unknown.

    Args:
        state: the state dict, or another source of tensors.
    """
    known = layouts(state)
    groups = {name.rpartition(".")[0] for name, layout in known.items() if _normalises(name, len(layout.shape))}
    specs = []
    for name, (shape, dtype) in known.items():
        path, _, leaf = name.rpartition(".")
        kind: Kind
        if not dtype.is_floating_point:
            kind = "counter"
        elif path in groups and len(shape) <= 1:
            kind = "bn_stat" if leaf in _STATISTICS else "norm"
        else:
            kind = _by_dimensions(len(shape), leaf)
        specs.append(TensorSpec(name, shape, dtype, kind))
    return specs


def weights(specs: Iterable[TensorSpec]) -> list[TensorSpec]:
    """The specs that a merge rule may touch: all but running statistics and counters.

    Args:
        specs: specs of a model.
    """
    return [spec for spec in specs if spec.kind in WEIGHT_KINDS]


def block_names(specs: Iterable[TensorSpec]) -> list[str]:
    """Names of the blocks in forward order; ``block_names(specs)[spec.block]`` is the block of ``spec``.

    Args:
        specs: specs of a model.
    """
    return list(dict.fromkeys(spec.block_name for spec in specs if spec.block is not None))


def _kind(owner: nn.Module, leaf: str, value: Tensor, is_parameter: bool) -> Kind:
    if not value.dtype.is_floating_point:
        return "counter"
    if leaf in _STATISTICS and not is_parameter:
        return "bn_stat"
    if not is_parameter:
        return "counter"
    if isinstance(owner, _NORMS):
        return "norm"
    if value.ndim <= 1:
        return "vector"
    if isinstance(owner, _ConvNd) and leaf == "weight":
        return "conv"
    return "matrix" if isinstance(owner, _MATRICES) and value.ndim == 2 else "embedding"


def _normalises(name: str, dimensions: int) -> bool:
    leaf = name.rpartition(".")[2]
    return leaf == "running_mean" or (leaf == "weight" and dimensions == 1)


def _by_dimensions(dimensions: int, leaf: str) -> Kind:
    if dimensions <= 1:
        return "vector"
    if dimensions == 2:
        return "matrix"
    return "conv" if leaf == "weight" else "embedding"
