"""The family of methods that sparsify every task vector, combine what is left, and add it to the base with a scale.

| method      | sparsify                | combine              |
|-------------|-------------------------|----------------------|
| ties        | global top share        | disjoint merge       |
| dare        | random drop             | sum                  |
| dare_ties   | random drop, top share  | disjoint merge       |
| breadcrumbs | magnitude band          | sum                  |
| magmax      | -                       | largest magnitude    |
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from symerge_dense.merging.arguments import check_number
from symerge_dense.merging.base import ALL_KINDS, Merger
from symerge_dense.merging.combine import Combination
from symerge_dense.merging.operands import Operands, add_delta
from symerge_dense.merging.order_statistics import Reading
from symerge_dense.merging.sparsify import Sparsifier
from symerge_dense.merging.tensor_specs import TensorSpec


class Sparsified(Merger):
    """theta_0 + scale * combine_t(sparsify(tau_t)). Scope: every kind of weight.

    Args:
        sparsifiers: applied one after the other, each to what the one before left. Their statistics passes follow in
            the same order.
        combine: combines the sparse task vectors, see ``merging.combine``.
        scale: factor of the combined task vector; any finite number.
    """

    treats = ALL_KINDS

    def __init__(self, sparsifiers: Sequence[Sparsifier], combine: Combination, scale: float) -> None:
        self.scale = check_number(self.name, "scale", scale)
        self.passes = sum(sparsifier.passes for sparsifier in sparsifiers)
        self.elementwise = all(sparsifier.elementwise for sparsifier in sparsifiers)
        self._sparsifiers, self._combine = tuple(sparsifiers), combine

    def begin(self, specs: list[TensorSpec], tasks: tuple[str, ...]) -> None:
        for sparsifier in self._sparsifiers:
            sparsifier.begin(tasks)

    def reads(self, number: int) -> Reading:
        stage, own_number = self._turn(number)
        return self._sparsifiers[stage].reads(own_number)

    def observe(self, number: int, operands: Operands) -> None:
        stage, own_number = self._turn(number)
        for task, delta in operands.deltas():
            self._sparsifiers[stage].observe(own_number, task, self._sparsify(operands, task, delta, stage))

    def end_pass(self, number: int) -> None:
        stage, own_number = self._turn(number)
        self._sparsifiers[stage].end_pass(own_number)

    def merge(self, operands: Operands) -> Tensor:
        stages = len(self._sparsifiers)
        if operands.part:
            stack = operands.base.new_empty(len(operands.tasks), *operands.base.shape)
            for row, (task, expert) in zip(stack, operands.experts(), strict=True):
                sparse = self._sparsify(operands, task, torch.sub(expert, operands.base, out=row), stages)
                if sparse is not row:  # else it was changed in place
                    row.copy_(sparse)
            return add_delta(operands, self._combine(stack), self.scale)
        left = (self._sparsify(operands, task, delta, stages) for task, delta in operands.deltas())
        return add_delta(operands, self._combine(left), self.scale)

    def _sparsify(self, operands: Operands, task: str, delta: Tensor, stages: int) -> Tensor:
        for sparsifier in self._sparsifiers[:stages]:
            delta = sparsifier(operands, task, delta)
        return delta

    def _turn(self, number: int) -> tuple[int, int]:
        """The sparsifier that statistics pass ``number`` belongs to, and the number of the pass among its own."""
        turns = [(stage, own) for stage, sparsifier in enumerate(self._sparsifiers) for own in range(sparsifier.passes)]
        return turns[number]
