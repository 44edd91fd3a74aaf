"""What a merging method sees of one tensor, and the sum of task vectors that most methods end in.

Task vectors: tau_t = theta_t - theta_0 (Ilharco et al., 2023, https://arxiv.org/abs/2212.04089).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from symerge_dense.merging.sources import TensorSource, check_compatible, load
from symerge_dense.merging.tensor_specs import TensorSpec


# -- task vectors -----------------------------------------------------------------------------------------------------
def task_vectors(base: TensorSource, experts: Mapping[str, TensorSource], names: Iterable[str]) -> dict[str, Tensor]:
    """Task vectors of the tensors in ``names``: name -> (T, numel), contiguous, rows in the order of ``experts``.

    Each is one allocation, filled row by row: beside the result never more than one tensor of base and of an expert
    is held. Computed in float32 (float64 stays). Raises ValueError as ``check_compatible`` and ``load`` do.
    """
    chosen = list(names)
    check_compatible(base, experts, chosen)
    result = {}
    for name in chosen:
        origin = load(base, "base", name)
        rows = origin.new_empty(len(experts), origin.numel())
        subtract_into(rows, origin, experts, name)
        result[name] = rows
    return result


def subtract_into(rows: Tensor, base: Tensor, experts: Mapping[str, TensorSource], name: str) -> None:
    """Write theta_t - theta_0 of one tensor into ``rows`` (T, numel)."""
    for row, (task, expert) in zip(rows, experts.items(), strict=True):
        value = load(expert, task, name, base.device)
        torch.sub(value.reshape(-1), base.reshape(-1), out=row)


def interpolate(base: Tensor, expert: Tensor, weight: float) -> Tensor:
    """base + weight * (expert - base), a new tensor, exact at both ends: weight 0 is the base, 1 the expert.

    Floats need this care. With |expert| << |base| there is no float tau at all with fl(base + tau) == expert, so no
    stored task vector can give the expert back; the expert itself must be at hand. ``torch.lerp`` starts from the
    nearer end, and so stays within a rounding of it; the ends themselves are copied, signs of zeros included.
    """
    if weight == 0.0:
        return base.clone()
    return expert.clone() if weight == 1.0 else torch.lerp(base, expert, weight)


# -- operands ---------------------------------------------------------------------------------------------------------
Extras: TypeAlias = Mapping[str, Mapping[str, TensorSource]]


@dataclass(frozen=True)
class Operands:
    """Everything a method may know about one tensor: its spec, the base's value, and the experts' on demand.

    ``base`` and what the iterators yield are float32 (or float64) on one device. ``tasks`` is sorted, so a merge
    does not depend on the order in which experts were named. A ``part`` is a flat slice of the tensor, small enough
    for all task vectors to be computed at once. An ``unchecked`` one may hold NaN: a pass is a tenth faster without
    a look at every value, and the merge has one, there or at its result.
    """

    spec: TensorSpec
    base: Tensor
    sources: Mapping[str, TensorSource]
    extras: Extras = field(default_factory=dict)
    seed: int = 0
    task: str | None = None
    part: bool = False
    unchecked: bool = False

    @property
    def tasks(self) -> tuple[str, ...]:
        """The experts' names."""
        return tuple(self.sources)

    def experts(self) -> Iterator[tuple[str, Tensor]]:
        """(task, theta_t), read one at a time, afresh at every call; not to be written into."""
        for task, source in self.sources.items():
            yield (
                task,
                alike(source[self.spec.name], self.base)
                if self.unchecked
                else load(source, task, self.spec.name, self.base.device),
            )

    def deltas(self) -> Iterator[tuple[str, Tensor]]:
        """(task, tau_t = theta_t - theta_0), one at a time, afresh at every call; each is the receiver's to change.

        Fold over it and one task vector is in memory; ``list`` it and T are.
        """
        for task, expert in self.experts():
            yield task, expert - self.base

    def extra(self, what: str, task: str) -> Tensor:
        """The tensor of this name among the ``what`` statistics (one of ``Merger.needs``) of an expert."""
        return load(self.extras[what][task], f"{what} of {task}", self.spec.name, self.base.device)

    def generator(self, task: str = "") -> torch.Generator:
        """A CPU generator seeded by (seed, task, tensor name): the order of work does not change what it draws."""
        digest = hashlib.sha256(f"{self.seed}\0{task}\0{self.spec.name}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


def alike(tensor: Tensor, like: Tensor) -> Tensor:
    """``tensor`` in the data type and on the device of ``like``, without history; itself where it is so already.

    Among threads every call of PyTorch, though it may have nothing to do, is a wait for the others' Python.
    """
    same = tensor.dtype == like.dtype and tensor.device == like.device and not tensor.requires_grad
    return tensor if same else tensor.detach().to(like)


def add_task_vectors(operands: Operands, scale: float) -> Tensor:
    """theta_0 + scale * sum_t tau_t, holding one task vector and the sum.

    Where all task vectors are zero it is the base bit for bit, and with one expert and scale 1 the expert.
    """
    if len(operands.tasks) == 1:
        ((_, expert),) = operands.experts()
        return interpolate(operands.base, expert, scale)
    deltas = operands.deltas()
    _, total = next(deltas)
    for _, delta in deltas:
        total += delta
    return torch.add(operands.base, total, alpha=scale)


def add_delta(operands: Operands, delta: Tensor, scale: float) -> Tensor:
    """theta_0 + scale * delta, exact where a single expert's task vector came through unchanged.

    There the result lies on the way from base to expert and, with scale 1, is the expert bit for bit, which no
    addition of a rounded task vector can promise.
    """
    merged = torch.add(operands.base, delta, alpha=scale)
    if len(operands.tasks) > 1:
        return merged
    ((_, expert),) = operands.experts()
    return torch.where(delta == expert - operands.base, interpolate(operands.base, expert, scale), merged)


# -- tensors beside the weights: what Fisher merging and RegMean are given of every expert ----------------------------
def has_extra(operands: Operands, what: str) -> bool:
    """Whether every expert has a ``what`` for this tensor. Raises ValueError if only some have."""
    lacking = [task for task in operands.tasks if operands.spec.name not in operands.extras[what][task]]
    if lacking and len(lacking) < len(operands.tasks):
        raise ValueError(
            f"the {what} of {', '.join(lacking)} lacks {operands.spec.name!r}, which other experts have; "
            "collect the statistics of all experts on one architecture."
        )
    return not lacking


def extra_of(operands: Operands, what: str, task: str, shape: tuple[int, ...]) -> Tensor:
    """The ``what`` of an expert for this tensor. Raises ValueError if it is absent or not of ``shape``."""
    name = operands.spec.name
    if name not in operands.extras[what][task]:
        raise ValueError(f"the {what} of {task} lacks {name!r}; collect the statistics for all weights to be merged.")
    found = operands.extra(what, task)
    if tuple(found.shape) != shape:
        raise ValueError(
            f"the {what} of {task} for {name!r} has the shape {tuple(found.shape)}, not {shape}; collect "
            "it from the expert that is merged."
        )
    return found
