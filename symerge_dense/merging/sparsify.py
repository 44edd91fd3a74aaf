"""Sparsify a task vector before it is combined with others: global top share, random drop, magnitude band."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from symerge_dense.merging.operands import Operands
from symerge_dense.merging.order_statistics import OrderStatistics, Reading, most


class Sparsifier(ABC):
    """Keeps some elements of a task vector and sets the others to zero.

    Attributes:
        passes: how often it must see all task vectors (``observe``) before it can be applied.
        elementwise: it treats every element alone, so that tensors may come in flat parts.
    """

    passes: int = 0
    elementwise: bool = False

    def begin(self, tasks: tuple[str, ...]) -> None:  # noqa: B027 - nothing to do by default
        """Forget former runs.

        Args:
            tasks: the experts' names.
        """

    def reads(self, number: int) -> Reading:
        """What a pass must see of the task vectors: 'all', a 'sample', or 'nothing'.

        Args:
            number: number of the pass, from 0.
        """
        return "all"

    def observe(self, number: int, task: str, delta: Tensor) -> None:
        """See one tensor of a task vector.

        Args:
            number: number of the pass, from 0.
            task: the task.
            delta: the tensor; may be changed in place.
        """
        raise NotImplementedError(f"{type(self).__name__} announces {self.passes} passes but observes none")

    def end_pass(self, number: int) -> None:  # noqa: B027 - nothing to do by default
        """Finish a pass, which has seen every tensor.

        Args:
            number: number of the pass, from 0.
        """

    @abstractmethod
    def __call__(self, operands: Operands, task: str, delta: Tensor) -> Tensor:
        """Sparsify one tensor of a task vector.

        Args:
            operands: base and experts of the tensor.
            task: the task.
            delta: the tensor; may be changed in place.

        Returns:
            What is left of ``delta``.
        """


class TopShare(Sparsifier):
    """Keep the weights of largest magnitude over the WHOLE task vector.

    Keeps |tau| >= the k-th largest magnitude, with k = density * d rounded to the nearest integer and at least 1, so
    ties with the threshold stay. Magnitudes are compared as float32.

    Args:
        density: share of the d weights kept, in (0, 1].
    """

    passes = OrderStatistics.readings
    elementwise = True

    def __init__(self, density: float) -> None:
        self._density = density
        self._statistics: dict[str, OrderStatistics] = {}

    def begin(self, tasks: tuple[str, ...]) -> None:
        self._statistics = {task: OrderStatistics(self._ranks) for task in tasks}

    def reads(self, number: int) -> Reading:
        return most({statistics.reads(number) for statistics in self._statistics.values()})

    def observe(self, number: int, task: str, delta: Tensor) -> None:
        self._statistics[task].read(number, delta.abs_())

    def end_pass(self, number: int) -> None:
        for statistics in self._statistics.values():
            statistics.close(number)

    def mask(self, task: str, delta: Tensor) -> Tensor:
        """Which elements are kept, as bools; zeros are among them where the threshold is zero.

        Args:
            task: the task.
            delta: a tensor of its task vector.
        """
        (threshold,) = self._statistics[task].values
        return delta.abs().float() >= threshold

    def __call__(self, operands: Operands, task: str, delta: Tensor) -> Tensor:
        (threshold,) = self._statistics[task].values
        if delta.dtype != torch.float32:
            return delta.masked_fill_(~self.mask(task, delta), 0.0)
        # The same in one step, several times faster: sets all up to the float before the threshold to zero.
        before = np.nextafter(np.float32(threshold), np.float32(0))
        return torch.hardshrink(delta, float(before), out=delta) if threshold else delta

    def _ranks(self, count: int) -> list[int]:
        return [count - max(1, round(self._density * count))]


class RandomDrop(Sparsifier):
    """Drop weights at random and divide the others by 1 - ``drop``, which keeps the expectation.

    What is drawn depends on the run's seed, the task and the tensor's name, so passes see the same mask again.

    Args:
        drop: probability of dropping a weight, in [0, 1).
    """

    def __init__(self, drop: float) -> None:
        self._keep = 1 - drop

    def __call__(self, operands: Operands, task: str, delta: Tensor) -> Tensor:
        kept = torch.empty(delta.shape).bernoulli_(self._keep, generator=operands.generator(task))
        return torch.where(kept.to(delta.device) > 0, delta / self._keep, 0.0)


class MagnitudeBand(Sparsifier):
    """Keep, per tensor, the largest magnitudes without the very largest.

    Of n elements, ranked by magnitude, the first round(gamma * n) go as outliers and those after round(density * n) as
    noise. At least one rank stays, however small the tensor, and elements of equal magnitude are kept or dropped
    together.

    Args:
        density: share of largest magnitudes, in (0, 1].
        gamma: share of the very largest, which are dropped, in [0, density).
    """

    def __init__(self, density: float, gamma: float) -> None:
        self._density, self._gamma = density, gamma

    def __call__(self, operands: Operands, task: str, delta: Tensor) -> Tensor:
        count = delta.numel()
        if count < 2:
            return delta
        magnitude = delta.abs()
        last = max(1, round(self._density * count))
        outliers = min(round(self._gamma * count), last - 1)
        drop = magnitude < _ranked(magnitude, last)
        # The first rank of the band bounds it from above: where outliers tie with it, they stay.
        drop |= magnitude > _ranked(magnitude, outliers + 1)
        return delta.masked_fill_(drop, 0.0)


def _ranked(magnitude: Tensor, rank: int) -> Tensor:
    """The ``rank``-th largest element, from 1."""
    return magnitude.reshape(-1).kthvalue(magnitude.numel() - rank + 1).values
