"""Task heads: from features to raw output at the head's own resolution, with names for the layers that adapt.

Shape legend: N images, C output channels, h x w the head's resolution.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from symerge_dense.registry import did_you_mean

WHOLE_HEAD = "head"


class Head(nn.Module, ABC):
    """A task head: ``forward(features) -> (N,channels,h,w)``.

    ``layers`` maps the names of adaptable layers to dotted submodule names of the head: 'final' is the predictor,
    'pre_final' the convolution before it with its norm (empty in heads without one).

    Attributes:
        pooled: whether it gives one value for the whole image, (N,channels,1,1), as image-level tasks need.

    Args:
        in_channels: of the backbone's features, finest first.
        strides: of the same features.
        channels: output channels of the task.
        **options: the head's own arguments, JSON-able; ``spec`` repeats them.

    Raises:
        ValueError: ``channels`` is below 1, or ``in_channels`` and ``strides`` differ in length or are empty.
    """

    name: ClassVar[str]
    pooled: ClassVar[bool] = False
    layers: dict[str, tuple[str, ...]]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" not in vars(cls):
            cls.name = cls.__name__  # as a registry has it

    def __init__(self, in_channels: Sequence[int], strides: Sequence[int], channels: int, **options: Any) -> None:
        super().__init__()
        if channels < 1 or len(in_channels) != len(strides) or not in_channels:
            raise ValueError(
                f"head {self.name!r}: channels={channels} must be >= 1, and "
                f"in_channels={list(in_channels)} and strides={list(strides)} must have one entry each "
                "per feature."
            )
        self.channels = channels
        self.options = options

    @abstractmethod
    def forward(self, features: list[Tensor]) -> Tensor:
        """Raw output (N,channels,h,w).

        Args:
            features: the backbone's feature maps (N,in_channels,h,w), finest first.
        """

    @property
    def spec(self) -> dict[str, Any]:
        """``{'type': name, **options}``: builds this head again in any multi-task model."""
        return {"type": self.name, **self.options}

    def layer_modules(self, name: str) -> list[str]:
        """Submodule names of a layer.

        Args:
            name: 'final', 'pre_final', any dotted submodule name, or 'head', all of it.

        Returns:
            Names for ``get_submodule``; 'head' has the single name '', which stands for the head itself.

        Raises:
            ValueError: the head has no such layer.
        """
        if name == WHOLE_HEAD:
            return [""]
        if self.layers.get(name):
            return list(self.layers[name])
        if name in self.layers:
            raise ValueError(
                f"unknown layer {name!r}: head {self.name!r} has no convolution before its predictor; "
                "adapt the predictor itself, layer='final'."
            )
        modules = self._submodules()
        if name in modules:
            return [modules[name]]
        named = [WHOLE_HEAD, *(key for key, value in self.layers.items() if value)]
        raise ValueError(did_you_mean(name, [*named, *modules], "layer") + f" They are layers of head {self.name!r}.")

    def _submodules(self) -> dict[str, str]:
        """{name as the user gives it: name seen from the head} of all submodules."""
        return {name: name for name, _ in self.named_modules() if name}

    def refuse_single_image(self, images: int) -> None:
        """Refuse a batch of one image in training, if a BatchNorm follows a global pooling.

        Args:
            images: in the batch.

        Raises:
            ValueError: such a BatchNorm would see a single value per channel.
        """
        if images != 1 or not self.training:
            return
        for name, module in self.named_modules():
            pools = any(isinstance(m, nn.AdaptiveAvgPool2d) and m.output_size in (1, (1, 1)) for m in module.children())
            if pools and any(isinstance(m, _BatchNorm) and m.training for m in module.modules()):
                raise ValueError(
                    f"batch size 1: BatchNorm after the global pooling in '{name}' of head {self.name!r} "
                    "needs two images in training; use batch_size >= 2 (and more images than that)."
                )
