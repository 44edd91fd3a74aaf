"""LiNeS: theta_l = theta_0,l + (alpha + beta * l / (L - 1)) * Delta_l at depth l of L, Delta of any merging method.

Wang et al., LiNeS: post-training layer scaling prevents forgetting and enhances model merging, ICLR 2025,
https://arxiv.org/abs/2410.17146
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from symerge_dense.merging.arguments import check_number
from symerge_dense.merging.combine import total
from symerge_dense.merging.methods._wrapping import WrappingMerger
from symerge_dense.merging.methods.task_arithmetic import TaskArithmetic
from symerge_dense.merging.operands import Operands, interpolate
from symerge_dense.merging.order_statistics import Reading
from symerge_dense.merging.tensor_specs import TensorSpec
from symerge_dense.registry import MERGERS


@MERGERS.register_module()
class Lines(WrappingMerger):
    """The delta of another method, scaled linearly with depth. Scope: that of the other method.

    Depth is that of ``TensorSpec.depth``: as in the published code, l counts the residual blocks alone, the first is 0
    and the last L - 1; stem, downsampling between blocks and final norm get alpha.

    Args:
        method: a registered name, or ``{'type': name, **arguments}``. By name it is taken with scale 1 where it has a
            scale, as the scaling is this method's.
        alpha: scale of the first block and of tensors without a block; any finite number. None for the paper's
            (|sum_t tau_t|_1 / |Delta|_1) / T, by one more statistics pass; task arithmetic needs none.
        beta: the last block's scale is alpha + beta; any finite number. The paper tunes it on labels, up to about 1.

    Raises:
        ValueError: when a merge begins, if the specs know no blocks (a state dict without its module) and beta is not
            0.
    """

    name: ClassVar[str] = "lines"

    def __init__(
        self, method: str | Mapping[str, Any] = "task_arithmetic", alpha: float | None = None, beta: float = 0.3
    ) -> None:
        self.alpha = None if alpha is None else check_number(self.name, "alpha", alpha)
        self.beta = check_number(self.name, "beta", beta)
        super().__init__(method, scale=1.0)
        self._measures = alpha is None and not isinstance(self._inner, TaskArithmetic)
        self.passes += self._measures
        self.elementwise = self._inner.elementwise

    def begin(self, specs: list[TensorSpec], tasks: tuple[str, ...]) -> None:
        if self.beta and specs and all(spec.depth is None for spec in specs):
            raise ValueError(
                "lines scales by depth, and the specs know no blocks; make them from the module "
                "(tensor_specs), or pass beta=0."
            )
        self._tasks = len(tasks)
        self._summed, self._merged = list[float](), list[float]()  # norms of the parts
        super().begin(specs, tasks)

    def reads(self, number: int) -> Reading:
        return super().reads(number) if number < self._inner.passes else "all"

    def observe(self, number: int, operands: Operands) -> None:
        if number == self._inner.passes:
            operands = replace(operands, unchecked=False)  # one NaN would spoil the coefficient of every tensor
            self._summed.append(_norm(total(delta for _, delta in operands.deltas())))
            self._merged.append(_norm(self.merge_inner(operands) - operands.base))
        else:
            super().observe(number, operands)

    def end_pass(self, number: int) -> None:
        if number < self._inner.passes:
            super().end_pass(number)

    def merge(self, operands: Operands) -> Tensor:
        return interpolate(operands.base, self.merge_inner(operands), self.coefficient(operands.spec))

    def coefficient(self, spec: TensorSpec) -> float:
        """alpha + beta * l / (L - 1) for a tensor; alpha where it has no depth.

        Args:
            spec: the tensor.
        """
        return self._start() + self.beta * (spec.depth or 0.0)

    def _start(self) -> float:
        """alpha; 0 where Delta is zero and there is nothing to scale."""
        if self.alpha is not None:
            return self.alpha
        if isinstance(self._inner, TaskArithmetic):
            return 1 / abs(self._inner.scale) / self._tasks if self._inner.scale else 0.0
        # fsum does not depend on the order, which threads do not keep.
        summed, merged = math.fsum(self._summed), math.fsum(self._merged)
        return summed / merged / self._tasks if merged else 0.0


def _norm(tensor: Tensor) -> float:
    return float(tensor.abs().sum(dtype=torch.float64))
