"""PCB-Merging: theta = theta_0 + scale * sum_t a_t * s_t / sum_t s_t, where over the whole vector of each task
|a_t| = clip(|tau_t|, its 1% and 99% quantiles), n(.) scales to [0, 1] by least and largest,
beta_t = exp(T n(|a_t|)^2) * tanh(tau_t * sum_u sgn(tau_u) n(|a_u|)), s_t = n(max(beta_t, its (1 - r) quantile)).

Du et al., Parameter competition balancing for model merging, NeurIPS 2024, https://arxiv.org/abs/2410.02396
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from symerge_dense.merging.arguments import check_number, check_within
from symerge_dense.merging.base import ALL_KINDS, Merger
from symerge_dense.merging.operands import Operands
from symerge_dense.merging.order_statistics import OrderStatistics, Reading, most
from symerge_dense.merging.tensor_specs import TensorSpec
from symerge_dense.registry import MERGERS


@MERGERS.register_module()
class PCB(Merger):
    """Weights compete within a task and between tasks; the winners are averaged. Scope: every kind of weight.

    The authors publish three variants that differ in clipping and in the competition between tasks; this is the one of
    their script for vision models. Quantiles are order statistics: of d sorted numbers those at int(clip d), int((1 -
    clip) d - 1) and int((1 - r) d), counted from 0. They are exact over the whole vector, by a few statistics passes
    and without a copy of it. Numbers that are all equal are scaled to 0. Where no task has a score the base stays.

    Args:
        scale: the authors' lambda; any finite number; published: 1.2.
        ratio: r, the share of weights that keep a score, in (0, 1]; published: 0.05.
        clip: share of magnitudes clipped at either end, in [0, 0.5); published: 0.01.
    """

    name: ClassVar[str] = "pcb"
    treats = ALL_KINDS
    elementwise = True
    passes = 2 * OrderStatistics.readings

    def __init__(self, scale: float = 1.2, ratio: float = 0.05, clip: float = 0.01) -> None:
        self.scale = check_number(self.name, "scale", scale)
        self.ratio = check_within(self.name, "ratio", ratio, "(0, 1]", "the share of weights that keep a score")
        self.clip = check_within(self.name, "clip", clip, "[0, 0.5)", "the share of magnitudes clipped at either end")

    def begin(self, specs: list[TensorSpec], tasks: tuple[str, ...]) -> None:
        self._bounds = {task: OrderStatistics(self._clip_ranks) for task in tasks}
        self._scores = {task: OrderStatistics(self._score_ranks) for task in tasks}

    def reads(self, number: int) -> Reading:
        statistics, own_number = self._turn(number)
        return most({one.reads(own_number) for one in statistics.values()})

    def observe(self, number: int, operands: Operands) -> None:
        statistics, own_number = self._turn(number)
        deltas = dict(operands.deltas())
        for task, values in (deltas if statistics is self._bounds else self._balance(deltas)).items():
            statistics[task].read(own_number, values.abs() if statistics is self._bounds else values)

    def end_pass(self, number: int) -> None:
        statistics, own_number = self._turn(number)
        for one in statistics.values():
            one.close(own_number)

    def merge(self, operands: Operands) -> Tensor:
        deltas = dict(operands.deltas())
        weighted, weights = torch.zeros_like(operands.base), torch.zeros_like(operands.base)
        for task, score in self._balance(deltas).items():
            share = _unit(score, *self._scores[task].values)
            low, high = self._bounds[task].values
            weighted += deltas[task].sign() * deltas[task].abs().clamp(low, high) * share
            weights += share
        return torch.add(operands.base, weighted / weights.clamp(min=1e-12), alpha=self.scale)

    def _balance(self, deltas: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """beta_t / exp(T) of every task, float32: n(.) ignores the factor, and nothing overflows."""
        strengths = {task: _unit(delta.abs(), *self._bounds[task].values) for task, delta in deltas.items()}
        votes = sum((delta.sign() * strengths[task] for task, delta in deltas.items()), torch.zeros(()))
        return {
            task: (torch.exp(len(deltas) * (strengths[task].square() - 1)) * torch.tanh(delta * votes)).float()
            for task, delta in deltas.items()
        }

    def _turn(self, number: int) -> tuple[dict[str, OrderStatistics], int]:
        """The statistics that pass ``number`` belongs to, and the number of the pass among their own."""
        own = number - OrderStatistics.readings
        return (self._bounds, number) if own < 0 else (self._scores, own)

    def _clip_ranks(self, count: int) -> tuple[int, int]:
        low = int(count * self.clip)
        return low, max(low, int(count * (1 - self.clip) - 1))

    def _score_ranks(self, count: int) -> tuple[int, int]:
        return min(count - 1, int(count * (1 - self.ratio))), count - 1


def _unit(values: Tensor, low: float, high: float) -> Tensor:
    """Clipped to [low, high] and scaled to [0, 1]; 0 where the bounds coincide."""
    return (values.clamp(low, high) - low) / (high - low) if high > low else torch.zeros_like(values)
