"""The layer-wise merge that SyMerge adapts: theta_l = theta_0,l + sum_t lambda_{l,t} tau_{t,l}.

SyMerge, https://arxiv.org/abs/2412.19098; the coefficients are those of AdaMerging, https://arxiv.org/abs/2310.02575
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from symerge_dense.merging.operands import interpolate, subtract_into
from symerge_dense.merging.sources import TensorSource, check_compatible, layouts, load
from symerge_dense.merging.tensor_specs import TensorSpec, weights
from symerge_dense.registry import did_you_mean

GRANULARITIES = ("tensor", "block", "task")


# -- which tensors share coefficients, and where the coefficients start -----------------------------------------------
def groups_of(specs: Sequence[TensorSpec], granularity: str) -> dict[str, tuple[str, ...]]:
    """Group name -> names of its tensors: one group per tensor, per block, or 'all'.

    Raises ValueError for no tensor, an unknown granularity, or blocks that the specs do not know.
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
    """Start values (G, T), float32. Raises ValueError if they do not fit tasks, groups or the clamp range."""
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

    ``row`` (T,) are the coefficients and ``values`` the same numbers on the host, ``vectors`` (T, numel) the task
    vectors; except for T = 1, where ``vectors`` is the EXPERT. A float task vector cannot always give its expert
    back (see ``interpolate``), and keeping the expert in its place costs no memory and is exact at both ends. With
    several experts no single one need come back, and task vectors save a subtraction at every step.
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

    ``specs`` are the tensors to merge, in order; running statistics and counters among them are left out. A group of
    ``granularity`` is one tensor, one block of the network or, for 'task', everything; its row is shared by all
    tensors in it. ``init`` is one number, ``{task: number}``, or a tensor that broadcasts to (G, T). ``clamp`` is
    the range that ``project_`` keeps coefficients in, None for none.

    ``coefficients`` is a float32 parameter from construction, so optimizers and DDP find it; the task vectors arrive
    by ``attach`` in one non-persistent buffer, which moves with ``.to()`` and stays out of checkpoints. Raises
    ValueError for no or repeated tasks, nothing to merge, unknown blocks, or a bad ``init``.
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

        ``base`` and ``experts`` may hold more tensors than are merged. Raises ValueError if the experts are not
        exactly ``tasks``, or as ``check_compatible`` and ``load`` do.
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
                rows[0] = load(experts[self.tasks[0]], self.tasks[0], spec.name, rows.device).reshape(-1)
            else:
                origin = load(base, "base", spec.name, rows.device).to(rows.dtype)
                subtract_into(rows, origin, ordered, spec.name)
        self.vectors = vectors

    def forward(self, base_parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Merged tensors by name, of the base's shapes and data types, differentiable in ``coefficients``.

        All coefficients 0 give the base bit for bit; with one expert, coefficients 1 give the expert bit for bit.
        Raises RuntimeError before ``attach``, ValueError if a base parameter is missing.
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
        """Clamp the coefficients in place. After the step, not in forward, where a clamp would have no gradient."""
        if self.clamp is not None:
            self.coefficients.clamp_(*self.clamp)

    def table(self) -> dict[str, list[float]]:
        """The coefficients: group name -> one number per task, in the order of ``tasks``."""
        return dict(zip(self.groups, self.coefficients.tolist(), strict=True))

    def _views(self, vectors: Tensor) -> list[Tensor]:
        """The buffer as one contiguous (T, numel) view per tensor."""
        tasks = len(self.tasks)
        pieces = vectors.split([tasks * spec.numel for spec in self.specs])
        return [piece.view(tasks, -1) if piece.numel() else piece.view(tasks, 0) for piece in pieces]
