"""Linear quantisation of task vectors in 1 to 8 bits per weight.

A code q stands for step * (q - zero), with step = (max - min) / (2^bits - 1) and the whole number zero = round(-min /
step), so that an unchanged weight comes back unchanged. Every value comes back within half a step.

Kim et al., Task Vector Quantization for Memory-Efficient Model Merging, ICCV 2025, https://arxiv.org/abs/2503.06921
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from symerge_dense.merging.packed import pack, unpack
from symerge_dense.merging.sources import TensorLayout, finite

MOST_BITS = 8
PER = ("tensor", "channel")
_FINEST = 2.0**-24  # step over the largest value, so that zero fits in an int32, and float32 holds it exactly


class Quantised(NamedTuple):
    """A tensor in ``bits`` bits per value.

    Args:
        codes: uint8 (bits, ceil(numel / 8)); row k holds bit k of all codes, packed by ``packed.pack``.
        step: float32 (groups,), distance between neighbouring codes; 0 where all values are 0.
        zero: int32 (groups,), the code of 0, which may lie outside of the codes.
    """

    codes: Tensor
    step: Tensor
    zero: Tensor


def quantised_layouts(shape: tuple[int, ...], bits: int, per: str) -> tuple[TensorLayout, ...]:
    """Shapes and data types of the fields of ``Quantised``.

    Args:
        shape: of the tensor.
        bits: per value, 1 to 8.
        per: of ``PER``: what has a range of its own, the tensor (the paper), or each index of its first axis.
    """
    groups = (shape[0] if per == "channel" else 1,)
    codes = TensorLayout((bits, -(-math.prod(shape) // 8)), torch.uint8)
    return codes, TensorLayout(groups, torch.float32), TensorLayout(groups, torch.int32)


def quantise(vector: Tensor, bits: int, per: str = "tensor", what: str = "the task vector") -> Quantised:
    """Quantise a tensor.

    Args:
        vector: float32 or float64, at least one value, of at least one dimension.
        bits: per value, 1 to 8.
        per: of ``PER``.
        what: name for the message.

    Raises:
        ValueError: a value is NaN or infinite, or the range exceeds that of float32.

    >>> quantise(torch.tensor([-1.0, 0.0, 0.4, 2.0]), bits=2).codes.shape
    torch.Size([2, 1])
    """
    if not finite(vector):
        raise ValueError(f"{what} holds NaN or infinite values; train or export the expert again.")
    top = (1 << bits) - 1
    rows = vector.reshape(vector.shape[0] if per == "channel" else 1, -1)
    low, high = (bound.double() for bound in rows.aminmax(dim=1))
    step = torch.maximum((high - low) / top, torch.maximum(low.abs(), high.abs()) * _FINEST).float()
    if not finite(step):
        raise ValueError(f"{what} has a range that float32 cannot hold; train or export the expert again.")
    divisor = torch.where(step > 0, step, 1.0)
    zero = (-low / divisor).round()
    codes = (rows / divisor[:, None].to(rows.dtype)).round_().add_(zero[:, None].to(rows.dtype)).clamp_(0, top)
    flat = rearrange(codes.to(torch.uint8), "group value -> (group value)")
    planes = torch.stack([pack((flat >> bit & 1).bool()) for bit in range(bits)])
    return Quantised(planes, step, zero.to(torch.int32))


def dequantise(
    found: Quantised, shape: tuple[int, ...], bits: int, per: str, dtype: torch.dtype, what: str = "the task vector"
) -> Tensor:
    """The values that ``quantise`` kept, the same bits on every machine.

    Args:
        found: the codes, untrusted.
        shape: of the tensor.
        bits: per value.
        per: of ``PER``.
        dtype: float32 or float64, of the values.
        what: name for the message.

    Raises:
        ValueError: codes, steps or zeros have another shape or data type, or a step is no number from 0.
    """
    for field, tensor, layout in zip(Quantised._fields, found, quantised_layouts(shape, bits, per), strict=True):
        if (tuple(tensor.shape), tensor.dtype) != layout:
            raise ValueError(
                f"{field} of {what}: {tuple(tensor.shape)} of {tensor.dtype}, but {bits} bits per value of a tensor "
                f"{shape} in one range per {per} are {layout.shape} of {layout.dtype}; copy the file again."
            )
    if not finite(found.step) or bool((found.step < 0).any()):
        raise ValueError(f"step of {what}: NaN, infinite or below 0, which is never written; copy the file again.")
    codes = torch.zeros(math.prod(shape), dtype=torch.uint8)
    for bit, plane in enumerate(found.codes):
        codes |= unpack(plane, codes.shape).to(torch.uint8) << bit
    rows = codes.view(len(found.step), -1).to(dtype)
    return rows.sub_(found.zero[:, None].to(dtype)).mul_(found.step[:, None].to(dtype)).view(shape)
