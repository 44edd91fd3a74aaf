"""The interface of a static merging method: base and experts in, merged weight out, tensor by tensor."""

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
    """A static merging method. One paper per file in ``methods/``, registered in ``MERGERS``.

    All attributes but ``name`` may be set per instance. Constructor arguments are kept under their own names, any other
    state under a name with a leading underscore.

    Attributes:
        name: name in the registry and in tables.
        needs: per-expert tensors beside the weights ('gram', 'merged_gram', 'fisher') that ``run`` must be given as
            extras.
        per_task: every task gets its own weights; ``Operands.task`` is the one wanted.
        extra_bits: bits per weight that each task costs beside the shared weights, for ``per_task`` methods.
        treats: what each kind of weight gets: 'method' (``merge``), 'mean' (the experts' mean) or 'base'. Running
            statistics and counters never reach a merger.
        passes: how often ``observe`` sees every tensor under 'method' before the merge, for global thresholds or norms.
        elementwise: ``observe`` and ``merge`` treat every element of a tensor alone. Large tensors then come in flat
            parts, in any order and from several threads at once.
        exposes: every NaN or infinite weight of an expert makes the result NaN or infinite. An ``elementwise`` method
            that exposes has only its results checked, and the inputs when a result is bad.
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
        """Forget former runs and prepare for a new one.

        Args:
            specs: the tensors under 'method', in the order in which they will come.
            tasks: the experts' names, in the order in which they are merged.
        """

    def reads(self, number: int) -> Reading:
        """What a statistics pass must see: 'all', a 'sample' (flat runs of elements), or 'nothing'.

        Args:
            number: number of the pass, from 0.
        """
        return "all"

    def observe(self, number: int, operands: Operands) -> None:
        """See one tensor in a statistics pass. To be overridden where ``passes`` > 0.

        Args:
            number: number of the pass, from 0.
            operands: base and experts of one tensor, or of a flat part of it.
        """
        raise NotImplementedError(f"{type(self).__name__} announces {self.passes} statistics passes but observes none")

    def end_pass(self, number: int) -> None:  # noqa: B027 - nothing to do by default
        """Finish a statistics pass, which has seen every tensor.

        Args:
            number: number of the pass, from 0.
        """

    @abstractmethod
    def merge(self, operands: Operands) -> Tensor:
        """Merge one tensor, or a flat part of one.

        Args:
            operands: base and experts of the tensor.

        Returns:
            The merged weight (not the delta), of the base's shape and data type, in memory of its own.
        """

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The constructor's arguments, for the record of a run."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}


def treatment_of(merger: Merger, kind: Kind) -> Treatment | None:
    """What a merger gives to a kind of tensor.

    Args:
        merger: the method.
        kind: kind of the tensor, see ``TensorSpec``.

    Returns:
        'method', 'mean' or 'base'; None for BatchNorm's running statistics, which have a policy of their own.
    """
    if kind == "bn_stat":
        return None
    return "base" if kind == "counter" else merger.treats[kind]
