"""What a static merging method is, and how it runs: tensor by tensor, from (base, experts) to merged tensors."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from symerge_dense.merging.compatibility import check_compatible
from symerge_dense.merging.kinds import WEIGHT_KINDS, Kind, TensorSpec, specs_from_state
from symerge_dense.merging.operands import Extras, Operands, add_task_vectors
from symerge_dense.merging.sources import TensorSource, checked
from symerge_dense.merging.statistics import StatisticsPolicy, statistics_policy

Treatment = Literal["method", "mean", "base"]
ALL_KINDS: Mapping[Kind, Treatment] = dict.fromkeys(sorted(WEIGHT_KINDS), "method")


class Merger(ABC):
    """A static merging method: weights in, weights out. One subclass per file, registered in ``MERGERS``.

    ``treats`` says what each kind of weight gets: 'method' (``merge``), 'mean' (the experts' mean) or 'base';
    running statistics and counters never come here. ``passes`` is the number of times ``observe`` sees every tensor
    under 'method' before the merge, for methods with a global threshold or norm. ``needs`` names per-expert tensors
    beside the weights ('gram', 'fisher') that ``run`` must be given. A ``per_task`` method gives every task its own
    weights: ``Operands.task`` is the one wanted. ``treats`` and ``passes`` may be set per instance. Constructor
    arguments are kept under their own names, any other state under a name with an underscore.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()
    per_task: ClassVar[bool] = False
    treats: Mapping[Kind, Treatment] = ALL_KINDS
    passes: int = 0

    def begin(self, specs: list[TensorSpec], tasks: tuple[str, ...]) -> None:  # noqa: B027 - nothing to do by default
        """Forget former runs. ``specs`` are the tensors under 'method', in the order in which they will come."""

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
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}


def check_number(method: str, what: str, value: float) -> float:
    """``value`` as a float. Raises ValueError naming the method and argument if it is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{method}: {what} is {value!r}; it must be a finite number.")
    return float(value)


def run(merger: Merger, base: TensorSource, experts: Mapping[str, TensorSource], specs: Sequence[TensorSpec],
        statistics: str = "mean", *, seed: int = 0, extras: Extras | None = None, task: str | None = None,
        device: torch.device | str | None = None) -> Iterator[tuple[str, Tensor]]:
    """Merge: yield (name, tensor) in the order of ``specs``, in the base's data type, sharing no memory with inputs.

    ``specs`` must cover the base exactly. ``statistics`` is a BatchNorm policy (``statistics.STATISTICS``); counters
    are the base's. ``seed`` feeds random methods; ``extras[what][task]`` holds what ``merger.needs`` names; ``task``
    selects the weights of a ``per_task`` method; ``device`` computes elsewhere than where the tensors are, to which
    results return. All inputs are checked before this returns. Raises ValueError for inputs that do not match,
    missing extras, an unknown policy, and (while streaming) for NaN or infinite values, naming expert and tensor.
    """
    check_compatible(base, experts)
    _check_specs(base, specs)
    _check_merger(merger, experts, extras or {}, task)
    # Sorted, so that sums of floats and ties are the same whichever way the experts were listed.
    ordered = dict(sorted(experts.items()))
    job = _Job(merger, base, ordered, statistics_policy(statistics), extras or {}, seed, task, device)
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

    def stream(self, specs: list[TensorSpec]) -> Iterator[tuple[str, Tensor]]:
        treats = self.merger.treats
        chosen = [spec for spec in specs if spec.kind in treats and treats[spec.kind] == "method"]
        self.merger.begin(chosen, tuple(self.experts))
        for number in range(self.merger.passes):
            for spec in chosen:
                self.merger.observe(number, self._operands(spec, self.base[spec.name]))
            self.merger.end_pass(number)
        for spec in specs:
            yield spec.name, self._tensor(spec)

    def _tensor(self, spec: TensorSpec) -> Tensor:
        if spec.kind == "bn_stat":
            return self.policy(spec.name, self.base, self.experts)
        treatment = "base" if spec.kind == "counter" else self.merger.treats[spec.kind]
        original = self.base[spec.name]
        if treatment == "base":
            return original.clone()
        operands = self._operands(spec, original)
        if treatment == "mean":
            merged = add_task_vectors(operands, 1 / len(self.experts))
        else:
            merged = self.merger.merge(operands)
        return self._finish(merged, original, spec.name)

    def _operands(self, spec: TensorSpec, original: Tensor) -> Operands:
        value = checked(original, "base", spec.name, self.device)
        return Operands(spec, value, self.experts, self.extras, self.seed, self.task)

    def _finish(self, merged: Tensor, original: Tensor, name: str) -> Tensor:
        assert merged.shape == original.shape, f"{self.merger.name} gave {name} the shape {tuple(merged.shape)}"
        result = merged.to(device=original.device, dtype=original.dtype)
        if result.dtype != merged.dtype and not bool(result.isfinite().all()):
            raise ValueError(f"{self.merger.name}: merged {name!r} exceeds the range of {result.dtype}; "
                             "use a smaller scale or float32 checkpoints.")
        return result


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
