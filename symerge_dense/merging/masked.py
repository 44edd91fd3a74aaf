"""The family of methods that keep one unified task vector for all tasks, and one bit per weight for each task."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from symerge_dense.merging.base import ALL_KINDS, Merger
from symerge_dense.merging.operands import Operands, add_delta


class Masked(Merger):
    """theta_t = theta_0 + factor_t * M_t * tau. Scope: every kind of weight.

    T sets of weights are stored as one (``merging.packed``): tau once, and for each task a factor and a mask M_t of one
    bit per weight. At inference one image needs an encoder pass per task.
    """

    per_task = True
    extra_bits = 1
    treats = ALL_KINDS

    @abstractmethod
    def unify(self, deltas: Sequence[Tensor]) -> Tensor:
        """The unified task vector of one tensor.

        Args:
            deltas: all task vectors tau_t; left unchanged.
        """

    @abstractmethod
    def choose(self, task: str, delta: Tensor, unified: Tensor) -> Tensor:
        """The bool mask of one task.

        Args:
            task: the task.
            delta: its task vector.
            unified: what ``unify`` returned.
        """

    def factor(self, task: str) -> float:
        """The number that the masked unified task vector is multiplied by; known after the statistics passes.

        Args:
            task: the task.
        """
        return 1.0

    def parts(self, operands: Operands) -> tuple[Tensor, dict[str, Tensor]]:
        """Unified task vector and masks of one tensor.

        Args:
            operands: base and experts of the tensor.

        Returns:
            The unified task vector, and {task: bool mask}.
        """
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
