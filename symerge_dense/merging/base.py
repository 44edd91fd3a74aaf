"""What a static merging method is: per tensor, from base and experts to the merged weight."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from torch import Tensor

from symerge_dense.merging.operands import Operands
from symerge_dense.merging.order_statistics import Reading
from symerge_dense.merging.tensor_specs import WEIGHT_KINDS, Kind, TensorSpec

Treatment = Literal["method", "mean", "base"]
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


def treatment_of(merger: Merger, kind: Kind) -> Treatment | None:
    """What a kind of tensor gets; None for the running statistics of BatchNorm, which have a policy of their own."""
    if kind == "bn_stat":
        return None
    return "base" if kind == "counter" else merger.treats[kind]
