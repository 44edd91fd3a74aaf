"""Merging one tensor in one pass over memory, with a gradient for the coefficients and nothing else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from symerge_dense.merging.task_vectors import interpolate


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
