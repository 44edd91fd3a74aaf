"""One static merge: statistics passes, then tensor by tensor, large tensors in parts where the method allows it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from symerge_dense.merging.base import Merger, Treatment, treatment_of
from symerge_dense.merging.bn_statistics import StatisticsPolicy, statistics_policy
from symerge_dense.merging.chunks import LEAST, PART, READ, Workers, parts, windows
from symerge_dense.merging.operands import Extras, Operands, add_task_vectors
from symerge_dense.merging.sources import TensorSource, check_compatible, checked, finite
from symerge_dense.merging.tensor_specs import TensorSpec, specs_from_state

ProgressCallback: TypeAlias = Callable[[Sequence[TensorSpec], str], Iterable[TensorSpec]]


def narrowed(merged: Tensor, like: Tensor, what: str) -> Tensor:
    """A merged tensor in the data type and on the device of another.

    Args:
        merged: the tensor.
        like: gives data type and device.
        what: name for the message.

    Raises:
        ValueError: the data type cannot hold a value.
    """
    result = merged.to(device=like.device, dtype=like.dtype)
    if not finite(result):
        raise ValueError(
            f"{what} exceeds the range of {result.dtype}; use a smaller scale, or checkpoints of a wider data type."
        )
    return result


@dataclass(frozen=True)
class MergeRun:
    """The checked arguments of ``run``, and the merge itself.

    Args:
        merger: the method.
        base: tensors of the base.
        experts: {task: tensors}, in the order in which methods see them.
        policy: gives BatchNorm's running statistics.
        extras: {what: {task: tensors}}, what ``merger.needs`` names.
        seed: seed of random methods.
        task: the task whose weights are wanted, for ``per_task`` methods.
        device: where to compute; None for where the tensors are.
        progress: called as ``progress(specs, what)``, iterates over the tensors of a pass.
    """

    merger: Merger
    base: TensorSource
    experts: Mapping[str, TensorSource]
    policy: StatisticsPolicy
    extras: Extras
    seed: int
    task: str | None
    device: torch.device | str | None
    progress: ProgressCallback

    def stream(self, specs: list[TensorSpec]) -> Iterator[tuple[str, Tensor]]:
        """Merged tensors by name, in the order of ``specs``.

        Args:
            specs: the tensors of the base.
        """
        with Workers() as workers:
            self.gather(specs, workers)
            for spec in self.progress(specs, "merging"):
                yield spec.name, self.tensor(spec, workers)

    def gather(self, specs: list[TensorSpec], workers: Workers) -> None:
        """Make the statistics passes of the method.

        Args:
            specs: the tensors of the base.
            workers: threads for large tensors.
        """
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
        for spec in self.progress(specs, f"statistics pass {number + 1}"):
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
        workers.each(
            lambda part: self.merger.observe(number, replace(flat(part), unchecked=True)), parts(spec.numel, READ)
        )

    def tensor(self, spec: TensorSpec, workers: Workers) -> Tensor:
        """One merged tensor, in memory of its own.

        Args:
            spec: the tensor.
            workers: threads for large tensors.
        """
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
        # A single expert may be interpolated, which at either end reads only one of base and expert.
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
                for _ in replace(operands, unchecked=False).experts():  # raises if an input is NaN, and names it
                    pass
            raise

    def whole(self, spec: TensorSpec) -> Operands:
        """What the method sees of one tensor.

        Args:
            spec: the tensor.
        """
        value = checked(self.base[spec.name], "base", spec.name, self.device)
        return Operands(spec, value, self.experts, self.extras, self.seed, self.task)

    def _cuts(self, spec: TensorSpec) -> bool:
        """Whether this tensor is merged in parts; never on an accelerator, which handles large tensors better."""
        if not self.merger.elementwise or self.merger.needs or spec.numel <= PART:
            return False
        return torch.device(self.device or self.base[spec.name].device).type == "cpu"

    def _flat(self, spec: TensorSpec) -> Callable[[slice], Operands]:
        """A function that gives the operands of flat slices of one tensor."""
        base = self.base[spec.name].reshape(-1)
        experts = {task: source[spec.name].reshape(-1) for task, source in self.experts.items()}

        def operands(part: slice) -> Operands:
            value = checked(base[part], "base", spec.name, self.device)
            sources = {task: {spec.name: tensor[part]} for task, tensor in experts.items()}
            return Operands(spec, value, sources, {}, self.seed, self.task, part=True)

        return operands


def run(
    merger: Merger,
    base: TensorSource,
    experts: Mapping[str, TensorSource],
    specs: Sequence[TensorSpec],
    statistics: str = "mean",
    *,
    seed: int = 0,
    extras: Extras | None = None,
    task: str | None = None,
    device: torch.device | str | None = None,
    progress: ProgressCallback | None = None,
) -> Iterator[tuple[str, Tensor]]:
    """Merge: yield (name, tensor) in the order of ``specs``, in the base's data type, sharing no memory with inputs.

    All inputs are checked before this returns.

    Args:
        merger: the method.
        base: tensors of the base.
        experts: {task: tensors}, the same tensors as the base.
        specs: kinds of the tensors; they must cover the base exactly.
        statistics: BatchNorm policy, a key of ``bn_statistics.STATISTICS``; counters are the base's.
        seed: seed of random methods.
        extras: {what: {task: tensors}}, what ``merger.needs`` names.
        task: the task whose weights are wanted, for ``per_task`` methods only.
        device: where to compute; results return to where the tensors are.
        progress: called as ``progress(specs, what)``, iterates over the tensors of a pass, to show progress.

    Raises:
        ValueError: inputs do not match, extras are missing, the policy is unknown; while streaming, a value is NaN or
            infinite (names expert and tensor).
    """
    check_compatible(base, experts)
    check_specs(base, specs)
    _check_merger(merger, experts, extras or {}, task)
    # Sorted, so that float sums and ties do not depend on the order in which experts were listed.
    ordered = dict(sorted(experts.items()))
    merge = MergeRun(
        merger,
        base,
        ordered,
        statistics_policy(statistics),
        extras or {},
        seed,
        task,
        device,
        progress or (lambda specs, what: specs),
    )
    return merge.stream(list(specs))


def merge_state(
    merger: Merger,
    base: TensorSource,
    experts: Mapping[str, TensorSource],
    specs: Sequence[TensorSpec] | None = None,
    statistics: str = "mean",
    *,
    seed: int = 0,
    extras: Extras | None = None,
    task: str | None = None,
    device: torch.device | str | None = None,
) -> dict[str, Tensor]:
    """``run`` gathered into a state dict.

    Args:
        merger: the method.
        base: tensors of the base.
        experts: {task: tensors}, the same tensors as the base.
        specs: kinds of the tensors; None to read them off the base (``specs_from_state``).
        statistics: BatchNorm policy, as in ``run``.
        seed: seed of random methods.
        extras: statistics of the experts, as in ``run``.
        task: the task whose weights are wanted, as in ``run``.
        device: where to compute.

    >>> from symerge_dense.merging.methods.task_arithmetic import TaskArithmetic
    >>> base = {"weight": torch.ones(1, 2)}
    >>> experts = {"depth": {"weight": torch.tensor([[3.0, 1.0]])}, "normals": {"weight": torch.tensor([[1.0, 5.0]])}}
    >>> merge_state(TaskArithmetic(scale=0.5), base, experts)
    {'weight': tensor([[2., 3.]])}
    """
    chosen = specs_from_state(base) if specs is None else specs
    return dict(run(merger, base, experts, chosen, statistics, seed=seed, extras=extras, task=task, device=device))


def check_specs(base: TensorSource, specs: Sequence[TensorSpec]) -> None:
    """Check that specs cover a base exactly.

    Args:
        base: tensors of the base.
        specs: the specs.

    Raises:
        ValueError: they do not; names the differences.
    """
    difference = sorted(set(base) ^ {spec.name for spec in specs})
    if difference or len(specs) != len(base):
        raise ValueError(
            f"specs and base differ in {difference[:10]} ({len(specs)} specs, {len(base)} tensors); build "
            "them from the same model, or pass only the part to merge as base."
        )


def _check_merger(merger: Merger, experts: Mapping[str, TensorSource], extras: Extras, task: str | None) -> None:
    wanted = [(what, name) for what in sorted(merger.needs) for name in experts]
    absent = [f"{what} of {name}" for what, name in wanted if name not in extras.get(what, {})]
    if absent:
        raise ValueError(f"{merger.name} needs {', '.join(absent)}; collect them, pass extras={{what: {{task: ...}}}}.")
    if merger.per_task and task not in experts:
        raise ValueError(
            f"{merger.name} gives every task its own weights; task is {task!r}, not one of "
            f"{sorted(experts)}; pass one of these."
        )
    if task is not None and not merger.per_task:
        raise ValueError(f"{merger.name} gives one set of weights for all tasks; leave out task={task!r}.")
