"""One merged tensor in one pass over memory, with a gradient for its coefficients and nothing else.

base + sum_t c_t tau_t, where a task has a coefficient for the whole tensor, or one for each of its output channels or
for each singular direction of the task vector. Task vectors may lie on another device (the host, or a file that is
mapped there), or be bfloat16: forward and backward move and widen those of one tensor, and keep none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.autograd.function import once_differentiable

from symerge_dense.merging.operands import interpolate


def _kind(vectors: Tensor) -> torch.dtype:
    """What is computed in: float32, or float64."""
    return torch.promote_types(vectors.dtype, torch.float32)


def _ready(vectors: Tensor, device: torch.device) -> Tensor:
    return vectors.to(device, _kind(vectors))


def _one_by_one(vectors: Tensor, device: torch.device) -> bool:
    """Whether task vectors are widened one after another: all at once, a CPU's memory writes more than it reads."""
    return device.type == "cpu" and vectors.dtype != _kind(vectors)


def _widened(vectors: Tensor, like: Tensor) -> Iterator[Tensor]:
    """Each task vector in turn, in one buffer."""
    wide = torch.empty_like(like)
    for vector in vectors:
        yield wide.copy_(vector.view_as(like))


# -- a coefficient per task -------------------------------------------------------------------------------------------
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
        merged: Tensor = function.apply(row.to(_kind(vectors)), base, vectors, values)
        return merged


class _Merge(torch.autograd.Function):
    """Several experts. addmv reads base and task vectors once, writes the result once: no T graphs, no temporaries."""

    @staticmethod
    def forward(ctx: Any, row: Tensor, base: Tensor, vectors: Tensor, values: list[float]) -> Tensor:
        ctx.save_for_backward(vectors)
        if not any(values):
            return base.clone()
        flat = base.reshape(-1).to(row.dtype)
        if _one_by_one(vectors, row.device):
            merged = flat.clone()
            for coefficient, vector in zip(row, _widened(vectors, flat), strict=True):
                merged.addcmul_(vector, coefficient)
        else:
            merged = torch.addmv(flat, _ready(vectors, row.device).t(), row)
        return merged.to(base.dtype).view(base.shape)

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
        goal = expert.to(base.device).view(base.shape)
        return interpolate(base.to(expert.dtype), goal, values[0]).to(base.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        base, expert = ctx.saved_tensors
        return _inner_products(expert.to(base.device) - base.reshape(1, -1), gradient), None, None, None


def _inner_products(vectors: Tensor, gradient: Tensor) -> Tensor:
    """d(lambda) = tau @ gradient, (T,), in the task vectors' precision, whatever autocast is active in backward."""
    with torch.autocast(device_type=gradient.device.type, enabled=False):
        flat = gradient.reshape(-1).to(_kind(vectors))
        if _one_by_one(vectors, gradient.device):
            return torch.stack([torch.dot(vector, flat) for vector in _widened(vectors, flat)])
        return torch.mv(_ready(vectors, gradient.device), flat)


# -- a coefficient per task and channel -------------------------------------------------------------------------------
def merge_channels(rows: Tensor, base: Tensor, vectors: Tensor, idle: bool) -> Tensor:
    """base[c] + rows[c] @ task vectors[:, c] for every channel c, of the base's shape and data type.

    With T = 1 ``vectors`` holds the expert, as in ``merge_tensor``; every channel is exact at both ends.

    Args:
        rows: the coefficients (C, T).
        base: the base's tensor, channels first (C, ...).
        vectors: the task vectors (T, numel); for T = 1 the expert (1, numel).
        idle: whether some channel has no coefficient but 0, and so must be the base's bit for bit.
    """
    with torch.autocast(device_type=base.device.type, enabled=False):
        function = _BlendChannels if rows.shape[1] == 1 else _MergeChannels
        merged: Tensor = function.apply(rows.to(_kind(vectors)), base, vectors, idle)
        return merged


class _MergeChannels(torch.autograd.Function):
    """Several experts: a batch of matrix-vector products, one for each channel."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, base: Tensor, vectors: Tensor, idle: bool) -> Tensor:
        ctx.save_for_backward(vectors)
        origin = base.reshape(len(rows), 1, -1).to(rows.dtype)
        if _one_by_one(vectors, rows.device):
            merged = origin.clone()
            for row, vector in zip(rows.t(), _widened(vectors, origin), strict=True):
                merged.addcmul_(vector, row[:, None, None])
        else:
            merged = torch.baddbmm(origin, rows[:, None, :], _by_channel(_ready(vectors, rows.device), len(rows)))
        if idle:
            merged = torch.where(rows.any(1)[:, None, None], merged, origin)
        return merged.to(base.dtype).view(base.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (vectors,) = ctx.saved_tensors
        return _channel_products(vectors, gradient), None, None, None


class _BlendChannels(torch.autograd.Function):
    """One expert: every channel goes its own way from base to expert."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, base: Tensor, expert: Tensor, idle: bool) -> Tensor:
        ctx.save_for_backward(base, expert)
        origin, goal = base.reshape(len(rows), -1).to(expert.dtype), expert.to(base.device).view(len(rows), -1)
        merged = torch.lerp(origin, goal, rows.expand_as(goal))
        merged = torch.where(rows == 0, origin, torch.where(rows == 1, goal, merged))  # signs of zeros too
        return merged.to(base.dtype).view(base.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        base, expert = ctx.saved_tensors
        return _channel_products(expert.to(base.device) - base.reshape(1, -1), gradient), None, None, None


def _by_channel(vectors: Tensor, channels: int) -> Tensor:
    return rearrange(vectors, "task (channel weight) -> channel task weight", channel=channels)


def _channel_products(vectors: Tensor, gradient: Tensor) -> Tensor:
    """(C, T): the inner product of every channel of every task vector with that of the gradient."""
    with torch.autocast(device_type=gradient.device.type, enabled=False):
        rows = gradient.reshape(len(gradient), 1, -1).to(_kind(vectors))
        if _one_by_one(vectors, gradient.device):
            return torch.cat([vector.mul_(rows).sum(2) for vector in _widened(vectors, rows)], dim=1)
        # the gradient on the left: the task vectors on the left of a column take MKL five times as long
        return torch.bmm(rows, _by_channel(_ready(vectors, gradient.device), len(gradient)).transpose(1, 2))[:, 0]


# -- a coefficient per task and singular direction --------------------------------------------------------------------
def merge_directions(
    rows: Tensor, base: Tensor, left: Tensor, right: Tensor, rest: Tensor | None, idle: bool
) -> Tensor:
    """base + sum_t left_t diag(rows[:K, t]) right_t + rows[K, t] rest_t, of the base's shape and data type.

    Args:
        rows: the coefficients (K, T), with one more row for ``rest``.
        base: the base's tensor, read as a matrix (M, N): its first axis, and all others.
        left: left singular vectors times singular values (M, T * K), one task after the other.
        right: right singular vectors (T * K, N).
        rest: what the K directions leave of the task vectors (T, M * N), or None.
        idle: whether all coefficients are 0, so that the result must be the base bit for bit.
    """
    with torch.autocast(device_type=base.device.type, enabled=False):
        merged: Tensor = _MergeDirections.apply(rows.to(_kind(left)), base, left, right, rest, idle)
        return merged


class _MergeDirections(torch.autograd.Function):
    """The directions of all tasks side by side: one matrix product. The gradient of c is the diagonal of U^T G V."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, base: Tensor, left: Tensor, right: Tensor, rest: Tensor | None, idle: bool
    ) -> Tensor:
        ctx.save_for_backward(left, right, rest)
        ctx.tasks = rows.shape[1]
        if idle:
            return base.clone()
        origin, left, right = base.reshape(-1).to(rows.dtype), _ready(left, base.device), _ready(right, base.device)
        if rest is not None:
            origin, rows = torch.addmv(origin, _ready(rest, base.device).t(), rows[-1]), rows[:-1]
        scaled = left * rearrange(rows, "direction task -> (task direction)")
        return torch.addmm(origin.view(len(left), -1), scaled, right).to(base.dtype).view(base.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        left, right, rest = ctx.saved_tensors
        left, right = _ready(left, gradient.device), _ready(right, gradient.device)
        with torch.autocast(device_type=left.device.type, enabled=False):
            projected = left.t() @ gradient.reshape(len(left), -1).to(left.dtype)
            products = torch.linalg.vecdot(projected, right)
        rows = rearrange(products, "(task direction) -> direction task", task=ctx.tasks)
        if rest is not None:
            rows = torch.cat([rows, _inner_products(rest, gradient)[None]])
        return rows, None, None, None, None, None
