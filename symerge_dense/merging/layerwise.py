"""The layer-wise merge that SyMerge adapts: theta_l = theta_0,l + sum_t lambda_{l,t} tau_{t,l}.

SyMerge, https://arxiv.org/abs/2412.19098; the coefficients are those of AdaMerging, https://arxiv.org/abs/2310.02575
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from symerge_dense.merging.granularity import Granularity, Known, groups_of, parts_of
from symerge_dense.merging.sources import TensorSource, check_compatible, layouts
from symerge_dense.merging.tensor_specs import TensorSpec, weights
from symerge_dense.models.mapped_files import scratch_tensor


def initial_coefficients(
    init: float | Mapping[str, float] | Tensor,
    rows: int,
    tasks: Sequence[str],
    clamp: tuple[float, float] | None,
) -> Tensor:
    """Start values of the coefficients, (R, T), float32.

    Args:
        init: one number, {task: number}, or a tensor that broadcasts to (R, T).
        rows: their number R.
        tasks: the T tasks.
        clamp: allowed range (low, high), or None.

    Raises:
        ValueError: the values do not fit tasks, groups or range, or are not finite.
    """
    if isinstance(init, Mapping):
        if set(init) != set(tasks):
            raise ValueError(f"init names {sorted(init)}, the tasks are {sorted(tasks)}; give every task one number.")
        init = torch.tensor([float(init[task]) for task in tasks])
    shape = (rows, len(tasks))
    start = torch.as_tensor(init, dtype=torch.float32).detach()
    try:
        start = start.expand(shape).clone()
    except RuntimeError:
        found = tuple(start.shape)
        raise ValueError(f"init has shape {found}; it must broadcast to (rows, tasks) = {shape}.") from None
    if not bool(start.isfinite().all()):
        raise ValueError("init holds NaN or infinite coefficients; pass finite numbers.")
    if clamp is not None and not clamp[0] < clamp[1]:
        raise ValueError(f"clamp is {clamp}; it must be (low, high) with low < high, or None.")
    if clamp is not None and not bool(((start >= clamp[0]) & (start <= clamp[1])).all()):
        raise ValueError(f"init spans {start.min():g} to {start.max():g}, outside clamp={clamp}; change one of them.")
    return start


class LayerwiseMerge(nn.Module):
    """Merging coefficients (R rows, T tasks) and the task vectors they weigh.

    ``coefficients`` is a float32 parameter from construction, so optimizers and DDP find it. A group of tensors has one
    row, or with the finer granularities one for each channel or direction of its tensor. ``attach`` brings the task
    vectors, in one non-persistent buffer, which moves with ``.to()`` and stays out of checkpoints; or in a file, where
    they stay.

    Args:
        specs: the tensors to merge, in order; running statistics and counters among them are left out.
        tasks: the experts' names, each once.
        granularity: what shares a row of coefficients: one 'tensor', one 'block' of the network, or for 'task' all.
            Finer ones: every output 'channel' of a tensor has its own, or every 'singular' direction of a matrix or
            kernel (other tensors then have one row).
        init: start values: one number, {task: number}, or a tensor that broadcasts to (R, T).
        clamp: the range that ``project_`` keeps coefficients in; None for no range.
        rank: with 'singular', how many directions of a tensor have coefficients of their own, the largest first; the
            rest of the task vector shares one more. None for all of them.

    Raises:
        ValueError: there are no tasks, repeated ones, nothing to merge, unknown blocks, no tensor that has the axis of
            a finer granularity, or a bad ``init``.

    >>> from symerge_dense.merging.tensor_specs import specs_from_state
    >>> base = {"weight": torch.zeros(1, 2)}
    >>> experts = {"depth": {"weight": torch.tensor([[2.0, 0.0]])}, "normals": {"weight": torch.tensor([[0.0, 4.0]])}}
    >>> merge = LayerwiseMerge(specs_from_state(base), list(experts), init=0.5)
    >>> merge.attach(base, experts)
    >>> merge(base)["weight"].tolist(), merge.table()
    ([[1.0, 2.0]], {'weight': [0.5, 0.5]})
    """

    coefficients: nn.Parameter
    owner: Tensor | None
    starts: Tensor | None
    vectors: Tensor | None

    def __init__(
        self,
        specs: Iterable[TensorSpec],
        tasks: Sequence[str],
        granularity: Granularity = "tensor",
        init: float | Mapping[str, float] | Tensor = 0.3,
        clamp: tuple[float, float] | None = (0.0, 1.0),
        rank: int | None = None,
    ) -> None:
        super().__init__()
        self.specs, self.tasks, self.clamp = tuple(weights(specs)), tuple(tasks), clamp
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks are {list(self.tasks)}; pass at least one, each once.")
        self.groups: dict[str, tuple[str, ...]] = groups_of(self.specs, granularity)
        self._group = {name: number for number, names in enumerate(self.groups.values()) for name in names}
        self._parts = parts_of(self.specs, len(self.tasks), granularity, rank)
        rows = {self._group[part.spec.name]: part.rows for part in self._parts}
        self._rows = [rows[group] for group in range(len(rows))]  # of every group
        self.coefficients = nn.Parameter(initial_coefficients(init, sum(self._rows), self.tasks, clamp))
        counts = torch.tensor(self._rows)
        finer = bool((counts > 1).any())
        owner, starts = torch.arange(len(counts)).repeat_interleave(counts), counts.cumsum(0) - counts
        self.register_buffer("owner", owner if finer else None, persistent=False)  # the group of every row
        self.register_buffer("starts", starts if finer else None, persistent=False)  # the first row of every group
        self.register_buffer("vectors", None, persistent=False)
        self._scratch: Tensor | None = None  # in the place of ``vectors``

    @torch.no_grad()
    def attach(
        self,
        base: TensorSource,
        experts: Mapping[str, TensorSource],
        folder: str | Path | None = None,
        half: bool = False,
    ) -> None:
        """Compute the task vectors of all tensors: T x D numbers in one allocation, on the coefficients' device.

        Singular directions come on top: for each tensor and task as many numbers as its factors have.

        Args:
            base: tensors of the base; may hold more than are merged.
            experts: {task: tensors}, for exactly ``tasks``; they may hold more, too.
            folder: of a file for the task vectors, see ``scratch_tensor``; each is moved to the coefficients' device as
                it is used. None keeps them in memory.
            half: keep float32 task vectors as bfloat16, rounded to 8 bits; merges and gradients are of float32. A
                single expert stays as it is, so that coefficients 1 give it back.

        Raises:
            ValueError: other tasks or shapes than announced, the disk is too small, or as ``check_compatible`` and
                ``load`` do.
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
        size = sum(part.size for part in self._parts)
        kept = torch.bfloat16 if half and dtype == torch.float32 and len(self.tasks) > 1 else dtype
        if folder is None:
            vectors = torch.empty(size, dtype=kept, device=self.coefficients.device)
        else:
            vectors = scratch_tensor(size, kept, folder)
        ordered = {task: experts[task] for task in self.tasks}
        for part, numbers in zip(self._parts, self._pieces(vectors), strict=True):
            exact = numbers if kept == dtype else torch.empty_like(numbers, dtype=dtype)
            part.fill(exact, base, ordered)
            if exact is not numbers:
                numbers.copy_(exact)
        self.vectors, self._scratch = (vectors, None) if folder is None else (None, vectors)

    def forward(self, base_parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Merge: tensors by name, of the base's shapes and data types, differentiable in ``coefficients``.

        All coefficients 0 give the base bit for bit; with one expert, coefficients 1 give the expert bit for bit
        ('singular': to rounding).

        Args:
            base_parameters: tensors of the base by name; may hold more than are merged.

        Raises:
            RuntimeError: ``attach`` was not called.
            ValueError: a base parameter is missing.
        """
        vectors = self.vectors if self._scratch is None else self._scratch
        if vectors is None:
            raise RuntimeError("LayerwiseMerge has no task vectors yet; call attach(base, experts) before forward.")
        missing = [spec.name for spec in self.specs if spec.name not in base_parameters]
        if missing:
            raise ValueError(
                f"base parameters lack {len(missing)} merged tensors, the first {missing[:10]}; "
                "pass the parameters of the module that the specs were made from."
            )
        rows = self.coefficients.unbind(0) if self.owner is None else self.coefficients.split(self._rows)
        known, merged = self._known(), {}
        for part, numbers in zip(self._parts, self._pieces(vectors), strict=True):
            name, group = part.spec.name, self._group[part.spec.name]
            merged[name] = part.merge(rows[group], base_parameters[name].detach(), numbers, known[group])
        return merged

    @torch.no_grad()
    def project_(self) -> None:
        """Clamp the coefficients in place; after the step, as a clamp in forward would have no gradient."""
        if self.clamp is not None:
            self.coefficients.clamp_(*self.clamp)

    @torch.no_grad()
    def means(self) -> Tensor:
        """The mean coefficient of every group and task, (G, T); a group of one row has just that."""
        if self.owner is None:
            return self.coefficients.detach()
        sums = self.coefficients.new_zeros(len(self.groups), len(self.tasks))
        return sums.index_add_(0, self.owner, self.coefficients) / sums.new_tensor(self._rows)[:, None]

    def table(self) -> dict[str, list[float]]:
        """The coefficients: group name -> one number per task, in the order of ``tasks``; the mean of several rows."""
        return dict(zip(self.groups, self.means().tolist(), strict=True))

    def ranges(self) -> dict[str, list[list[float]]]:
        """Of the groups with several rows: group name -> the [lowest, highest] coefficient of every task, in order."""
        rows = dict(zip(self.groups, self.coefficients.detach().split(self._rows), strict=True))
        return {name: torch.stack(found.aminmax(dim=0), 1).tolist() for name, found in rows.items() if len(found) > 1}

    @torch.no_grad()
    def _known(self) -> list[Known]:
        """About every group; read at once, so that a GPU is waited for once."""
        if self.owner is None:
            return [Known(row, int(any(row))) for row in self.coefficients.tolist()]
        live = self.coefficients.new_zeros(len(self.groups))
        live.index_add_(0, self.owner, self.coefficients.any(1).to(live.dtype))
        seen = torch.cat([live[:, None], self.coefficients[self.starts]], 1)
        return [Known(row[1:], round(row[0])) for row in seen.tolist()]

    def _pieces(self, vectors: Tensor) -> tuple[Tensor, ...]:
        """What each tensor keeps in the buffer."""
        return vectors.split([part.size for part in self._parts])
