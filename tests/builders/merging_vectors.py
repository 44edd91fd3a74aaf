"""Small states whose task vectors are known, and the whole model as one vector, for references written on vectors."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

import symerge_dense.merging
from symerge_dense.merging.base import Merger
from symerge_dense.merging.run import merge_state
from symerge_dense.merging.tensor_specs import TensorSpec
from symerge_dense.registry import MERGERS

for _module in pkgutil.iter_modules(symerge_dense.merging.__path__):
    importlib.import_module(f"symerge_dense.merging.{_module.name}")  # here, where it is no test's time

SHAPES = {
    "conv3.weight": (4, 3, 3, 3),
    "conv3.bias": (4,),
    "conv1.weight": (2, 4, 1, 1),
    "fc.weight": (6, 7),
    "temperature": (1,),
    "scale": (),
}
SIZE = sum(torch.Size(shape).numel() for shape in SHAPES.values())
NAMES = {1: ("a",), 2: ("a", "b"), 3: ("a", "b", "c")}


def deltas(count: int, seed: int = 0, grid: float = 0.0) -> Tensor:
    """Random task vectors (T, d); with ``grid`` > 0 multiples of it, so that many are equal and some are zero."""
    values = torch.randn(count, SIZE, generator=torch.Generator().manual_seed(seed))
    return (values / grid).round() * grid if grid else values


def state(vector: Tensor) -> dict[str, Tensor]:
    """The state whose concatenation is ``vector``."""
    parts = vector.split([torch.Size(shape).numel() for shape in SHAPES.values()])
    return {name: part.clone().view(shape) for (name, shape), part in zip(SHAPES.items(), parts, strict=True)}


def vector(merged: Mapping[str, Tensor]) -> Tensor:
    """The concatenation of a state."""
    return torch.cat([merged[name].reshape(-1) for name in SHAPES])


def build(name: str, **arguments: Any) -> Merger:
    """A registered merger."""
    merger: Merger = MERGERS.build({"type": name, **arguments})
    return merger


def merge(
    name: str,
    taus: Tensor,
    *,
    specs: list[TensorSpec] | None = None,
    seed: int = 0,
    task: str | None = None,
    **arguments: Any,
) -> Tensor:
    """What the method adds to a base of zeros, where experts and their task vectors (T, d) are the same numbers."""
    experts = {task: state(tau) for task, tau in zip(NAMES[len(taus)], taus, strict=True)}
    base = state(torch.zeros(SIZE, dtype=taus.dtype))
    return vector(merge_state(build(name, **arguments), base, experts, specs, seed=seed, task=task))
