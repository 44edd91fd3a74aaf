"""Task heads: features in, raw output at the head's own resolution out, with names for the layers that adapt.

Shape legend: N images, C output channels, h x w the head's resolution.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from symerge_dense.registry import HEADS, nearest

WHOLE_HEAD = "head"

class Head(nn.Module, ABC):
    """A task head: ``forward(features) -> (N,channels,h,w)``.

    Args:
        in_channels, strides: of the backbone's features, finest first.
        channels: output channels of the task.
        options: the head's own arguments, JSON-able; ``spec`` repeats them.

    ``layers`` names what may be adapted: 'final' is the predictor, 'pre_final' the normalised convolution before it
    (convolution and norm; empty in heads without one), each as dotted submodule names seen from the head.
    """

    name: ClassVar[str]
    layers: dict[str, tuple[str, ...]]

    def __init__(self, in_channels: Sequence[int], strides: Sequence[int], channels: int, **options: Any) -> None:
        super().__init__()
        if channels < 1 or len(in_channels) != len(strides) or not in_channels:
            raise ValueError(f"head {self.name!r}: channels={channels} must be >= 1, and "
                             f"in_channels={list(in_channels)} and strides={list(strides)} must have one entry each "
                             "per feature.")
        self.channels = channels
        self.options = options

    @abstractmethod
    def forward(self, features: list[Tensor]) -> Tensor:
        """Raw output (N,channels,h,w) of the backbone's features."""

    @property
    def spec(self) -> dict[str, Any]:
        """``{'type': name, **options}``: builds this head again in any multi-task model."""
        return {"type": self.name, **self.options}

    def layer_modules(self, name: str) -> list[str]:
        """Submodule names of layer ``name``: 'final', 'pre_final' or any dotted submodule name. Unknown: ValueError.

        'head' is all of it: the one name '', which is the head itself as ``get_submodule`` has it.
        """
        if name == WHOLE_HEAD:
            return [""]
        if self.layers.get(name):
            return list(self.layers[name])
        if name in self.layers:
            raise ValueError(f"unknown layer {name!r}: head {self.name!r} has no convolution before its predictor; "
                             "adapt the predictor itself, layer='final'.")
        modules = [module for module, _ in self.named_modules() if module]
        if name in modules:
            return [name]
        named = [WHOLE_HEAD, *(key for key, value in self.layers.items() if value)]
        raise ValueError(nearest(name, [*named, *modules], "layer") +
                         f" They are layers of head {self.name!r}.")

    def refuse_single_image(self, images: int) -> None:
        """Raise ValueError where one image is all that a BatchNorm after global pooling would see in training."""
        if images != 1 or not self.training:
            return
        for name, module in self.named_modules():
            pools = any(isinstance(m, nn.AdaptiveAvgPool2d) and m.output_size in (1, (1, 1)) for m in module.children())
            if pools and any(isinstance(m, _BatchNorm) and m.training for m in module.modules()):
                raise ValueError(f"batch size 1: BatchNorm after the global pooling in '{name}' of head {self.name!r} "
                                 "needs two images in training; use batch_size >= 2 (and more images than that).")


@HEADS.register
class DeepLab(Head):
    """torchvision's DeepLabv3 head on the last feature (Chen et al. 2017, arXiv 1706.05587).

    Its tensor names ('0.convs.0.0.weight', '4.bias', ...) are those of torchvision's DeepLabHead.

    Args:
        atrous_rates: dilation of the three parallel convolutions.
    """

    name: ClassVar[str] = "DeepLab"

    def __init__(self, in_channels: Sequence[int], strides: Sequence[int], channels: int,
                 atrous_rates: Sequence[int] = (12, 24, 36)) -> None:
        super().__init__(in_channels, strides, channels, atrous_rates=list(atrous_rates))
        for name, module in DeepLabHead(in_channels[-1], channels, tuple(atrous_rates)).named_children():
            self.add_module(name, module)
        self.layers = {"final": ("4",), "pre_final": ("1", "2")}

    def forward(self, features: list[Tensor]) -> Tensor:
        """At the last feature's resolution."""
        output = features[-1]
        for module in self.children():
            output = module(output)
        return output


@HEADS.register
class MultiScale(Head):
    """A light head on all features, after the semantic FPN of Kirillov et al. 2019 (arXiv 1901.02446).

    Every feature is brought to ``width`` channels (1x1) and, bilinearly, to the finest resolution; their sum goes
    through a 3x3 convolution with BatchNorm and ReLU to the 1x1 predictor.
    """

    name: ClassVar[str] = "MultiScale"

    def __init__(self, in_channels: Sequence[int], strides: Sequence[int], channels: int, width: int = 128) -> None:
        super().__init__(in_channels, strides, channels, width=width)
        self.laterals = nn.ModuleList([nn.Conv2d(count, width, 1) for count in in_channels])
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.predict = nn.Conv2d(width, channels, 1)
        self.layers = {"final": ("predict",), "pre_final": ("conv", "norm")}

    def forward(self, features: list[Tensor]) -> Tensor:
        """At the first (finest) feature's resolution."""
        size = features[0].shape[-2:]
        maps = [lateral(feature) for lateral, feature in zip(self.laterals, features, strict=True)]
        total = maps[0]
        for coarse in maps[1:]:
            total = total + F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
        output: Tensor = self.predict(F.relu(self.norm(self.conv(total))))
        return output


@HEADS.register
class Linear(Head):
    """One 1x1 convolution on the last feature: linear evaluation, as of DINOv2 (Oquab et al. 2023, arXiv 2304.07193).

    Args:
        norm: BatchNorm of the feature before it, as there.
    """

    name: ClassVar[str] = "Linear"

    def __init__(self, in_channels: Sequence[int], strides: Sequence[int], channels: int, norm: bool = True) -> None:
        super().__init__(in_channels, strides, channels, norm=norm)
        self.norm = nn.BatchNorm2d(in_channels[-1]) if norm else nn.Identity()
        self.predict = nn.Conv2d(in_channels[-1], channels, 1)
        self.layers = {"final": ("predict",), "pre_final": ()}

    def forward(self, features: list[Tensor]) -> Tensor:
        """At the last feature's resolution."""
        output: Tensor = self.predict(self.norm(features[-1]))
        return output
