"""One switch for mixed precision: the optimizer wrapper that fits the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import nn
from torch.optim import Optimizer


class Bf16OptimWrapper(OptimWrapper):
    """bfloat16 autocast on the CPU. Needs no loss scaling: bfloat16 has the exponents of float32."""

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast around MMEngine's own context."""
        with super().optim_context(model), torch.autocast("cpu", torch.bfloat16):
            yield


def optim_wrapper(optimizer: Optimizer, amp: bool = False, **options: Any) -> OptimWrapper:
    """MMEngine's wrapper of ``optimizer``; with ``amp``, float16 with loss scaling on CUDA and bfloat16 on the CPU.

    ``options`` go to the wrapper (``clip_grad``, ``accumulative_counts``).
    """
    if not amp:
        return OptimWrapper(optimizer, **options)
    if torch.cuda.is_available():
        return AmpOptimWrapper(optimizer=optimizer, **options)
    return Bf16OptimWrapper(optimizer, **options)
