"""The heads of this package: torchvision's DeepLabv3, a light multi-scale one, one linear layer, and pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from symerge_dense.models.heads.base import Head
from symerge_dense.registry import HEADS


@HEADS.register_module()
class DeepLab(Head):
    """torchvision's DeepLabv3 head on the last feature, at its resolution (Chen et al. 2017, arXiv 1706.05587).

    Its tensor names ('0.convs.0.0.weight', '4.bias', ...) are those of torchvision's DeepLabHead.

    Args:
        in_channels: of the backbone's features, finest first.
        strides: of the same features.
        channels: output channels of the task.
        atrous_rates: dilation of the three parallel convolutions.
    """

    name: ClassVar[str] = "DeepLab"

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        channels: int,
        atrous_rates: Sequence[int] = (12, 24, 36),
    ) -> None:
        super().__init__(in_channels, strides, channels, atrous_rates=list(atrous_rates))
        for name, module in DeepLabHead(in_channels[-1], channels, tuple(atrous_rates)).named_children():
            self.add_module(name, module)
        self.layers = {"final": ("4",), "pre_final": ("1", "2")}

    def forward(self, features: list[Tensor]) -> Tensor:
        output = features[-1]
        for module in self.children():
            output = module(output)
        return output


@HEADS.register_module()
class MultiScale(Head):
    """A light head on all features, after the semantic FPN of Kirillov et al. 2019 (arXiv 1901.02446).

    A 1x1 convolution brings every feature to ``width`` channels, bilinear upsampling to the finest resolution. Their
    sum goes through a 3x3 convolution with BatchNorm and ReLU to the 1x1 predictor. The output has the resolution of
    the first (finest) feature.

    Args:
        in_channels: of the backbone's features, finest first.
        strides: of the same features.
        channels: output channels of the task.
        width: channels inside the head.
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
        size = features[0].shape[-2:]
        maps = [lateral(feature) for lateral, feature in zip(self.laterals, features, strict=True)]
        total = maps[0]
        for coarse in maps[1:]:
            total = total + F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
        output: Tensor = self.predict(F.relu(self.norm(self.conv(total))))
        return output


@HEADS.register_module()
class Linear(Head):
    """One 1x1 convolution on the last feature, at its resolution.

    It is the linear evaluation of DINOv2 (Oquab et al. 2023, arXiv 2304.07193).

    Args:
        in_channels: of the backbone's features, finest first.
        strides: of the same features.
        channels: output channels of the task.
        norm: put BatchNorm before the convolution, as DINOv2 does.
    """

    name: ClassVar[str] = "Linear"

    def __init__(self, in_channels: Sequence[int], strides: Sequence[int], channels: int, norm: bool = True) -> None:
        super().__init__(in_channels, strides, channels, norm=norm)
        self.norm = nn.BatchNorm2d(in_channels[-1]) if norm else nn.Identity()
        self.predict = nn.Conv2d(in_channels[-1], channels, 1)
        self.layers = {"final": ("predict",), "pre_final": ()}

    def forward(self, features: list[Tensor]) -> Tensor:
        output: Tensor = self.predict(self.norm(features[-1]))
        return output


@HEADS.register_module()
class Pooled(Head):
    """One value for the whole image: the last feature's mean, a 1x1 convolution with ReLU, and the predictor.

    For image-level tasks, as in image classification. There is no BatchNorm, so that one image is a batch.

    Args:
        in_channels: of the backbone's features, finest first.
        strides: of the same features.
        channels: output channels of the task.
        width: channels inside the head.
    """

    name: ClassVar[str] = "Pooled"
    pooled: ClassVar[bool] = True

    def __init__(self, in_channels: Sequence[int], strides: Sequence[int], channels: int, width: int = 128) -> None:
        super().__init__(in_channels, strides, channels, width=width)
        self.conv = nn.Conv2d(in_channels[-1], width, 1)
        self.predict = nn.Conv2d(width, channels, 1)
        self.layers = {"final": ("predict",), "pre_final": ("conv",)}

    def forward(self, features: list[Tensor]) -> Tensor:
        mean = features[-1].mean(dim=(2, 3), keepdim=True)
        output: Tensor = self.predict(F.relu(self.conv(mean)))
        return output
