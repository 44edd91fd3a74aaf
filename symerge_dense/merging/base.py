"""What a static merging method is, and how it runs: tensor by tensor, from (base, experts) to merged tensors."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from symerge_dense.merging.compatibility import check_compatible
from symerge_dense.merging.job import Job, Treatment, Watch
from symerge_dense.merging.kinds import WEIGHT_KINDS, Kind, TensorSpec, specs_from_state
from symerge_dense.merging.operands import Extras, Operands
from symerge_dense.merging.sources import TensorSource
from symerge_dense.merging.statistics import statistics_policy
from symerge_dense.merging.threshold import Reading

LARGEST = torch.finfo(torch.float32).max
ALL_KINDS: Mapping[Kind, Treatment] = dict.fromkeys(sorted(WEIGHT_KINDS), "method")


class Merger(ABC):
    """A static merging method: weights in, weights out. One subclass per file, registered in ``MERGERS``.

    ``treats`` says what each kind of weight gets: 'method' (``merge``), 'mean' (the experts' mean) or 'base';
    running statistics and counters never come here. ``passes`` is the number of times ``observe`` sees every tensor
    under 'method' before the merge, for methods with a global threshold or norm. ``needs`` names per-expert tensors
    beside the weights ('gram', 'fisher') that ``run`` must be given. A ``per_task`` method gives every task its own
    weights: ``Operands.task`` is the one wanted, and ``extra_bits`` is what each task costs beside the shared weights,
    in bits per weight. An ``elementwise`` method treats every element of a tensor alone, in ``observe`` and ``merge``,
    and so is handed large tensors in flat parts, in any order and by several threads at once; if it also ``exposes``
    NaN and infinite weights, every one of an expert making the result NaN or infinite, only results are looked at, and
    inputs when one of these is wrong. All but ``name`` may be set per instance. Constructor arguments are kept under
    their own names, any other state under a name with an underscore.
    """

    name: ClassVar[str]
    needs: frozenset[str] = frozenset()
    per_task: bool = False
    extra_bits: int = 0
    treats: Mapping[Kind, Treatment] = ALL_KINDS
    passes: int = 0
    elementwise: bool = False
    exposes: bool = False

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
    """``value`` as a float. Raises ValueError naming the method and argument if it is no number that float32 holds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= LARGEST:
        raise ValueError(f"{method}: {what} is {value!r}; it must be a finite number of at most {LARGEST:.4g}.")
    return float(value)


def run(merger: Merger, base: TensorSource, experts: Mapping[str, TensorSource], specs: Sequence[TensorSpec],
        statistics: str = "mean", *, seed: int = 0, extras: Extras | None = None, task: str | None = None,
        device: torch.device | str | None = None, watch: Watch | None = None) -> Iterator[tuple[str, Tensor]]:
    """Merge: yield (name, tensor) in the order of ``specs``, in the base's data type, sharing no memory with inputs.

    ``specs`` must cover the base exactly. ``statistics`` is a BatchNorm policy (``statistics.STATISTICS``); counters
    are the base's. ``seed`` feeds random methods; ``extras[what][task]`` holds what ``merger.needs`` names; ``task``
    selects the weights of a ``per_task`` method; ``device`` computes elsewhere than where the tensors are, to which
    results return; ``watch(specs, what)`` iterates over the tensors of a pass, to show progress. All inputs are
    checked before this returns. Raises ValueError for inputs that do not match, missing extras, an unknown policy,
    and (while streaming) for NaN or infinite values, naming expert and tensor.
    """
    check_compatible(base, experts)
    check_specs(base, specs)
    _check_merger(merger, experts, extras or {}, task)
    # Sorted, so that sums of floats and ties are the same whichever way the experts were listed.
    ordered = dict(sorted(experts.items()))
    job = Job(merger, base, ordered, statistics_policy(statistics), extras or {}, seed, task, device,
              watch or (lambda specs, what: specs))
    return job.stream(list(specs))


def merge_state(merger: Merger, base: TensorSource, experts: Mapping[str, TensorSource],
                specs: Sequence[TensorSpec] | None = None, statistics: str = "mean", *, seed: int = 0,
                extras: Extras | None = None, task: str | None = None,
                device: torch.device | str | None = None) -> dict[str, Tensor]:
    """``run`` gathered into a state dict; without ``specs`` they are read off the base (``specs_from_state``)."""
    chosen = specs_from_state(base) if specs is None else specs
    return dict(run(merger, base, experts, chosen, statistics, seed=seed, extras=extras, task=task, device=device))


def check_specs(base: TensorSource, specs: Sequence[TensorSpec]) -> None:
    """Raise ValueError unless ``specs`` cover ``base`` exactly."""
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
