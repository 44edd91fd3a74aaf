"""Which static methods draw at random: only those are worth several runs."""

from __future__ import annotations

import torch

from symerge_dense.merging.base import Merger, merge_state
from symerge_dense.merging.kinds import TensorSpec

SIZE = 16


def draws(merger: Merger) -> bool:
    """Whether two seeds give two results, tried on one small matrix. Methods that need statistics are taken not to."""
    if merger.needs:
        return False
    generator = torch.Generator().manual_seed(0)
    base, *experts = ({"weight": torch.randn(SIZE, SIZE, generator=generator)} for _ in range(3))
    named = {str(number): expert for number, expert in enumerate(experts)}
    specs = [TensorSpec("weight", (SIZE, SIZE), torch.float32, "matrix", 0, 1)]
    task = next(iter(named)) if merger.per_task else None
    first, second = (merge_state(merger, base, named, specs, seed=seed, task=task) for seed in (0, 1))
    return not torch.equal(first["weight"], second["weight"])
