"""The family of methods with one unified task vector for all tasks and a mask of one bit per weight for each."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from symerge_dense.merging.base import ALL_KINDS, Merger
from symerge_dense.merging.operands import Operands, add_delta


class Masked(Merger):
    """theta_t = theta_0 + factor_t * M_t * tau. Scope: every kind of weight.

    T sets of weights are stored as one (``merging.packed``): tau once, and M_t, one bit per weight, and a factor for
    each task. They cost one encoder pass per task for one image.
    """

    per_task = True
    extra_bits = 1
    treats = ALL_KINDS

    @abstractmethod
    def unify(self, deltas: Sequence[Tensor]) -> Tensor:
        """The unified task vector of one tensor, from all tau_t, which it leaves as they are."""

    @abstractmethod
    def choose(self, task: str, delta: Tensor, unified: Tensor) -> Tensor:
        """The bool mask of ``task``, whose task vector is ``delta``."""

    def factor(self, task: str) -> float:
        """What the masked unified task vector is multiplied by for ``task``; known after the statistics passes."""
        return 1.0

    def parts(self, operands: Operands) -> tuple[Tensor, dict[str, Tensor]]:
        """The unified task vector of one tensor, and the bool mask of every task."""
        deltas, unified = self._vectors(operands)
        return unified, {task: self.choose(task, delta, unified) for task, delta in deltas.items()}

    def merge(self, operands: Operands) -> Tensor:
        assert operands.task is not None, "the weights of which task?"
        deltas, unified = self._vectors(operands)
        mask = self.choose(operands.task, deltas[operands.task], unified)
        return add_delta(operands, torch.where(mask, unified, 0.0), self.factor(operands.task))

    def _vectors(self, operands: Operands) -> tuple[dict[str, Tensor], Tensor]:
        deltas = dict(operands.deltas())
        return deltas, self.unify(list(deltas.values()))
