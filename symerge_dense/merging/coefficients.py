"""Which tensors share merging coefficients, and where the coefficients start."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from symerge_dense.merging.kinds import TensorSpec
from symerge_dense.registry import nearest

GRANULARITIES = ("tensor", "block", "task")


def groups_of(specs: Sequence[TensorSpec], granularity: str) -> dict[str, tuple[str, ...]]:
    """Group name -> names of its tensors: one group per tensor, per block, or 'all'.

    Raises ValueError for no tensor, an unknown granularity, or blocks that the specs do not know.
    """
    if not specs:
        raise ValueError("there is no weight to merge among the specs; running statistics and counters do not count.")
    if granularity not in GRANULARITIES:
        raise ValueError(nearest(granularity, GRANULARITIES, "granularity"))
    groups: dict[str, tuple[str, ...]] = {}
    for spec in specs:
        if granularity == "block" and spec.block is None:
            raise ValueError(f"tensor {spec.name!r} belongs to no known block; make the specs from the module "
                             "(tensor_specs), or use granularity='tensor'.")
        key = {"tensor": spec.name, "block": spec.block_name or f"block {spec.block}", "task": "all"}[granularity]
        groups[key] = (*groups.get(key, ()), spec.name)
    return groups


def initial_coefficients(init: float | Mapping[str, float] | Tensor, groups: Collection[str], tasks: Sequence[str],
                         clamp: tuple[float, float] | None) -> Tensor:
    """Start values (G, T), float32. Raises ValueError if they do not fit tasks, groups or the clamp range."""
    if isinstance(init, Mapping):
        if set(init) != set(tasks):
            raise ValueError(f"init names {sorted(init)}, the tasks are {sorted(tasks)}; give every task one number.")
        init = torch.tensor([float(init[task]) for task in tasks])
    shape = (len(groups), len(tasks))
    start = torch.as_tensor(init, dtype=torch.float32).detach()
    try:
        start = start.expand(shape).clone()
    except RuntimeError:
        found = tuple(start.shape)
        raise ValueError(f"init has shape {found}; it must broadcast to (groups, tasks) = {shape}.") from None
    if not bool(start.isfinite().all()):
        raise ValueError("init holds NaN or infinite coefficients; pass finite numbers.")
    if clamp is not None and not clamp[0] < clamp[1]:
        raise ValueError(f"clamp is {clamp}; it must be (low, high) with low < high, or None.")
    if clamp is not None and not bool(((start >= clamp[0]) & (start <= clamp[1])).all()):
        raise ValueError(f"init spans {start.min():g} to {start.max():g}, outside clamp={clamp}; change one of them.")
    return start
