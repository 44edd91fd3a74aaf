"""The networks of other programs, written from their published description, for tests of what is imported from them."""

import sys
import types

import torch
import torch.nn.functional as F
import torchvision
from torch import nn

CHANNELS = {"segmentation": 13, "depth": 1, "normal": 3}  # as LibMTL and FusionBench call the tasks
SIZE = (64, 96)


class DilatedEncoder(nn.Module):
    """A ResNet whose layers 3 and 4 trade their stride for dilation 2 and 4."""

    def __init__(self, depth=50):
        super().__init__()
        source = getattr(torchvision.models, f"resnet{depth}")(weights=None)
        for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            self.add_module(name, getattr(source, name))
        for layer, dilation in ((self.layer3, 2), (self.layer4, 4)):
            for conv in layer.modules():
                if isinstance(conv, nn.Conv2d):
                    strided = conv.stride == (2, 2)
                    conv.stride = (1, 1)
                    if conv.kernel_size == (3, 3):
                        conv.dilation = conv.padding = (dilation // 2,) * 2 if strided else (dilation,) * 2

    def forward(self, image):
        for module in self.children():
            image = module(image)
        return image


def block(inputs, outputs, kernel, **options):
    return [nn.Conv2d(inputs, outputs, kernel, bias=False, **options), nn.BatchNorm2d(outputs), nn.ReLU()]


class Pyramid(nn.Module):
    """Atrous spatial pyramid pooling with 256 channels and rates 12, 24, 36."""

    def __init__(self, inputs):
        super().__init__()
        self.convs = nn.ModuleList([nn.Sequential(*block(inputs, 256, 1))])
        for rate in (12, 24, 36):
            self.convs.append(nn.Sequential(*block(inputs, 256, 3, padding=rate, dilation=rate)))
        self.convs.append(nn.Sequential(nn.AdaptiveAvgPool2d(1), *block(inputs, 256, 1)))
        self.project = nn.Sequential(*block(1280, 256, 1), nn.Dropout(0.5))

    def forward(self, x):
        maps = [F.interpolate(conv(x), size=x.shape[-2:], mode="bilinear", align_corners=False) for conv in self.convs]
        return self.project(torch.cat(maps, dim=1))


def decoder(inputs, outputs):
    return nn.Sequential(Pyramid(inputs), *block(256, 256, 3, padding=1), nn.Conv2d(256, outputs, 1))


class MultiTask(nn.Module):
    """An encoder and a decoder per task: images (N,3,H,W) in 0..1 to {task: map (N,C,H,W)}."""

    def __init__(self, depth=50, tasks=tuple(CHANNELS)):
        super().__init__()
        self.encoder = DilatedEncoder(depth)
        width = 2048 if depth >= 50 else 512
        self.decoders = nn.ModuleDict({task: decoder(width, CHANNELS[task]) for task in tasks})

    def forward(self, image):
        features = self.encoder(image)
        return {
            task: F.interpolate(head(features), size=image.shape[-2:], mode="bilinear", align_corners=True)
            for task, head in self.decoders.items()
        }


def settled(network, seed=0):
    """The network in evaluation mode, with BatchNorm statistics as if it had been trained."""
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.3, 0.9)
            nn.init.normal_(module.bias, std=0.1)
    return network.eval()


def images(count=1):
    return torch.randint(0, 256, (count, 3, *SIZE), generator=torch.Generator().manual_seed(3)).float()


def plant(monkeypatch, name, *bases, **members):
    """A class of full ``name`` in a package that is not installed, for as long as a file is written with it."""
    module, _, attribute = name.rpartition(".")
    cls = type(attribute, bases, {"__module__": module, **members})
    for depth in range(1, module.count(".") + 2):
        part = ".".join(module.split(".")[:depth])
        monkeypatch.setitem(sys.modules, part, sys.modules.get(part) or types.ModuleType(part))
    monkeypatch.setattr(sys.modules[module], attribute, cls, raising=False)
    return cls
