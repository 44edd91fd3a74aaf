"""Per-expert tensors beside the weights, checked: the statistics that Fisher merging and RegMean are given."""

from __future__ import annotations

from torch import Tensor

from symerge_dense.merging.operands import Operands


def has_extra(operands: Operands, what: str) -> bool:
    """Whether every expert has a ``what`` for this tensor. Raises ValueError if only some have."""
    lacking = [task for task in operands.tasks if operands.spec.name not in operands.extras[what][task]]
    if lacking and len(lacking) < len(operands.tasks):
        raise ValueError(f"the {what} of {', '.join(lacking)} lacks {operands.spec.name!r}, which other experts have; "
                         "collect the statistics of all experts on one architecture.")
    return not lacking


def extra_of(operands: Operands, what: str, task: str, shape: tuple[int, ...]) -> Tensor:
    """The ``what`` of an expert for this tensor. Raises ValueError if it is absent or not of ``shape``."""
    name = operands.spec.name
    if name not in operands.extras[what][task]:
        raise ValueError(f"the {what} of {task} lacks {name!r}; collect the statistics for all weights to be merged.")
    found = operands.extra(what, task)
    if tuple(found.shape) != shape:
        raise ValueError(f"the {what} of {task} for {name!r} has the shape {tuple(found.shape)}, not {shape}; collect "
                         "it from the expert that is merged.")
    return found
