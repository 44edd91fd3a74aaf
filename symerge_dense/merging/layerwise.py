"""The layer-wise merge that SyMerge adapts: theta_l = theta_0,l + sum_t lambda_{l,t} tau_{t,l}.

SyMerge, https://arxiv.org/abs/2412.19098; the coefficients are those of AdaMerging, https://arxiv.org/abs/2310.02575
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from symerge_dense.merging.operands import interpolate, subtract_into
from symerge_dense.merging.sources import TensorSource, check_compatible, layouts, load
from symerge_dense.merging.tensor_specs import TensorSpec, weights
from symerge_dense.registry import did_you_mean

GRANULARITIES = ("tensor", "block", "task")


# -- which tensors share coefficients, and where the coefficients start -----------------------------------------------
def groups_of(specs: Sequence[TensorSpec], granularity: str) -> dict[str, tuple[str, ...]]:
    """The tensors that share coefficients: one group per tensor, per block, or 'all'.

    Args:
        specs: the tensors to merge, in order.
        granularity: 'tensor', 'block' or 'task'.

    Returns:
        Group name -> names of its tensors.

    Raises:
        ValueError: there is no tensor, the granularity is unknown, or the specs know no blocks.
    """
    if not specs:
        raise ValueError("there is no weight to merge among the specs; running statistics and counters do not count.")
    if granularity not in GRANULARITIES:
        raise ValueError(did_you_mean(granularity, GRANULARITIES, "granularity"))
    groups: dict[str, tuple[str, ...]] = {}
    for spec in specs:
        if granularity == "block" and spec.block is None:
            raise ValueError(
                f"tensor {spec.name!r} belongs to no known block; make the specs from the module "
                "(tensor_specs), or use granularity='tensor'."
            )
        key = {"tensor": spec.name, "block": spec.block_name or f"block {spec.block}", "task": "all"}[granularity]
        groups[key] = (*groups.get(key, ()), spec.name)
    return groups


def initial_coefficients(
    init: float | Mapping[str, float] | Tensor,
    groups: Collection[str],
    tasks: Sequence[str],
    clamp: tuple[float, float] | None,
) -> Tensor:
    """Start values of the coefficients, (G, T), float32.

    Args:
        init: one number, {task: number}, or a tensor that broadcasts to (G, T).
        groups: the G groups.
        tasks: the T tasks.
        clamp: allowed range (low, high), or None.

    Raises:
        ValueError: the values do not fit tasks, groups or range, or are not finite.
    """
    if isinstance(init, Mapping):
        if set(init) != set(tasks):
            raise ValueError(f"init names {sorted(init)}, the tasks are {sorted(tasks)}; give every task one number.")
        init = torch.tensor([float(init[task]) for task in tasks])
    shape = (len(groups), len(tasks))
    start = torch.as_tensor(init, dtype=torch.float32).detach()
    try:
        start = start.expand(shape).clone()
    except RuntimeError:
        found = tuple(start.shape)
        raise ValueError(f"init has shape {found}; it must broadcast to (groups, tasks) = {shape}.") from None
    if not bool(start.isfinite().all()):
        raise ValueError("init holds NaN or infinite coefficients; pass finite numbers.")
    if clamp is not None and not clamp[0] < clamp[1]:
        raise ValueError(f"clamp is {clamp}; it must be (low, high) with low < high, or None.")
    if clamp is not None and not bool(((start >= clamp[0]) & (start <= clamp[1])).all()):
        raise ValueError(f"init spans {start.min():g} to {start.max():g}, outside clamp={clamp}; change one of them.")
    return start


# -- one tensor in one pass over memory, with a gradient for the coefficients and nothing else ------------------------
def merge_tensor(row: Tensor, base: Tensor, vectors: Tensor, values: list[float]) -> Tensor:
    """base + row @ task vectors, of the base's shape and data type.

    With T = 1 ``vectors`` holds the EXPERT in place of its task vector. A float task vector cannot always give its
    expert back (see ``interpolate``); keeping the expert costs no memory and is exact at both ends. With several
    experts no single one need come back, and task vectors save a subtraction at every step.

    Args:
        row: the coefficients (T,).
        base: the base's tensor.
        vectors: the task vectors (T, numel); for T = 1 the expert (1, numel).
        values: the coefficients as numbers on the host.
    """
    with torch.autocast(device_type=base.device.type, enabled=False):
        function = _Blend if len(values) == 1 else _Merge
        merged: Tensor = function.apply(row.to(vectors.dtype), base, vectors, values)
        return merged


class _Merge(torch.autograd.Function):
    """Several experts. addmv reads base and task vectors once, writes the result once: no T graphs, no temporaries."""

    @staticmethod
    def forward(ctx: Any, row: Tensor, base: Tensor, vectors: Tensor, values: list[float]) -> Tensor:
        ctx.save_for_backward(vectors)
        if not any(values):
            return base.clone()
        flat = base.reshape(-1).to(vectors.dtype)
        return torch.addmv(flat, vectors.t(), row).to(base.dtype).view(base.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (vectors,) = ctx.saved_tensors
        return _inner_products(vectors, gradient), None, None, None


class _Blend(torch.autograd.Function):
    """One expert: the way from base to expert, exact at both ends."""

    @staticmethod
    def forward(ctx: Any, row: Tensor, base: Tensor, expert: Tensor, values: list[float]) -> Tensor:
        ctx.save_for_backward(base, expert)
        return interpolate(base.to(expert.dtype), expert.view(base.shape), values[0]).to(base.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        base, expert = ctx.saved_tensors
        return _inner_products(expert - base.reshape(1, -1), gradient), None, None, None


def _inner_products(vectors: Tensor, gradient: Tensor) -> Tensor:
    """d(lambda) = tau @ gradient, (T,), in the task vectors' precision, whatever autocast is active in backward."""
    with torch.autocast(device_type=vectors.device.type, enabled=False):
        return torch.mv(vectors, gradient.reshape(-1).to(vectors.dtype))


# -- the merge --------------------------------------------------------------------------------------------------------
class LayerwiseMerge(nn.Module):
    """Merging coefficients (G groups, T tasks) and the task vectors they weigh.

    ``coefficients`` is a float32 parameter from construction, so optimizers and DDP find it. ``attach`` brings the task
    vectors, in one non-persistent buffer, which moves with ``.to()`` and stays out of checkpoints.

    Args:
        specs: the tensors to merge, in order; running statistics and counters among them are left out.
        tasks: the experts' names, each once.
        granularity: what shares a row of coefficients: one 'tensor', one 'block' of the network, or for 'task' all.
        init: start values: one number, {task: number}, or a tensor that broadcasts to (G, T).
        clamp: the range that ``project_`` keeps coefficients in; None for no range.

    Raises:
        ValueError: there are no tasks, repeated ones, nothing to merge, unknown blocks, or a bad ``init``.

    >>> from symerge_dense.merging.tensor_specs import specs_from_state
    >>> base = {"weight": torch.zeros(1, 2)}
    >>> experts = {"depth": {"weight": torch.tensor([[2.0, 0.0]])}, "normals": {"weight": torch.tensor([[0.0, 4.0]])}}
    >>> merge = LayerwiseMerge(specs_from_state(base), list(experts), init=0.5)
    >>> merge.attach(base, experts)
    >>> merge(base)["weight"].tolist(), merge.table()
    ([[1.0, 2.0]], {'weight': [0.5, 0.5]})
    """

    coefficients: nn.Parameter
    vectors: Tensor | None

    def __init__(
        self,
        specs: Iterable[TensorSpec],
        tasks: Sequence[str],
        granularity: Literal["tensor", "block", "task"] = "tensor",
        init: float | Mapping[str, float] | Tensor = 0.3,
        clamp: tuple[float, float] | None = (0.0, 1.0),
    ) -> None:
        super().__init__()
        self.specs, self.tasks, self.clamp = tuple(weights(specs)), tuple(tasks), clamp
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks are {list(self.tasks)}; pass at least one, each once.")
        self.groups: dict[str, tuple[str, ...]] = groups_of(self.specs, granularity)
        self._row = {name: row for row, names in enumerate(self.groups.values()) for name in names}
        self.coefficients = nn.Parameter(initial_coefficients(init, self.groups, self.tasks, clamp))
        self.register_buffer("vectors", None, persistent=False)

    @torch.no_grad()
    def attach(self, base: TensorSource, experts: Mapping[str, TensorSource]) -> None:
        """Compute the task vectors of all tensors: T x D numbers in one allocation, on the coefficients' device.

        Args:
            base: tensors of the base; may hold more than are merged.
            experts: {task: tensors}, for exactly ``tasks``; they may hold more, too.

        Raises:
            ValueError: other tasks or shapes than announced, or as ``check_compatible`` and ``load`` do.
        """
        if set(experts) != set(self.tasks):
            raise ValueError(
                f"experts are {sorted(experts)}, but the coefficients are for {sorted(self.tasks)}; "
                "pass one state dict for each of these."
            )
        check_compatible(base, experts, [spec.name for spec in self.specs])
        found = layouts(base)
        wrong = [
            f"{spec.name}: {found[spec.name].shape}, not {spec.shape}"
            for spec in self.specs
            if found[spec.name].shape != spec.shape
        ]
        if wrong:
            raise ValueError(f"the base has tensors of other shapes than the specs: {'; '.join(wrong[:10])}.")
        dtype = torch.float64 if any(spec.dtype == torch.float64 for spec in self.specs) else torch.float32
        size = len(self.tasks) * sum(spec.numel for spec in self.specs)
        vectors = torch.empty(size, dtype=dtype, device=self.coefficients.device)
        ordered = {task: experts[task] for task in self.tasks}
        for spec, rows in zip(self.specs, self._views(vectors), strict=True):
            if len(self.tasks) == 1:  # with one expert its own values are kept: see ``merge_tensor``
                only = load(experts[self.tasks[0]], self.tasks[0], spec.name, rows.device)
                rows[0] = rearrange(only, "... -> (...)")
            else:
                origin = load(base, "base", spec.name, rows.device).to(rows.dtype)
                subtract_into(rows, origin, ordered, spec.name)
        self.vectors = vectors

    def forward(self, base_parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Merge: tensors by name, of the base's shapes and data types, differentiable in ``coefficients``.

        All coefficients 0 give the base bit for bit; with one expert, coefficients 1 give the expert bit for bit.

        Args:
            base_parameters: tensors of the base by name; may hold more than are merged.

        Raises:
            RuntimeError: ``attach`` was not called.
            ValueError: a base parameter is missing.
        """
        if self.vectors is None:
            raise RuntimeError("LayerwiseMerge has no task vectors yet; call attach(base, experts) before forward.")
        missing = [spec.name for spec in self.specs if spec.name not in base_parameters]
        if missing:
            raise ValueError(
                f"base parameters lack {len(missing)} merged tensors, the first {missing[:10]}; "
                "pass the parameters of the module that the specs were made from."
            )
        rows = self.coefficients.unbind(0)
        values = self.coefficients.tolist()  # read once, so that a GPU is waited for once
        merged = {}
        for spec, vectors in zip(self.specs, self._views(self.vectors), strict=True):
            row = self._row[spec.name]
            merged[spec.name] = merge_tensor(rows[row], base_parameters[spec.name].detach(), vectors, values[row])
        return merged

    @torch.no_grad()
    def project_(self) -> None:
        """Clamp the coefficients in place; after the step, as a clamp in forward would have no gradient."""
        if self.clamp is not None:
            self.coefficients.clamp_(*self.clamp)

    def table(self) -> dict[str, list[float]]:
        """The coefficients: group name -> one number per task, in the order of ``tasks``."""
        return dict(zip(self.groups, self.coefficients.tolist(), strict=True))

    def _views(self, vectors: Tensor) -> list[Tensor]:
        """The buffer as one contiguous (T, numel) view per tensor."""
        tasks = len(self.tasks)
        pieces = vectors.split([tasks * spec.numel for spec in self.specs])
        return [rearrange(piece, "(task weight) -> task weight", task=tasks) for piece in pieces]
