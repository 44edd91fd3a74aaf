"""torchvision's and OpenMMLab's ResNets told apart by their tensors, and given the names that timm uses."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import Tensor

# (bottleneck blocks?, blocks per layer) -> depth; He et al. 2016, arXiv 1512.03385, table 1
DEPTHS: dict[tuple[bool, tuple[int, ...]], int] = {
    (False, (2, 2, 2, 2)): 18,
    (False, (3, 4, 6, 3)): 34,
    (True, (3, 4, 6, 3)): 50,
    (True, (3, 4, 23, 3)): 101,
    (True, (3, 8, 36, 3)): 152,
}
BASIC = (18, 34)  # depths of two 3x3 convolutions per block
# OpenMMLab's deep stem is one sequence; timm calls its last norm bn1, and the rest conv1.
STEM = {**{f"stem.{index}.": f"conv1.{index}." for index in (0, 1, 3, 4, 6)}, "stem.7.": "bn1."}


def depth_of(names: Iterable[str], source: str) -> int:
    """Depth of a ResNet by its tensors' names: 18, 34, 50, 101 or 152.

    Args:
        names: of the backbone's tensors.
        source: where they come from, for messages.

    Raises:
        ValueError: the names belong to another network.
    """
    names = set(names)
    blocks = {found.groups() for name in names if (found := re.match(r"layer(\d+)\.(\d+)\.", name))}
    counts = tuple(count for _, count in sorted(Counter(layer for layer, _ in blocks).items()))
    bottleneck = "layer1.0.conv3.weight" in names
    if (bottleneck, counts) not in DEPTHS:
        parts = ", ".join(sorted({name.split(".")[0] for name in names})[:10])
        raise ValueError(
            f"the backbone of {source} is no ResNet-18/34/50/101/152: blocks per layer {list(counts)}, "
            f"parts {parts}. Only those are imported."
        )
    if any(".downsample.2." in name for name in names):
        raise ValueError(
            f"the backbone of {source} downsamples by average pooling (ResNetV1d); timm's dilated form of "
            "it computes something else, so it is not imported. ResNet, V1b and V1c are."
        )
    return DEPTHS[bottleneck, counts]


def resnet_spec(state: Mapping[str, Tensor], output_stride: int, source: str) -> dict[str, Any]:
    """Arguments of the TimmBackbone that the tensors belong to.

    Args:
        state: the backbone's tensors by name.
        output_stride: 8, 16 or 32; 32 is the undilated network.
        source: where the tensors come from, for messages.

    Raises:
        ValueError: timm has no such network.
    """
    depth = depth_of(state, source)
    deep = "stem.0.weight" in state
    if deep and depth in BASIC:
        raise ValueError(
            f"{source}: timm has no ResNet-{depth} with a deep stem (V1c); V1c is imported at depth 50, 101 and 152."
        )
    if output_stride not in (8, 16, 32):
        raise ValueError(f"output_stride={output_stride} must be 8, 16 or 32.")
    stride = {} if output_stride == 32 else {"output_stride": output_stride}
    return {"name": f"resnet{depth}c" if deep else f"resnet{depth}.tv_in1k", **stride}


def with_timm_stem(state: Mapping[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """Rename the tensors of OpenMMLab's deep stem to timm's names.

    Args:
        state: a backbone's tensors by name.
        wanted: tensor names of timm's network.

    Returns:
        The renamed tensors; as they are, where ``state`` has no deep stem or ``wanted`` none of its names.
    """
    if "stem.7.weight" not in state or "conv1.6.weight" not in wanted:
        return dict(state)
    old = {name: next((part for part in STEM if name.startswith(part)), "") for name in state}
    return {STEM.get(old[name], "") + name.removeprefix(old[name]): value for name, value in state.items()}
