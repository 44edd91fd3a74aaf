"""What a static merging method is, and how it runs: tensor by tensor, from (base, experts) to merged tensors."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor

from symerge_dense.merging.compatibility import check_compatible
from symerge_dense.merging.kinds import WEIGHT_KINDS, Kind, TensorSpec, specs_from_state
from symerge_dense.merging.operands import Extras, Operands, add_task_vectors
from symerge_dense.merging.parts import LEAST, PART, parts, windows
from symerge_dense.merging.sources import TensorSource, checked
from symerge_dense.merging.statistics import StatisticsPolicy, statistics_policy
from symerge_dense.merging.threshold import Reading

Treatment = Literal["method", "mean", "base"]
Watch: TypeAlias = Callable[[Sequence[TensorSpec], str], Iterable[TensorSpec]]
ALL_KINDS: Mapping[Kind, Treatment] = dict.fromkeys(sorted(WEIGHT_KINDS), "method")


class Merger(ABC):
    """A static merging method: weights in, weights out. One subclass per file, registered in ``MERGERS``.

    ``treats`` says what each kind of weight gets: 'method' (``merge``), 'mean' (the experts' mean) or 'base';
    running statistics and counters never come here. ``passes`` is the number of times ``observe`` sees every tensor
    under 'method' before the merge, for methods with a global threshold or norm. ``needs`` names per-expert tensors
    beside the weights ('gram', 'fisher') that ``run`` must be given. A ``per_task`` method gives every task its own
    weights: ``Operands.task`` is the one wanted, and ``extra_bits`` is what each task costs beside the shared weights,
    in bits per weight. An ``elementwise`` method treats every element of a tensor alone, in ``observe`` and ``merge``,
    and is handed large tensors in flat parts that fit a processor's cache. All but ``name`` may be set per instance.
    Constructor arguments are kept under their own names, any other state under a name with an underscore.
    """

    name: ClassVar[str]
    needs: frozenset[str] = frozenset()
    per_task: bool = False
    extra_bits: int = 0
    treats: Mapping[Kind, Treatment] = ALL_KINDS
    passes: int = 0
    elementwise: bool = False

    def begin(self, specs: list[TensorSpec], tasks: tuple[str, ...]) -> None:  # noqa: B027 - nothing to do by default
        """Forget former runs. ``specs`` are the tensors under 'method', in the order in which they will come."""

    def reads(self, number: int) -> Reading:
        """What statistics pass ``number`` must see: 'all', a 'sample' (flat runs of elements), or 'nothing'."""
        return "all"

    def observe(self, number: int, operands: Operands) -> None:
        """See one tensor in statistics pass ``number`` (from 0). Must be written where ``passes`` > 0."""
        raise NotImplementedError(f"{type(self).__name__} announces {self.passes} statistics passes but observes none")

    def end_pass(self, number: int) -> None:  # noqa: B027 - nothing to do by default
        """Statistics pass ``number`` has seen every tensor."""

    @abstractmethod
    def merge(self, operands: Operands) -> Tensor:
        """The merged weight (not the delta), of the base's shape and data type, in memory of its own."""

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The constructor's arguments, for the record of a run."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    @property
    def encoder_passes(self) -> Literal["one", "per task"]:
        """How often one image goes through the merged encoder to get the outputs of all tasks."""
        return "per task" if self.per_task else "one"


def check_number(method: str, what: str, value: float) -> float:
    """``value`` as a float. Raises ValueError naming the method and argument if it is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{method}: {what} is {value!r}; it must be a finite number.")
    return float(value)


def run(merger: Merger, base: TensorSource, experts: Mapping[str, TensorSource], specs: Sequence[TensorSpec],
        statistics: str = "mean", *, seed: int = 0, extras: Extras | None = None, task: str | None = None,
        device: torch.device | str | None = None, watch: Watch | None = None) -> Iterator[tuple[str, Tensor]]:
    """Merge: yield (name, tensor) in the order of ``specs``, in the base's data type, sharing no memory with inputs.

    ``specs`` must cover the base exactly. ``statistics`` is a BatchNorm policy (``statistics.STATISTICS``); counters
    are the base's. ``seed`` feeds random methods; ``extras[what][task]`` holds what ``merger.needs`` names; ``task``
    selects the weights of a ``per_task`` method; ``device`` computes elsewhere than where the tensors are, to which
    results return; ``watch(specs, what)`` iterates over the tensors of a pass, to show progress. All inputs are checked before this returns. Raises ValueError for inputs that do not match,
    missing extras, an unknown policy, and (while streaming) for NaN or infinite values, naming expert and tensor.
    """
    check_compatible(base, experts)
    _check_specs(base, specs)
    _check_merger(merger, experts, extras or {}, task)
    # Sorted, so that sums of floats and ties are the same whichever way the experts were listed.
    ordered = dict(sorted(experts.items()))
    job = _Job(merger, base, ordered, statistics_policy(statistics), extras or {}, seed, task, device,
               watch or (lambda specs, what: specs))
    return job.stream(list(specs))


def merge_state(merger: Merger, base: TensorSource, experts: Mapping[str, TensorSource],
                specs: Sequence[TensorSpec] | None = None, statistics: str = "mean", *, seed: int = 0,
                extras: Extras | None = None, task: str | None = None,
                device: torch.device | str | None = None) -> dict[str, Tensor]:
    """``run`` gathered into a state dict; without ``specs`` they are read off the base (``specs_from_state``)."""
    chosen = specs_from_state(base) if specs is None else specs
    return dict(run(merger, base, experts, chosen, statistics, seed=seed, extras=extras, task=task, device=device))


@dataclass(frozen=True)
class _Job:
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
        chosen = [spec for spec in specs if self.merger.treats.get(spec.kind) == "method"]
        self.merger.begin(chosen, tuple(self.experts))
        for number in range(self.merger.passes):
            for operands in self._seen(chosen, number):
                self.merger.observe(number, operands)
            self.merger.end_pass(number)
        for spec in self.watch(specs, "merging"):
            yield spec.name, self._tensor(spec)

    def _seen(self, specs: list[TensorSpec], number: int) -> Iterator[Operands]:
        """What the method must see in a statistics pass."""
        start, total = 0, sum(spec.numel for spec in specs)
        reading = self.merger.reads(number)
        if reading == "nothing" or (reading == "sample" and total < LEAST):
            return
        for spec in self.watch(specs, f"statistics pass {number + 1}"):
            if reading == "sample":
                yield from (operands for _, operands in self._cut(spec, windows(start, spec.numel, total)))
            elif self._cuts(spec):
                yield from (operands for _, operands in self._cut(spec, parts(spec.numel)))
            else:
                yield self._operands(spec)
            start += spec.numel

    def _tensor(self, spec: TensorSpec) -> Tensor:
        if spec.kind == "bn_stat":
            return self.policy(spec.name, self.base, self.experts)
        original = self.base[spec.name]
        treatment = "base" if spec.kind == "counter" else self.merger.treats[spec.kind]
        if treatment == "base":
            return original.clone()
        if not self._cuts(spec):
            return self._merge(self._operands(spec), treatment, original)
        result = torch.empty(original.shape, dtype=original.dtype)
        for part, operands in self._cut(spec, parts(spec.numel)):
            result.view(-1)[part] = self._merge(operands, treatment, result.view(-1)[part])
        return result

    def _merge(self, operands: Operands, treatment: Treatment, like: Tensor) -> Tensor:
        """The merged tensor, or part of one, of the shape, data type and device of ``like``."""
        mean = treatment == "mean"
        merged = add_task_vectors(operands, 1 / len(self.experts)) if mean else self.merger.merge(operands)
        name = operands.spec.name
        assert merged.shape == like.shape, f"{self.merger.name} gave {name} the shape {tuple(merged.shape)}"
        result = merged.to(device=like.device, dtype=like.dtype)
        if result.dtype != merged.dtype and not bool(result.isfinite().all()):
            raise ValueError(f"{self.merger.name}: merged {name!r} exceeds the range of {result.dtype}; "
                             "use a smaller scale or float32 checkpoints.")
        return result

    def _operands(self, spec: TensorSpec) -> Operands:
        value = checked(self.base[spec.name], "base", spec.name, self.device)
        return Operands(spec, value, self.experts, self.extras, self.seed, self.task)

    def _cuts(self, spec: TensorSpec) -> bool:
        """Is this tensor merged in parts? Not on an accelerator, which is better at large ones."""
        if not self.merger.elementwise or self.merger.needs or spec.numel <= PART:
            return False
        return torch.device(self.device or self.base[spec.name].device).type == "cpu"

    def _cut(self, spec: TensorSpec, slices: Iterable[slice]) -> Iterator[tuple[slice, Operands]]:
        """Operands of flat slices of one tensor."""
        base = self.base[spec.name].reshape(-1)
        experts = {task: source[spec.name].reshape(-1) for task, source in self.experts.items()}
        for part in slices:
            value = checked(base[part], "base", spec.name, self.device)
            sources = {task: {spec.name: tensor[part]} for task, tensor in experts.items()}
            yield part, Operands(spec, value, sources, {}, self.seed, self.task)


def _check_specs(base: TensorSource, specs: Sequence[TensorSpec]) -> None:
    difference = sorted(set(base) ^ {spec.name for spec in specs})
    if difference or len(specs) != len(base):
        raise ValueError(f"specs and base differ in {difference[:10]} ({len(specs)} specs, {len(base)} tensors); build "
                         "them from the same model, or pass only the part to merge as base.")


def _check_merger(merger: Merger, experts: Mapping[str, TensorSource], extras: Extras, task: str | None) -> None:
    wanted = [(what, name) for what in sorted(merger.needs) for name in experts]
    absent = [f"{what} of {name}" for what, name in wanted if name not in extras.get(what, {})]
    if absent:
        raise ValueError(f"{merger.name} needs {', '.join(absent)}; collect them, pass extras={{what: {{task: ...}}}}.")
    if merger.per_task and task not in experts:
        raise ValueError(f"{merger.name} gives every task its own weights; task is {task!r}, not one of "
                         f"{sorted(experts)}; pass one of these.")
    if task is not None and not merger.per_task:
        raise ValueError(f"{merger.name} gives one set of weights for all tasks; leave task={task!r} away.")
