"""One merge on its way: statistics passes, then tensor by tensor, large tensors in parts where the method allows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
from torch import Tensor

from symerge_dense.merging.kinds import Kind, TensorSpec
from symerge_dense.merging.operands import Extras, Operands, add_task_vectors
from symerge_dense.merging.parts import LEAST, PART, READ, Workers, parts, windows
from symerge_dense.merging.sources import TensorSource, checked, finite
from symerge_dense.merging.statistics import StatisticsPolicy

if TYPE_CHECKING:
    from symerge_dense.merging.base import Merger

Treatment = Literal["method", "mean", "base"]
Watch: TypeAlias = Callable[[Sequence[TensorSpec], str], Iterable[TensorSpec]]


def treatment_of(merger: Merger, kind: Kind) -> Treatment | None:
    """What a kind of tensor gets; None for the running statistics of BatchNorm, which have a policy of their own."""
    if kind == "bn_stat":
        return None
    return "base" if kind == "counter" else merger.treats[kind]


def narrowed(merged: Tensor, like: Tensor, what: str) -> Tensor:
    """``merged`` with the data type and on the device of ``like``. Raises ValueError if the type cannot hold it."""
    result = merged.to(device=like.device, dtype=like.dtype)
    if not finite(result):
        raise ValueError(f"{what} exceeds the range of {result.dtype}; use a smaller scale, or checkpoints of a wider "
                         "data type.")
    return result


@dataclass(frozen=True)
class Job:
    """What ``base.run`` was asked for, checked; ``experts`` are in the order in which methods see them."""

    merger: Merger
    base: TensorSource
    experts: Mapping[str, TensorSource]
    policy: StatisticsPolicy
    extras: Extras
    seed: int
    task: str | None
    device: torch.device | str | None
    watch: Watch

    def stream(self, specs: list[TensorSpec]) -> Iterator[tuple[str, Tensor]]:
        """Merged tensors by name, in the order of ``specs``."""
        with Workers() as workers:
            self.gather(specs, workers)
            for spec in self.watch(specs, "merging"):
                yield spec.name, self.tensor(spec, workers)

    def gather(self, specs: list[TensorSpec], workers: Workers) -> None:
        """The statistics passes of the method."""
        chosen = [spec for spec in specs if treatment_of(self.merger, spec.kind) == "method"]
        self.merger.begin(chosen, tuple(self.experts))
        for number in range(self.merger.passes):
            self._pass(chosen, number, workers)
            self.merger.end_pass(number)

    def _pass(self, specs: list[TensorSpec], number: int, workers: Workers) -> None:
        start, total = 0, sum(spec.numel for spec in specs)
        reading = self.merger.reads(number)
        if reading == "nothing" or (reading == "sample" and total < LEAST):
            return
        for spec in self.watch(specs, f"statistics pass {number + 1}"):
            if reading == "sample":
                for operands in map(self._flat(spec), windows(start, spec.numel, total)):
                    self.merger.observe(number, operands)
            elif self._cuts(spec):
                self._observe_parts(spec, number, workers)
            else:
                self.merger.observe(number, self.whole(spec))
            start += spec.numel

    def _observe_parts(self, spec: TensorSpec, number: int, workers: Workers) -> None:
        flat = self._flat(spec)
        workers.each(lambda part: self.merger.observe(number, replace(flat(part), unchecked=True)),
                     parts(spec.numel, READ))

    def tensor(self, spec: TensorSpec, workers: Workers) -> Tensor:
        """One merged tensor, in memory of its own."""
        treatment = treatment_of(self.merger, spec.kind)
        if treatment is None:
            return self.policy(spec.name, self.base, self.experts)
        original = self.base[spec.name]
        if treatment == "base":
            return original.clone()
        if not self._cuts(spec):
            return self._merge(self.whole(spec), treatment, original)
        result = torch.empty(original.shape, dtype=original.dtype)
        self._fill(result.view(-1), spec, treatment, workers)
        return result

    def _fill(self, result: Tensor, spec: TensorSpec, treatment: Treatment, workers: Workers) -> None:
        flat = self._flat(spec)
        # A single expert may come through by interpolation, which at its ends looks at one side only.
        unchecked = self.merger.exposes and treatment == "method" and len(self.experts) > 1

        def work(part: slice) -> None:
            result[part] = self._merge(replace(flat(part), unchecked=unchecked), treatment, result[part])

        workers.each(work, parts(spec.numel, PART))

    def _merge(self, operands: Operands, treatment: Treatment, like: Tensor) -> Tensor:
        """The merged tensor, or part of one, of the shape, data type and device of ``like``."""
        mean, name = treatment == "mean", operands.spec.name
        merged = add_task_vectors(operands, 1 / len(self.experts)) if mean else self.merger.merge(operands)
        assert merged.shape == like.shape, f"{self.merger.name} gave {name} the shape {tuple(merged.shape)}"
        try:
            return narrowed(merged, like, f"{self.merger.name}: merged {name!r}")
        except ValueError:
            if operands.unchecked:
                for _ in replace(operands, unchecked=False).experts():  # says whose weight it was, if not too large
                    pass
            raise

    def whole(self, spec: TensorSpec) -> Operands:
        """What the method sees of one tensor."""
        value = checked(self.base[spec.name], "base", spec.name, self.device)
        return Operands(spec, value, self.experts, self.extras, self.seed, self.task)

    def _cuts(self, spec: TensorSpec) -> bool:
        """Is this tensor merged in parts? Not on an accelerator, which is better at large ones."""
        if not self.merger.elementwise or self.merger.needs or spec.numel <= PART:
            return False
        return torch.device(self.device or self.base[spec.name].device).type == "cpu"

    def _flat(self, spec: TensorSpec) -> Callable[[slice], Operands]:
        """Gives the operands of flat slices of one tensor."""
        base = self.base[spec.name].reshape(-1)
        experts = {task: source[spec.name].reshape(-1) for task, source in self.experts.items()}

        def operands(part: slice) -> Operands:
            value = checked(base[part], "base", spec.name, self.device)
            sources = {task: {spec.name: tensor[part]} for task, tensor in experts.items()}
            return Operands(spec, value, sources, {}, self.seed, self.task, part=True)

        return operands
