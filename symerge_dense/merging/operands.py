"""What a merging method sees of one tensor, and the sum of task vectors that most methods end in.

Task vectors: tau_t = theta_t - theta_0 (Ilharco et al., 2023, https://arxiv.org/abs/2212.04089).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from einops import rearrange
from torch import Tensor

from symerge_dense.merging.sources import TensorSource, check_compatible, load
from symerge_dense.merging.tensor_specs import TensorSpec


# -- task vectors -----------------------------------------------------------------------------------------------------
def task_vectors(base: TensorSource, experts: Mapping[str, TensorSource], names: Iterable[str]) -> dict[str, Tensor]:
    """Task vectors of chosen tensors, in float32 (float64 stays).

    Each is one allocation, filled row by row: beside the result, at most one tensor of the base and of an expert is
    held.

    Args:
        base: tensors of the base.
        experts: {task: tensors}.
        names: the tensors wanted.

    Returns:
        Name -> (T, numel), contiguous, rows in the order of ``experts``.

    Raises:
        ValueError: as ``check_compatible`` and ``load`` do.
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
    """Write theta_t - theta_0 of one tensor into the rows of a matrix.

    Args:
        rows: (T, numel), written in place.
        base: the base's tensor.
        experts: {task: tensors}, in the order of the rows.
        name: name of the tensor.
    """
    for row, (task, expert) in zip(rows, experts.items(), strict=True):
        value = load(expert, task, name, base.device)
        torch.sub(rearrange(value, "... -> (...)"), rearrange(base, "... -> (...)"), out=row)


def interpolate(base: Tensor, expert: Tensor, weight: float) -> Tensor:
    """base + weight * (expert - base), a new tensor, exact at both ends: weight 0 is the base, 1 the expert.

    With |expert| << |base| no float tau exists with fl(base + tau) == expert, so no stored task vector can give the
    expert back; the expert itself must be at hand. ``torch.lerp`` starts from the nearer end, and so stays within a
    rounding of it. The ends themselves are copied, signs of zeros included.

    Args:
        base: the base's tensor.
        expert: the expert's, of the same shape and data type.
        weight: 0 for the base to 1 for the expert; other numbers extrapolate.
    """
    if weight == 0.0:
        return base.clone()
    return expert.clone() if weight == 1.0 else torch.lerp(base, expert, weight)


# -- operands ---------------------------------------------------------------------------------------------------------
Extras: TypeAlias = Mapping[str, Mapping[str, TensorSource]]


@dataclass(frozen=True)
class Operands:
    """What a method may know about one tensor: its spec, the base's value, and the experts' on demand.

    Args:
        spec: name, shape and kind of the tensor.
        base: the base's value, float32 or float64; the iterators yield the same data type, on the same device.
        sources: {task: tensors} of the experts; ``run`` sorts them, so that a merge does not depend on their order.
        extras: {what: {task: tensors}}, what ``Merger.needs`` names.
        seed: seed of the run.
        task: the task whose weights are wanted, for ``per_task`` methods.
        part: this is a flat slice of the tensor, small enough to compute all task vectors at once.
        unchecked: values may be NaN. A statistics pass is a tenth faster without a check of every value; the merge
            checks its inputs or its result.
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

        Folding over it holds one task vector in memory, a ``list`` of it holds T.
        """
        for task, expert in self.experts():
            yield task, expert - self.base

    def extra(self, what: str, task: str) -> Tensor:
        """One expert's statistic for this tensor.

        Args:
            what: kind of statistic, one of ``Merger.needs``.
            task: the expert's task.
        """
        return load(self.extras[what][task], f"{what} of {task}", self.spec.name, self.base.device)

    def generator(self, task: str = "") -> torch.Generator:
        """A CPU generator seeded by (seed, task, tensor name), so that the order of work does not change what is drawn.

        Args:
            task: the expert's task; empty where all share the draw.
        """
        digest = hashlib.sha256(f"{self.seed}\0{task}\0{self.spec.name}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


def alike(tensor: Tensor, like: Tensor) -> Tensor:
    """A tensor in the data type and on the device of another, without gradient history; itself where it is so already.

    Args:
        tensor: the tensor.
        like: gives data type and device.
    """
    # Each call of PyTorch, even one with nothing to do, makes a worker thread wait for the interpreter lock.
    same = tensor.dtype == like.dtype and tensor.device == like.device and not tensor.requires_grad
    return tensor if same else tensor.detach().to(like)


def add_task_vectors(operands: Operands, scale: float) -> Tensor:
    """theta_0 + scale * sum_t tau_t, holding one task vector and the sum.

    Where all task vectors are zero it is the base bit for bit, and with one expert and scale 1 the expert.

    Args:
        operands: base and experts of the tensor.
        scale: factor of the sum.
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

    There the result lies on the line from base to expert and, with scale 1, is the expert bit for bit, which the
    addition of a rounded task vector cannot guarantee.

    Args:
        operands: base and experts of the tensor.
        delta: the merged task vector.
        scale: its factor.
    """
    merged = torch.add(operands.base, delta, alpha=scale)
    if len(operands.tasks) > 1:
        return merged
    ((_, expert),) = operands.experts()
    return torch.where(delta == expert - operands.base, interpolate(operands.base, expert, scale), merged)


# -- statistics of every expert beside its weights, for Fisher merging and RegMean ------------------------------------
def has_extra(operands: Operands, what: str) -> bool:
    """Whether every expert has a statistic for this tensor.

    Args:
        operands: base and experts of the tensor.
        what: kind of statistic, one of ``Merger.needs``.

    Raises:
        ValueError: some experts have it and some lack it.
    """
    lacking = [task for task in operands.tasks if operands.spec.name not in operands.extras[what][task]]
    if lacking and len(lacking) < len(operands.tasks):
        raise ValueError(
            f"the {what} of {', '.join(lacking)} lacks {operands.spec.name!r}, which other experts have; "
            "collect the statistics of all experts on one architecture."
        )
    return not lacking


def extra_of(operands: Operands, what: str, task: str, shape: tuple[int, ...]) -> Tensor:
    """One expert's statistic for this tensor, checked.

    Args:
        operands: base and experts of the tensor.
        what: kind of statistic, one of ``Merger.needs``.
        task: the expert's task.
        shape: the shape it must have.

    Raises:
        ValueError: it is absent, or of another shape.
    """
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
