"""The layer-wise merge that SyMerge adapts: theta_l = theta_0,l + sum_t lambda_{l,t} tau_{t,l}.

SyMerge, https://arxiv.org/abs/2412.19098; the coefficients are those of AdaMerging, https://arxiv.org/abs/2310.02575
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from symerge_dense.merging.coefficients import groups_of, initial_coefficients
from symerge_dense.merging.compatibility import check_compatible
from symerge_dense.merging.fused import merge_tensor
from symerge_dense.merging.kinds import TensorSpec, weights
from symerge_dense.merging.sources import TensorSource, layouts, load
from symerge_dense.merging.task_vectors import subtract_into


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

    def __init__(self, specs: Iterable[TensorSpec], tasks: Sequence[str],
                 granularity: Literal["tensor", "block", "task"] = "tensor",
                 init: float | Mapping[str, float] | Tensor = 0.3,
                 clamp: tuple[float, float] | None = (0.0, 1.0)) -> None:
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
            raise ValueError(f"experts are {sorted(experts)}, but the coefficients are for {sorted(self.tasks)}; "
                             "pass one state dict for each of these.")
        check_compatible(base, experts, [spec.name for spec in self.specs])
        found = layouts(base)
        wrong = [f"{spec.name}: {found[spec.name].shape}, not {spec.shape}" for spec in self.specs
                 if found[spec.name].shape != spec.shape]
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
            raise ValueError(f"base parameters lack {len(missing)} merged tensors, the first {missing[:10]}; "
                             "pass the parameters of the module that the specs were made from.")
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

    def expand(self) -> dict[str, Tensor]:
        """The coefficients of every tensor: tensor name -> its group's row (T,), detached."""
        return {spec.name: self.coefficients.detach()[self._row[spec.name]] for spec in self.specs}

    def _views(self, vectors: Tensor) -> list[Tensor]:
        """The buffer as one contiguous (T, numel) view per tensor."""
        tasks = len(self.tasks)
        pieces = vectors.split([tasks * spec.numel for spec in self.specs])
        return [piece.view(tasks, -1) if piece.numel() else piece.view(tasks, 0) for piece in pieces]
