"""What a merging method sees of one tensor, and the sum of task vectors that most methods end in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from symerge_dense.merging.kinds import TensorSpec
from symerge_dense.merging.sources import TensorSource, load
from symerge_dense.merging.task_vectors import interpolate

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
            yield task, alike(source[self.spec.name], self.base) if self.unchecked else \
                load(source, task, self.spec.name, self.base.device)

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
