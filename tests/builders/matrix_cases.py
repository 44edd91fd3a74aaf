"""Task vectors of one weight, and what a merger makes of them: the ground of the tests of matrix methods."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import symerge_dense.merging
from symerge_dense.merging.run import merge_state
from symerge_dense.registry import MERGERS

for _module in pkgutil.iter_modules(symerge_dense.merging.__path__):
    importlib.import_module(f"symerge_dense.merging.{_module.name}")  # here, where it is no test's time

NAME = "layer.weight"
Array = NDArray[np.float64]


def random_taus(count: int, *shape: int, seed: int = 0, decay: float = 0.0, size: float = 1.0) -> list[Tensor]:
    """Random float64 task vectors; with ``decay`` the k-th singular value of each falls as k ** -decay."""
    generator = torch.Generator().manual_seed(seed)
    taus = []
    for _ in range(count):
        noise = torch.randn(shape[0], int(np.prod(shape[1:])), generator=generator, dtype=torch.float64)
        left, values, right = torch.linalg.svd(noise, full_matrices=False)
        values = values * torch.arange(1, len(values) + 1, dtype=torch.float64) ** -decay
        taus.append(size * (left * values @ right).reshape(shape))
    return taus


def delta(
    method: str,
    taus: Sequence[Tensor],
    extras: Mapping[str, Sequence[Tensor]] | None = None,
    base: Tensor | None = None,
    **arguments: Any,
) -> Tensor:
    """What ``method`` adds to ``base`` (zeros) for experts base + tau; ``extras``: {what: one tensor per expert}."""
    origin = torch.zeros_like(taus[0]) if base is None else base
    tasks = [f"task{number:02}" for number in range(len(taus))]
    experts = {task: {NAME: origin + tau} for task, tau in zip(tasks, taus, strict=True)}
    given = {
        what: {task: {NAME: value} for task, value in zip(tasks, values, strict=True)}
        for what, values in (extras or {}).items()
    }
    merger = MERGERS.build({"type": method, **arguments})
    return merge_state(merger, {NAME: origin}, experts, extras=given)[NAME] - origin


def arrays(taus: Sequence[Tensor]) -> list[Array]:
    """The same as numpy matrices (m, n), for independent references."""
    return [tau.double().reshape(tau.shape[0], -1).numpy() for tau in taus]
