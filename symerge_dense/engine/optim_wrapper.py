"""The optimizer wrapper that fits the device and the model: mixed precision, sharpness-aware steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.model import is_model_wrapper
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIMIZERS
from torch import nn
from torch.optim import Optimizer

from symerge_dense.engine.sharpness import SharpnessAware
from symerge_dense.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class Bf16OptimWrapper(OptimWrapper):
    """bfloat16 autocast. Needs no loss scaling: bfloat16 has the exponents of float32."""

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast inside MMEngine's own context.

        Args:
            model: as in MMEngine's ``OptimWrapper``; its parameters are where the work is done.
        """
        with super().optim_context(model), torch.autocast(next(model.parameters()).device.type, torch.bfloat16):
            yield


@OPTIM_WRAPPERS.register_module()
class SharpOptimWrapper(SharpnessAware):
    """Sharpness-aware steps without mixed precision."""


@OPTIM_WRAPPERS.register_module()
class SharpBf16OptimWrapper(SharpnessAware, Bf16OptimWrapper):
    """Sharpness-aware steps with bfloat16."""


@OPTIM_WRAPPERS.register_module()
class SharpAmpOptimWrapper(SharpnessAware, AmpOptimWrapper):
    """Sharpness-aware steps with float16 and loss scaling on CUDA."""


SHARP: dict[type, type[SharpnessAware]] = {
    OptimWrapper: SharpOptimWrapper,
    Bf16OptimWrapper: SharpBf16OptimWrapper,
    AmpOptimWrapper: SharpAmpOptimWrapper,
}
"""The sharpness-aware form of each optimizer wrapper."""


def half_precision(device: str) -> torch.dtype:
    """The type of mixed precision on a device: bfloat16, or float16 on a GPU that lacks it.

    Args:
        device: its kind, such as 'cpu' or 'cuda'.
    """
    lacks_bf16 = device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.float16 if lacks_bf16 else torch.bfloat16


def wrapper_type(amp: bool) -> str:
    """The registered name of the optimizer wrapper that fits the device.

    Args:
        amp: whether to use mixed precision.
    """
    if not amp:
        return "OptimWrapper"
    scaled = half_precision("cuda" if torch.cuda.is_available() else "cpu") == torch.float16
    return "AmpOptimWrapper" if scaled else "Bf16OptimWrapper"


def optim_wrapper(optimizer: Optimizer, amp: bool = False, **options: Any) -> OptimWrapper:
    """Wrap an optimizer for MMEngine.

    Args:
        optimizer: what to wrap.
        amp: mixed precision: bfloat16, or float16 with loss scaling on a GPU that lacks bfloat16.
        **options: of the wrapper, such as ``clip_grad`` and ``accumulative_counts``.
    """
    built: OptimWrapper = OPTIM_WRAPPERS.build({"type": wrapper_type(amp), "optimizer": optimizer, **options})
    return built


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class ParameterGroupsConstructor:
    """Builds an optimizer over ``model.parameter_groups()``: the trained parameters, each group with its own rate.

    MMEngine's default constructor takes every parameter at one rate, frozen ones too. A model that has a ``sharpness``
    other than 0 gets the sharpness-aware form of the wrapper.

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
        """Build the optimizer and its wrapper for ``model``, which may be wrapped for distributed training.

        Raises:
            ValueError: the model asks for sharpness-aware steps, which the wrapper does not have.
        """
        owner: Any = model.module if is_model_wrapper(model) else model
        optimizer = OPTIMIZERS.build({"params": owner.parameter_groups(), **self.optimizer})
        config = {"type": "OptimWrapper", "optimizer": optimizer, **self.wrapper}
        if sharpness := getattr(owner, "sharpness", 0.0):
            config |= {"type": _sharp(config["type"]), "sharpness": sharpness}
        wrapper: OptimWrapper = OPTIM_WRAPPERS.build(config)
        return wrapper


def _sharp(kind: str | type) -> type[SharpnessAware]:
    wrapper = OPTIM_WRAPPERS.get(kind) if isinstance(kind, str) else kind
    if isinstance(wrapper, type) and issubclass(wrapper, SharpnessAware):
        return wrapper
    if wrapper not in SHARP:
        raise ValueError(
            f"optim_wrapper.type={kind!r} has no sharpness-aware form; use one of "
            f"{', '.join(known.__name__ for known in SHARP)}, or sharpness=0."
        )
    return SHARP[wrapper]
