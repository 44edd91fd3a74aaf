"""The merges of one method at all values of its scale, few of which are computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

States = dict[str | None, dict[str, Tensor]]
"""Backbone states: one under None, or one per task."""

FEW = 3
ROUNDING = (1e-6, 1e-4)  # shares of the largest weight, and of the largest change over the values, that pass for none


class Family:
    """``family(value)`` is ``merge(value)``, up to rounding, at the price of three merges for any number of values.

    Most methods are affine in their scale: theta(s) = A + s * B. Whether this one is, the merges at the least, the
    middle and the greatest of ``values`` tell: where the middle one lies on the line through the ends in every tensor,
    all others are taken from that line. Otherwise, or with three values at most, each is merged.
    """

    def __init__(self, merge: Callable[[float], States], values: Sequence[float]) -> None:
        ordered = sorted(values)
        self._merge = merge
        self._low, self._high = ordered[0], ordered[-1]
        self._known: dict[float, States] = {}
        self.affine = False
        if len(ordered) > FEW:
            middle = ordered[len(ordered) // 2]
            self._known = {value: merge(value) for value in (self._low, middle, self._high)}
            self.affine = all(self._on_line(name, middle, tensor) for name, tensor in _tensors(self._known[middle]))

    def __call__(self, value: float) -> States:
        """The merged states at ``value``."""
        if value in self._known:
            return self._known[value]
        if not self.affine:
            return self._merge(value)
        low = self._known[self._low]
        return {task: {name: self._between((task, name), value) for name in state} for task, state in low.items()}

    def _between(self, where: tuple[str | None, str], value: float) -> Tensor:
        task, name = where
        low, high = self._known[self._low][task][name], self._known[self._high][task][name]
        if not low.is_floating_point():
            return low
        return torch.lerp(low, high, (value - self._low) / (self._high - self._low))

    def _on_line(self, where: tuple[str | None, str], value: float, tensor: Tensor) -> bool:
        task, name = where
        if not tensor.is_floating_point() or not tensor.numel():
            return True
        low, high = self._known[self._low][task][name], self._known[self._high][task][name]
        error = (self._between(where, value) - tensor).abs().max()
        allowed = ROUNDING[0] * torch.maximum(low.abs(), high.abs()).max() + ROUNDING[1] * (high - low).abs().max()
        return bool(error <= allowed)


def _tensors(states: Mapping[str | None, Mapping[str, Tensor]]) -> list[tuple[tuple[str | None, str], Tensor]]:
    return [((task, name), tensor) for task, state in states.items() for name, tensor in state.items()]
