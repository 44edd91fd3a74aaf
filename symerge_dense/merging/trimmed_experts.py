"""Experts reduced to what TIES would merge of each: the top share by magnitude, where its sign is the elected one.

AdaMerging++, https://arxiv.org/abs/2310.02575, weighs their task vectors in place of whole ones; trimming and election
are those of TIES-Merging, https://arxiv.org/abs/2306.01708.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from symerge_dense.merging.combine import elect_sign
from symerge_dense.merging.operands import Operands
from symerge_dense.merging.sources import TensorSource, check_compatible, load
from symerge_dense.merging.sparsify import TopShare
from symerge_dense.merging.tensor_specs import TensorSpec


def trimmed_experts(
    base: TensorSource, experts: Mapping[str, TensorSource], specs: Sequence[TensorSpec], density: float
) -> dict[str, dict[str, Tensor]]:
    """theta_0 + selected tau_t for every task and tensor.

    An element is the expert's where |tau_t| is among the task's largest magnitudes AND its sign is that of the sum of
    the trimmed task vectors; elsewhere it is the base's. So the difference from the base is the expert's own, or
    exactly zero.

    Args:
        base: tensors of the base.
        experts: {task: tensors}.
        specs: the tensors wanted.
        density: share of all of a task's elements that is kept by magnitude, in (0, 1].

    Returns:
        {task: {tensor name: tensor}}, in the order of ``experts``.

    Raises:
        ValueError: as ``check_compatible`` and ``load`` do.
    """
    check_compatible(base, experts, [spec.name for spec in specs])
    trim = TopShare(density)
    trim.begin(tuple(experts))
    for number in range(trim.passes):
        for spec in specs if trim.reads(number) == "all" else ():
            for task, delta in _operands(base, experts, spec).deltas():
                trim.observe(number, task, delta)
        trim.end_pass(number)
    chosen: dict[str, dict[str, Tensor]] = {task: {} for task in experts}
    for spec in specs:
        operands = _operands(base, experts, spec)
        trimmed = {task: trim(operands, task, delta) for task, delta in operands.deltas()}
        elected = elect_sign(list(trimmed.values()))
        for task, expert in operands.experts():
            chosen[task][spec.name] = torch.where(trimmed[task].sign() == elected, expert, operands.base)
    return chosen


def _operands(base: TensorSource, experts: Mapping[str, TensorSource], spec: TensorSpec) -> Operands:
    return Operands(spec, load(base, "base", spec.name), experts)
