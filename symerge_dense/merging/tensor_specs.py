"""The kind and depth of every tensor of a state dict, read off its module; mergers choose their rule by kind."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from symerge_dense.merging.sources import layouts

STEM = "stem"


# -- depth: the residual blocks of a ResNet, the blocks of a ViT ------------------------------------------------------
def block_of_tensors(module: nn.Module, names: Iterable[str]) -> dict[str, str]:
    """Assign every tensor to a block of the network.

    A chain is an ``nn.Sequential`` or ``nn.ModuleList`` of composite modules of one class, where the class occurs at
    least twice in the model's chains. Of nested chains (stages of blocks) the innermost counts. Each of its children is
    a block under its own dotted name. Everything before the first chain is the block 'stem'. A tensor between or after
    chains (a downsampling, a final norm) goes by the largest subtree without a chain. Without chains every direct child
    is a block.

    Args:
        module: the network.
        names: names of its tensors, in state-dict order.

    Returns:
        Tensor name -> block name.
    """
    links = _links(module)
    above = {path.rsplit(".", depth)[0] for path in links for depth in range(1, path.count(".") + 1)} | {""}
    blocks: dict[str, str] = {}
    seen = not links
    for name in names:
        prefixes = _prefixes(name)
        link = next((path for path in prefixes if path in links), None)
        seen = seen or link is not None
        outside = next((path for path in prefixes if path not in above), STEM) if seen else STEM
        blocks[name] = link or outside
    return blocks


def _links(module: nn.Module) -> set[str]:
    """Dotted names of the modules that repeat."""
    chains = {}
    for path, container in module.named_modules():
        if not isinstance(container, (nn.Sequential, nn.ModuleList)):
            continue
        children = {
            f"{path}.{name}".lstrip("."): child for name, child in container.named_children() if _has_state(child)
        }
        composite = all(any(map(_has_state, child.children())) for child in children.values())
        if composite and len({type(child) for child in children.values()}) == 1:
            chains[path] = children
    occurrences = Counter(type(child) for children in chains.values() for child in children.values())
    repeating = {
        path: children
        for path, children in chains.items()
        if all(occurrences[type(child)] > 1 for child in children.values())
    }
    innermost = [
        children
        for path, children in repeating.items()
        if not any(other != path and other.startswith(f"{path}." if path else "") for other in repeating)
    ]
    return {link for children in innermost for link in children}


def _has_state(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None or next(module.buffers(), None) is not None


def _prefixes(name: str) -> list[str]:
    """Module paths above a tensor, outermost first: 'a.b.weight' -> ['a', 'a.b']."""
    parts = name.split(".")[:-1]
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


# -- kinds ------------------------------------------------------------------------------------------------------------
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
    links = _links(module)
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
