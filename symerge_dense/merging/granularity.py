"""What shares a merging coefficient per task: the network, a block, a tensor, a channel, or a singular direction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from einops import rearrange
from torch import Tensor

from symerge_dense.merging.fused import merge_channels, merge_directions, merge_tensor
from symerge_dense.merging.operands import subtract_into
from symerge_dense.merging.sources import TensorSource, load
from symerge_dense.merging.spectral import as_matrix, svd
from symerge_dense.merging.tensor_specs import TensorSpec
from symerge_dense.registry import did_you_mean

Granularity = Literal["tensor", "block", "task", "channel", "singular"]
GRANULARITIES: tuple[str, ...] = get_args(Granularity)
FINER = ("channel", "singular")
"""Granularities with several coefficients per tensor and task."""


def groups_of(specs: Sequence[TensorSpec], granularity: str) -> dict[str, tuple[str, ...]]:
    """The tensors that share coefficients: one group per block, 'all', or one per tensor, which may have several rows.

    Args:
        specs: the tensors to merge, in order.
        granularity: of ``GRANULARITIES``.

    Returns:
        Group name -> names of its tensors.

    Raises:
        ValueError: there is no tensor, the granularity is unknown, or the specs know no blocks.
    """
    if not specs:
        raise ValueError(
            "there is no weight to merge among the specs; running statistics and counters do not count. "
            "Pass the specs of a network with parameters (tensor_specs)."
        )
    if granularity not in GRANULARITIES:
        raise ValueError(did_you_mean(granularity, GRANULARITIES, "granularity"))
    groups: dict[str, tuple[str, ...]] = {}
    for spec in specs:
        if granularity == "block" and spec.block is None:
            raise ValueError(
                f"tensor {spec.name!r} belongs to no known block; make the specs from the module "
                "(tensor_specs), or use granularity='tensor'."
            )
        key = {"block": spec.block_name or f"block {spec.block}", "task": "all"}.get(granularity, spec.name)
        groups[key] = (*groups.get(key, ()), spec.name)
    return groups


class Known(NamedTuple):
    """What the host knows of a tensor's coefficients without asking the device again.

    Args:
        first: the first row (T,), as numbers.
        live: how many rows have a coefficient that is not 0.
    """

    first: list[float]
    live: int


# -- one tensor: its rows of coefficients, what is kept of the experts, and how it is merged --------------------------
class WholeTensor:
    """A tensor with one coefficient per task.

    Args:
        spec: the tensor.
        tasks: number of tasks T.
    """

    def __init__(self, spec: TensorSpec, tasks: int) -> None:
        self.spec, self.tasks = spec, tasks

    @property
    def rows(self) -> int:
        """Rows of coefficients, each with one per task."""
        return 1

    @property
    def size(self) -> int:
        """How many numbers ``fill`` writes."""
        return self.tasks * self.spec.numel

    def fill(self, numbers: Tensor, base: TensorSource, experts: Mapping[str, TensorSource]) -> None:
        """Write the task vectors; a single expert's own values take their place, see ``merge_tensor``.

        Args:
            numbers: (size,), written in place.
            base: tensors of the base.
            experts: {task: tensors}, in the order of the coefficients.

        Raises:
            ValueError: a value is NaN or infinite.
        """
        vectors = numbers.view(self.tasks, -1)
        if self.tasks == 1:
            ((task, expert),) = experts.items()
            vectors[0] = rearrange(load(expert, task, self.spec.name, numbers.device), "... -> (...)")
        else:
            self.subtract(vectors, base, experts)

    def subtract(self, vectors: Tensor, base: TensorSource, experts: Mapping[str, TensorSource]) -> None:
        """Write theta_t - theta_0.

        Args:
            vectors: (T, numel), written in place.
            base: tensors of the base.
            experts: {task: tensors}, in the order of the rows.
        """
        origin = load(base, "base", self.spec.name, vectors.device).to(vectors.dtype)
        subtract_into(vectors, origin, experts, self.spec.name)

    def merge(self, rows: Tensor, base: Tensor, numbers: Tensor, known: Known) -> Tensor:
        """The merged tensor, of the base's shape and data type, differentiable in ``rows``.

        Args:
            rows: coefficients (T,) of the tensor, or (rows, T).
            base: the base's value.
            numbers: what ``fill`` wrote.
            known: about the coefficients.
        """
        row = rows if rows.ndim == 1 else rows[0]
        return merge_tensor(row, base, numbers.view(self.tasks, -1), known.first)


class Channels(WholeTensor):
    """A coefficient per task and output channel.

    That is the first axis of a weight, and the only one of biases and of the parameters of a normalisation. Embeddings
    (positions, class tokens, tables) have their channels last.
    """

    @property
    def rows(self) -> int:
        return self.spec.shape[self._axis]

    @property
    def _axis(self) -> int:
        return -1 if self.spec.kind == "embedding" else 0

    def fill(self, numbers: Tensor, base: TensorSource, experts: Mapping[str, TensorSource]) -> None:
        super().fill(numbers, base, experts)
        if self._axis:
            turned = rearrange(numbers, "(t n c) -> (t c n)", t=self.tasks, c=self.rows)
            numbers.copy_(turned.clone())

    def merge(self, rows: Tensor, base: Tensor, numbers: Tensor, known: Known) -> Tensor:
        origin = base.movedim(self._axis, 0)
        merged = merge_channels(rows, origin, numbers.view(self.tasks, -1), known.live < self.rows)
        return merged.movedim(0, self._axis).contiguous() if self._axis else merged


class Directions(WholeTensor):
    """A coefficient per task and singular direction of its task vector U diag(s) V^T; kernels are (O, I * kh * kw).

    The largest directions have their own; what they leave of a task vector shares one.

    Args:
        spec: a matrix or a kernel.
        tasks: number of tasks T.
        rank: directions with coefficients of their own; None for all.
    """

    def __init__(self, spec: TensorSpec, tasks: int, rank: int | None) -> None:
        super().__init__(spec, tasks)
        self.shape = spec.shape[0], math.prod(spec.shape[1:])
        self.rank = min(*self.shape, *([] if rank is None else [rank]))
        self.rests = self.rank < min(self.shape)

    @property
    def rows(self) -> int:
        return self.rank + self.rests

    @property
    def size(self) -> int:
        return self.tasks * (self.rank * sum(self.shape) + self.rests * self.spec.numel)

    def fill(self, numbers: Tensor, base: TensorSource, experts: Mapping[str, TensorSource]) -> None:
        vectors = numbers.new_empty(self.tasks, self.spec.numel)
        self.subtract(vectors, base, experts)
        left, right, rest = self._views(numbers.zero_())
        for task, vector in enumerate(vectors):
            matrix = as_matrix(vector.view(self.spec.shape))
            found = svd(matrix, self.rank)  # leaves negligible directions out: those stay zero
            part = slice(task * self.rank, task * self.rank + len(found.values))
            left[:, part], right[part] = (found.left * found.values).to(left.dtype), found.right.to(right.dtype)
            if rest is not None:
                torch.sub(vector, (left[:, part] @ right[part]).view(-1), out=rest[task])

    def merge(self, rows: Tensor, base: Tensor, numbers: Tensor, known: Known) -> Tensor:
        return merge_directions(rows, base, *self._views(numbers), idle=not known.live)

    def _views(self, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        (height, width), directions = self.shape, self.tasks * self.rank
        sides = [height * directions, directions * width]
        left, right, rest = numbers.split([*sides, self.size - sum(sides)])
        return (
            left.view(height, directions),
            right.view(directions, width),
            rest.view(self.tasks, -1) if self.rests else None,
        )


def parts_of(specs: Sequence[TensorSpec], tasks: int, granularity: str, rank: int | None) -> list[WholeTensor]:
    """How each tensor is merged.

    Args:
        specs: the tensors to merge, in order.
        tasks: number of tasks.
        granularity: of ``GRANULARITIES``.
        rank: of ``Directions``.

    Raises:
        ValueError: a granularity that no tensor of the network has, or a rank below 1.
    """
    if rank is not None and rank < 1:
        raise ValueError(f"rank={rank} singular directions; give 1 or more, or None for all of them.")
    parts = [_part(spec, tasks, granularity, rank) for spec in specs]
    if granularity in FINER and all(type(part) is WholeTensor for part in parts):
        wanted = {"channel": "an axis of channels", "singular": "the form of a matrix or a kernel"}[granularity]
        raise ValueError(
            f"granularity={granularity!r}: none of the {len(specs)} tensors to merge ({specs[0].name!r}, ...) has "
            f"{wanted}; use granularity='tensor'."
        )
    return parts


def _part(spec: TensorSpec, tasks: int, granularity: str, rank: int | None) -> WholeTensor:
    if granularity == "channel" and spec.shape:
        return Channels(spec, tasks)
    if granularity == "singular" and spec.kind in ("matrix", "conv"):
        return Directions(spec, tasks, rank)
    return WholeTensor(spec, tasks)
