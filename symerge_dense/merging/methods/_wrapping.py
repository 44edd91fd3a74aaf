"""Methods that change what another one has merged: LiNeS scales it with depth, SVC calibrates its singular values."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from symerge_dense.merging.base import Merger
from symerge_dense.merging.operands import Operands, add_task_vectors
from symerge_dense.merging.order_statistics import Reading
from symerge_dense.merging.tensor_specs import TensorSpec
from symerge_dense.registry import MERGERS


class WrappingMerger(Merger):
    """A method on top of another one, which it builds; scope, needs and statistics passes are those of the other.

    Args:
        method: a registered name, or ``{'type': name, **arguments}``.
        **by_name: arguments for a method that is given by its name, where it has them.

    Raises:
        ValueError: ``method`` is neither, or the method refuses its arguments.
    """

    def __init__(self, method: str | Mapping[str, Any], **by_name: Any) -> None:
        self.method = method
        self._inner = inner = self._build(method, by_name)
        self.needs, self.per_task, self.extra_bits = inner.needs, inner.per_task, inner.extra_bits
        self.treats = {kind: "base" if how == "base" else "method" for kind, how in inner.treats.items()}
        self.passes = inner.passes

    def begin(self, specs: list[TensorSpec], tasks: tuple[str, ...]) -> None:
        self._inner.begin([spec for spec in specs if self._inner.treats[spec.kind] == "method"], tasks)

    def reads(self, number: int) -> Reading:
        return self._inner.reads(number)

    def observe(self, number: int, operands: Operands) -> None:
        if self._inner.treats[operands.spec.kind] == "method":
            self._inner.observe(number, operands)

    def end_pass(self, number: int) -> None:
        self._inner.end_pass(number)

    def merge_inner(self, operands: Operands) -> Tensor:
        """What the other method makes of a tensor.

        Args:
            operands: base and experts of the tensor.
        """
        if self._inner.treats[operands.spec.kind] == "mean":
            return add_task_vectors(operands, 1 / len(operands.tasks))
        return self._inner.merge(operands)

    def _build(self, method: str | Mapping[str, Any], by_name: Mapping[str, Any]) -> Merger:
        if not isinstance(method, str):
            if not isinstance(method, Mapping) or not isinstance(method.get("type"), str):
                raise ValueError(
                    f"{self.name}: method is {method!r}; it must be a registered name, or a dict with a 'type' and "
                    "the method's arguments."
                )
            inner: Merger = MERGERS.build(dict(method))
            return inner
        kind = MERGERS[method]
        known = inspect.signature(kind).parameters
        named: Merger = kind(**{name: value for name, value in by_name.items() if name in known})
        return named
