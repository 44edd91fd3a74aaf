"""The family of methods with one unified task vector for all tasks and a mask of one bit per weight for each."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from symerge_dense.merging.base import ALL_KINDS, Merger
from symerge_dense.merging.masks import pack, unpack
from symerge_dense.merging.operands import Operands, add_delta


class Masked(Merger):
    """theta_t = theta_0 + factor_t * M_t * tau. Scope: every kind of weight.

    To store T sets of weights as one, keep ``shared`` (tau) once, ``mask`` (M_t packed) and ``factor`` per task;
    ``restore`` gives the weights back. The masks cost one encoder pass per task for one image.
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

    def shared(self, operands: Operands) -> Tensor:
        """The unified task vector of one tensor, the same for every task."""
        return self.unify([delta for _, delta in operands.deltas()])

    def mask(self, operands: Operands) -> Tensor:
        """The mask of ``operands.task`` for one tensor, packed (``masks.pack``)."""
        return pack(self._parts(operands)[1])

    def merge(self, operands: Operands) -> Tensor:
        unified, mask = self._parts(operands)
        return add_delta(operands, torch.where(mask, unified, 0.0), self.factor(_task(operands)))

    def _parts(self, operands: Operands) -> tuple[Tensor, Tensor]:
        deltas = dict(operands.deltas())
        unified = self.unify(list(deltas.values()))
        return unified, self.choose(_task(operands), deltas[_task(operands)], unified)


def restore(base: Tensor, shared: Tensor, packed: Tensor, factor: float = 1.0) -> Tensor:
    """One task's weights from the base, the unified task vector and the task's packed mask and factor."""
    return torch.add(base, torch.where(unpack(packed, shared.shape), shared, 0.0), alpha=factor)


def _task(operands: Operands) -> str:
    assert operands.task is not None, "the mask of which task?"
    return operands.task
