"""A merge with a coefficient for every element: theta = theta_0 + sum_t a_t * tau_t, all of one shape.

The parameterisation of ProDistill, https://arxiv.org/abs/2502.12706
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from symerge_dense.merging.operands import task_vectors
from symerge_dense.merging.sources import TensorSource
from symerge_dense.merging.tensor_specs import TensorSpec, weights


class PerWeightMerge(nn.Module):
    """Coefficients (T, numel) for every tensor, float32, parameters from construction, without a range.

    The task vectors arrive by ``attach``, on the coefficients' device, and stay out of checkpoints. Learning all
    coefficients takes T times the memory of learning the weights.

    Args:
        specs: the tensors to merge; running statistics and counters among them are left out.
        tasks: the experts' names.
        init: start value of every coefficient.
    """

    def __init__(self, specs: Iterable[TensorSpec], tasks: Sequence[str], init: float = 0.3) -> None:
        super().__init__()
        self.specs, self.tasks = tuple(weights(specs)), tuple(tasks)
        self._number = {spec.name: number for number, spec in enumerate(self.specs)}
        self.coefficients = nn.ParameterList(
            [torch.full((len(self.tasks), spec.numel), float(init)) for spec in self.specs]
        )
        self._vectors: dict[str, Tensor] = {}

    @torch.no_grad()
    def attach(self, base: TensorSource, experts: Mapping[str, TensorSource]) -> None:
        """Compute the task vectors.

        Args:
            base: tensors of the base.
            experts: {task: tensors}.

        Raises:
            ValueError: as ``task_vectors`` does.
        """
        ordered = {task: experts[task] for task in self.tasks}
        device = self.coefficients[0].device
        found = task_vectors(base, ordered, [spec.name for spec in self.specs])
        self._vectors = {name: rows.to(device) for name, rows in found.items()}

    def forward(self, base_parameters: Mapping[str, Tensor], names: Collection[str] | None = None) -> dict[str, Tensor]:
        """Merged tensors by name, differentiable in their coefficients.

        Args:
            base_parameters: tensors of the base by name.
            names: the tensors wanted; None for all.

        Raises:
            RuntimeError: ``attach`` was not called.
        """
        if not self._vectors:
            raise RuntimeError("PerWeightMerge has no task vectors yet; call attach(base, experts) before forward.")
        wanted = [spec.name for spec in self.specs if names is None or spec.name in names]
        return {name: self._tensor(name, base_parameters[name].detach()) for name in wanted}

    def _tensor(self, name: str, base: Tensor) -> Tensor:
        with torch.autocast(device_type=base.device.type, enabled=False):
            vectors = self._vectors[name]
            delta = (self.coefficients[self._number[name]] * vectors).sum(0)
            flat = rearrange(base, "... -> (...)").to(delta.dtype)
            return (flat + delta).to(base.dtype).view(base.shape)
