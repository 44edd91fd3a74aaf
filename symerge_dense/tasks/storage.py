"""How a prediction is kept in a PNG file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]


@dataclass(frozen=True)
class PngStorage:
    """Decided values as whole numbers: value = stored * scale + offset, cut to what the type can hold.

    Args:
        dtype: type of the stored numbers.
        scale: value of one step.
        offset: value of the stored number 0.
        invalid: stored number of a pixel without label, in every channel; None where every pixel has one.
        marker: value that marks a pixel without label in memory, a task's ``invalid_value``; NaN does so everywhere.
        class_map: whether values are class numbers, which ``decode`` returns as int64.

    >>> import torch
    >>> storage = PngStorage("uint16", scale=1e-3, marker=0.0)  # depth in millimetres
    >>> storage.encode(torch.tensor([[1.5, 0.0, 99.0]])).tolist()
    [[1500, 0, 65535]]
    >>> storage.decode(np.array([[1500, 0]], "uint16")).tolist()
    [[1.5, 0.0]]
    """

    dtype: Literal["uint8", "uint16"]
    scale: float = 1.0
    offset: float = 0.0
    invalid: int | None = 0
    marker: float = float("nan")
    class_map: bool = False

    @classmethod
    def share(cls, marker: float) -> PngStorage:
        """For values from 0 to 1, in 16 bits; 65535 is stored for 'no label'.

        Args:
            marker: value that marks a pixel without label in memory.
        """
        return cls("uint16", scale=1 / 65534, invalid=65535, marker=marker)

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest value that can be stored, that of ``invalid`` included."""
        return self.offset, self.offset + int(np.iinfo(self.dtype).max) * self.scale

    def encode(self, values: Tensor, valid: Tensor | None = None) -> Array:
        """Stored numbers of ONE image; a valid pixel never gets the number of 'no label', but the next one.

        Args:
            values: a row of ``decide``, or a sample's entry: (H,W) or (C,H,W).
            valid: bool (H,W), pixels that carry a label; None: those that are not ``marker`` in every channel. One
                that is not finite never does.

        Returns:
            (H,W) for class numbers and one channel, else (H,W,C), of ``dtype``.
        """
        layers = values.detach().double().cpu()
        layers = layers[None] if layers.ndim == 2 else layers
        known = layers.isfinite().all(0) & ((layers != self.marker).any(0) if valid is None else valid.cpu())
        highest = int(np.iinfo(self.dtype).max)
        steps = ((layers.nan_to_num() - self.offset) / self.scale).round().clamp(0, highest)
        if self.invalid is not None:
            taken = (steps == self.invalid).all(0) & known
            steps = steps.where(~taken, steps.new_tensor(self.invalid + (1 if self.invalid < highest else -1)))
            steps = steps.where(known, steps.new_tensor(self.invalid))
        stored: Array = steps.permute(1, 2, 0).numpy().astype(self.dtype)
        return stored[..., 0] if stored.shape[2] == 1 else stored

    def decode(self, stored: Array) -> Array:
        """Values of stored numbers, in the layout of a data set's targets.

        Args:
            stored: (H,W) or (H,W,C), as ``encode`` returns it.

        Returns:
            (H,W) or (H,W,C), int64 for class numbers, else float32; ``marker`` where there is no label.
        """
        if self.class_map:
            return stored.astype(np.int64)
        values = (stored.astype(np.float64) * self.scale + self.offset).astype(np.float32)
        if self.invalid is not None:
            unknown = stored == self.invalid
            values[unknown if stored.ndim == 2 else unknown.all(-1)] = self.marker
        return values
