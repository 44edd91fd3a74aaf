"""Masks at one bit per weight, in the bit order of ``numpy.packbits``."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_SHIFTS = (7, 6, 5, 4, 3, 2, 1, 0)


def pack(mask: Tensor) -> Tensor:
    """A bool mask of any shape as uint8 (ceil(numel / 8),), the first weight in the highest bit."""
    flat = mask.reshape(-1).to(torch.uint8)
    octets = torch.nn.functional.pad(flat, (0, -flat.numel() % 8)).view(-1, 8)
    packed = torch.zeros(len(octets), dtype=torch.uint8, device=mask.device)
    for column, shift in zip(octets.unbind(1), _SHIFTS, strict=True):
        packed |= column << shift
    return packed


def unpack(packed: Tensor, shape: Sequence[int]) -> Tensor:
    """The bool mask of ``shape`` that ``pack`` packed. Raises ValueError if the length does not fit the shape."""
    count = math.prod(shape)
    if packed.dtype != torch.uint8 or packed.shape != (-(-count // 8),):
        raise ValueError(f"a packed mask of shape {tuple(shape)} is uint8 of {-(-count // 8)} bytes, this is "
                         f"{packed.dtype} of shape {tuple(packed.shape)}; pass the mask of this very tensor.")
    shifts = torch.tensor(_SHIFTS, dtype=torch.uint8, device=packed.device)
    return ((packed[:, None] >> shifts) & 1).bool().view(-1)[:count].view(tuple(shape))
