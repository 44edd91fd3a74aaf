"""Fisher merging: theta = sum_t c_t F_t * theta_t / sum_t c_t F_t, F_t the diagonal Fisher information of expert t.

Matena and Raffel, Merging models with Fisher-weighted averaging, NeurIPS 2022, https://arxiv.org/abs/2111.09832
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from symerge_dense.merging.arguments import check_per_task, check_within, of_task
from symerge_dense.merging.base import ALL_KINDS, Merger
from symerge_dense.merging.operands import Operands, add_task_vectors, extra_of
from symerge_dense.merging.tensor_specs import TensorSpec
from symerge_dense.registry import MERGERS


@MERGERS.register_module()
class Fisher(Merger):
    """The experts' mean, weighted per element by Fisher information. Scope: every kind of weight.

    Fisher information says how much an expert's outputs depend on a weight. Needs the extra 'fisher': per expert one
    non-negative tensor for every weight, of the weight's shape and under its name.

    Args:
        floor: least F, above 0; smaller values are raised to it. If most of F lies below, the result is the plain mean,
            so compare it with the size of F.
        normalise: divide c_t by the norm of F_t over all weights (one statistics pass). Likelihoods of different tasks
            have different units, and without it the largest would decide everything.
        weight: c_t, above 0: one number for all tasks, or {task: c_t}.
    """

    name: ClassVar[str] = "fisher"
    needs = frozenset({"fisher"})
    treats = ALL_KINDS

    def __init__(self, floor: float = 1e-6, normalise: bool = True, weight: float | Mapping[str, float] = 1.0) -> None:
        self.floor = check_within(self.name, "floor", floor, "(0, inf)", "the least Fisher information of a weight")
        self.normalise = normalise
        self.weight = check_per_task(self.name, "weight", weight, "(0, inf)", "the share of an expert")
        self.passes = int(normalise)

    def begin(self, specs: list[TensorSpec], tasks: tuple[str, ...]) -> None:
        self._squares: dict[str, list[float]] = {task: [] for task in tasks}

    def observe(self, number: int, operands: Operands) -> None:
        for task in operands.tasks:
            self._squares[task].append(float(self._information(operands, task).double().square().sum()))

    def merge(self, operands: Operands) -> Tensor:
        if len(operands.tasks) == 1:
            return add_task_vectors(operands, 1.0)
        shift, total = torch.zeros_like(operands.base), torch.zeros_like(operands.base)
        for task, delta in operands.deltas():
            weighted = self._information(operands, task).mul_(self._coefficient(task)).to(shift.dtype)
            total += weighted
            shift += weighted.mul_(delta)
        return operands.base + shift / total

    def _coefficient(self, task: str) -> float:
        norm = math.sqrt(math.fsum(self._squares[task])) if self.normalise else 1.0
        return of_task(self.name, "weight", self.weight, task) / (norm or 1.0)

    def _information(self, operands: Operands, task: str) -> Tensor:
        """F_t of one tensor, at least ``floor``."""
        found = extra_of(operands, "fisher", task, tuple(operands.base.shape))
        if bool((found < 0).any()):
            raise ValueError(
                f"the fisher of {task} for {operands.spec.name!r} has negative values; it is a mean of "
                "squared gradients, collect it again."
            )
        return found.clamp(min=self.floor)
