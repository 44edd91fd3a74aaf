"""One switch for mixed precision: the optimizer wrapper that fits the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIMIZERS
from torch import nn
from torch.optim import Optimizer

from symerge_dense.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class Bf16OptimWrapper(OptimWrapper):
    """bfloat16 autocast on the CPU. Needs no loss scaling: bfloat16 has the exponents of float32."""

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast around MMEngine's own context."""
        with super().optim_context(model), torch.autocast("cpu", torch.bfloat16):
            yield


def wrapper_type(amp: bool) -> str:
    """The registered name of the wrapper that fits the device, with or without mixed precision."""
    if not amp:
        return "OptimWrapper"
    return "AmpOptimWrapper" if torch.cuda.is_available() else "Bf16OptimWrapper"


def optim_wrapper(optimizer: Optimizer, amp: bool = False, **options: Any) -> OptimWrapper:
    """MMEngine's wrapper of ``optimizer``; with ``amp``, float16 with loss scaling on CUDA and bfloat16 on the CPU.

    ``options`` go to the wrapper (``clip_grad``, ``accumulative_counts``).
    """
    built: OptimWrapper = OPTIM_WRAPPERS.build({"type": wrapper_type(amp), "optimizer": optimizer, **options})
    return built


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class ParameterGroupsConstructor:
    """Builds an optimizer over ``model.parameter_groups()``: what learns, each group with a rate of its own.

    MMEngine's default constructor takes every parameter at one rate, frozen ones too.

    Args:
        optim_wrapper_cfg: of the wrapper, with the optimizer's inside: ``dict(type='OptimWrapper', optimizer={...})``.
        paramwise_cfg: must be left out: the groups are the model's.

    Raises:
        ValueError: ``paramwise_cfg`` is given.
    """

    def __init__(self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: dict[str, Any] | None = None) -> None:
        if paramwise_cfg:
            raise ValueError(
                f"paramwise_cfg={paramwise_cfg}: learning rates come from the model's options; set "
                "coefficient_lr and layer_lr there."
            )
        self.wrapper = dict(optim_wrapper_cfg)
        self.optimizer = self.wrapper.pop("optimizer", {"type": "Adam"})

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """The wrapper of an optimizer over the groups of ``model``, which may be wrapped for distributed training."""
        owner: Any = model.module if is_model_wrapper(model) else model
        optimizer = OPTIMIZERS.build({"params": owner.parameter_groups(), **self.optimizer})
        wrapper: OptimWrapper = OPTIM_WRAPPERS.build({"type": "OptimWrapper", "optimizer": optimizer, **self.wrapper})
        return wrapper
