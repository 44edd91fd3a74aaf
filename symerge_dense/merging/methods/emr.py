"""EMR-Merging (elect, mask, rescale): theta_t = theta_0 + rho_t * M_t * tau, gamma = sgn(sum_t tau_t),
tau = gamma * max {|tau_t| : sgn(tau_t) = gamma}, M_t = 1[tau_t * gamma > 0],
rho_t = sum_l mean |tau_t,l| / sum_l mean |M_t,l * tau_l| over the tensors l.

Huang et al., EMR-Merging, NeurIPS 2024, https://arxiv.org/abs/2405.17461
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from symerge_dense.merging.combine import disjoint_max
from symerge_dense.merging.masked import Masked
from symerge_dense.merging.operands import Operands
from symerge_dense.merging.tensor_specs import TensorSpec
from symerge_dense.registry import MERGERS


@MERGERS.register_module()
class EMR(Masked):
    """One elected task vector, and a mask and a factor for each task; nothing to tune. Scope: every kind of weight.

    rho_t is a ratio of sums of per-tensor means, as in the authors' code, so that a bias weighs as much as a large
    matrix. It takes one statistics pass, and is 1 where the mask is empty and nothing is left to rescale. Where the sum
    of task vectors is zero the negative sign is elected.
    """

    name: ClassVar[str] = "emr"
    passes = 1

    def begin(self, specs: list[TensorSpec], tasks: tuple[str, ...]) -> None:
        self._own: dict[str, list[float]] = {task: [] for task in tasks}
        self._unified: dict[str, list[float]] = {task: [] for task in tasks}

    def observe(self, number: int, operands: Operands) -> None:
        if operands.base.numel() == 0:
            return
        deltas = dict(operands.deltas())
        unified = self.unify(list(deltas.values()))
        for task, delta in deltas.items():
            masked = torch.where(self.choose(task, delta, unified), unified, 0.0)
            self._own[task].append(delta.abs().mean(dtype=torch.float64).item())
            self._unified[task].append(masked.abs().mean(dtype=torch.float64).item())

    def unify(self, deltas: Sequence[Tensor]) -> Tensor:
        return disjoint_max(deltas, tie=-1.0)

    def choose(self, task: str, delta: Tensor, unified: Tensor) -> Tensor:
        return (delta.sign() == unified.sign()) & (delta != 0)

    def factor(self, task: str) -> float:
        # fsum is exact, so the order of tensors does not matter.
        own, unified = math.fsum(self._own[task]), math.fsum(self._unified[task])
        return own / unified if unified else 1.0
