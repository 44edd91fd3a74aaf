"""Context managers that put networks into evaluation mode for a while, and restore modes and devices."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; on leaving, every submodule has its former mode back.

    Each submodule is restored on its own: a part that was frozen in evaluation mode stays so.

    Args:
        *modules: networks; their weights and devices are left as they are.
    """
    modes = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def left_alone(modules: Collection[nn.Module]) -> Iterator[None]:
    """On leaving, the networks are back on their former devices and in their former modes.

    Args:
        modules: networks with at least one parameter each.
    """
    devices = [next(module.parameters()).device for module in modules]
    modes = [(part, part.training) for module in modules for part in module.modules()]
    try:
        yield
    finally:
        for module, device in zip(modules, devices, strict=True):
            module.to(device)
        for part, training in modes:
            part.training = training
