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
        """Autocast inside MMEngine's own context.

        Args:
            model: as in MMEngine's ``OptimWrapper``.
        """
        with super().optim_context(model), torch.autocast("cpu", torch.bfloat16):
            yield


def wrapper_type(amp: bool) -> str:
    """The registered name of the optimizer wrapper that fits the device.

    Args:
        amp: whether to use mixed precision.
    """
    if not amp:
        return "OptimWrapper"
    return "AmpOptimWrapper" if torch.cuda.is_available() else "Bf16OptimWrapper"


def optim_wrapper(optimizer: Optimizer, amp: bool = False, **options: Any) -> OptimWrapper:
    """Wrap an optimizer for MMEngine.

    Args:
        optimizer: what to wrap.
        amp: mixed precision: float16 with loss scaling on CUDA, bfloat16 on the CPU.
        **options: of the wrapper, such as ``clip_grad`` and ``accumulative_counts``.
    """
    built: OptimWrapper = OPTIM_WRAPPERS.build({"type": wrapper_type(amp), "optimizer": optimizer, **options})
    return built


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class ParameterGroupsConstructor:
    """Builds an optimizer over ``model.parameter_groups()``: the trained parameters, each group with its own rate.

    MMEngine's default constructor takes every parameter at one rate, frozen ones too.

    Args:
        optim_wrapper_cfg: ``dict(type='OptimWrapper', optimizer={...})``.
        paramwise_cfg: must be None, because the model defines the groups.

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
        """Build the optimizer and its wrapper for ``model``, which may be wrapped for distributed training."""
        owner: Any = model.module if is_model_wrapper(model) else model
        optimizer = OPTIMIZERS.build({"params": owner.parameter_groups(), **self.optimizer})
        wrapper: OptimWrapper = OPTIM_WRAPPERS.build({"type": "OptimWrapper", "optimizer": optimizer, **self.wrapper})
        return wrapper
