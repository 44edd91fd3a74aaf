"""The one number that a method leaves open, chosen in the same way for all methods."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

import torch
from torch import Tensor

from symerge_dense.evaluation.delta_m import delta_by_task
from symerge_dense.evaluation.scores import Scores
from symerge_dense.merging.methods.average import Average
from symerge_dense.pipeline.comparison.model_pool import ModelPool
from symerge_dense.pipeline.comparison.scoring import Networks, Scoring
from symerge_dense.progress import track
from symerge_dense.registry import did_you_mean

States = dict[str | None, dict[str, Tensor]]
"""Backbone states: one under None, or one per task."""

FEW = 3
ROUNDING = (1e-6, 1e-4)  # shares of the largest weight, and of the largest change over the values, that pass for none


# -- the merges of one method at all values of its scale, few of which are computed -----------------------------------
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


# -- how far networks are from the experts on unlabelled images -------------------------------------------------------
IMAGES = 64  # of the unlabelled ones, evenly spaced: that many tell scales apart, and cost little


@dataclass
class Agreement:
    """The experts' outputs on a few unlabelled images, against which networks are held."""

    models: ModelPool

    @property
    def images(self) -> list[Tensor]:
        """The batches (N,3,H,W)."""
        return self.models.images(IMAGES)

    def __call__(self, networks: Networks) -> float:
        """Minus the mean over tasks of the distance from the expert, the distance of the plain average as its unit."""
        distances, unit = self.distances(networks), self.unit
        return -fmean(distance / max(unit[task], 1e-12) for task, distance in distances.items())

    @torch.no_grad()
    def distances(self, networks: Networks) -> dict[str, float]:
        """{task: the task's loss against its expert's output, mean over images and pixels}."""
        losses: dict[str, list[float]] = {}
        for network in networks.values():
            for images, wanted in zip(self.images, self._wanted, strict=True):
                for name, output in network(images, mode="tensor").items():
                    task = network.tasks[name]
                    loss = task.pixel_loss(output, task.self_label(wanted[name])).flatten(1).mean(1)
                    losses.setdefault(name, []).extend(loss.tolist())
        return {task: fmean(values) for task, values in losses.items()}

    @cached_property
    def _wanted(self) -> list[dict[str, Tensor]]:
        with torch.no_grad():
            return [
                {task: expert(images, mode="tensor")[task] for task, expert in self.models.experts.items()}
                for images in self.images
            ]

    @cached_property
    def unit(self) -> dict[str, float]:
        """Those of the plain average of the experts: what losses of different tasks are divided by."""
        average = self.models.place(self.models.merge(Average()), images=self.images)
        return self.distances({None: average})


# -- the choice -------------------------------------------------------------------------------------------------------
CRITERIA = {
    "agreement": "agreement with the experts' own outputs on unlabelled images; no label is read",
    "labels": "Delta_m on a labelled split",
}
SCALES: dict[str, tuple[float, ...]] = {"scale": (), "beta": (0.0,)}
"""Constructor arguments that are scales; values beside the config's grid and the default."""
OWN: dict[str, tuple[float, ...]] = {"threshold": (0.2, 0.3, 0.4, 0.5, 0.6), "norm": (0.07, 0.2, 0.6, 1.8, 5.4)}
"""Other arguments that are tuned, and what is tried: thresholds of masks those of their paper, norms of task vectors
what weights of networks from small to large have."""
REACH = 3.0  # where the greatest scale is the best, greater ones are tried, up to this many times the grid's end


def knob_of(kind: type) -> str | None:
    """The argument of a method that is tuned, the first of ``SCALES`` and ``OWN`` that it has, or None."""
    return next((knob for knob in (*SCALES, *OWN) if knob in inspect.signature(kind).parameters), None)


def values_of(kind: type, scales: Sequence[float]) -> list[float]:
    """The values of a method's knob that are tried first, ascending, its default among them; none without a knob."""
    knob = knob_of(kind)
    if knob is None:
        return []
    default = inspect.signature(kind).parameters[knob].default
    tried = OWN[knob] if knob in OWN else (*SCALES[knob], *scales)
    return sorted({float(value) for value in (default, *tried)})


def beyond(values: Sequence[float], scales: Sequence[float]) -> list[float]:
    """Further scales above all ``values``, in the last step of the grid ``scales``; none where that has no step."""
    grid = sorted(set(scales))
    if len(grid) < 2:
        return []
    start, step = max(*values, grid[-1]), grid[-1] - grid[-2]
    count = int((REACH * grid[-1] - start) / step + 1e-6)
    return [round(start + step * number, 6) for number in range(1, count + 1)]


@dataclass
class Tuner:
    """Chooses knobs by ``criterion`` (of ``CRITERIA``). ``scales``: the grid that all methods share.

    Raises ValueError for an unknown criterion.
    """

    models: ModelPool
    scoring: Scoring
    scales: Sequence[float]
    criterion: str = "agreement"

    def __post_init__(self) -> None:
        check_criterion(self.criterion)
        self.agreement = Agreement(self.models)

    def prepare(self) -> None:
        """Ask and measure the experts, before the first method would pay for it."""
        _ = self.agreement.unit if self.criterion == "agreement" else self._reference

    def best(self, kind: type, merge: Callable[[float], States]) -> tuple[float, dict[float, float]]:
        """The best value of the knob that ``kind`` has, and what the criterion says of each that was tried.

        ``merge`` gives the merged backbone states of a value. Where the greatest scale is the best, greater ones are
        tried one by one until one is no better (``beyond``). Higher is better; undefined is worst.
        """
        values = values_of(kind, self.scales)
        family = Family(merge, values)
        found = {value: self._judge(family(value)) for value in track(values, f"tuning {kind.__name__}")}
        for value in () if knob_of(kind) in OWN else beyond(values, self.scales):
            if _best(found) < max(found):
                break
            found[value] = self._judge(family(value))
        return _best(found), found

    def _judge(self, states: States) -> float:
        networks: Networks = {
            task: self.models.place(state, task, self.agreement.images) for task, state in states.items()
        }
        judged = self.agreement(networks) if self.criterion == "agreement" else self._delta(networks)
        return judged if math.isfinite(judged) else -math.inf

    def _delta(self, networks: Networks) -> float:
        return delta_by_task(self.scoring.score(networks, "tuning", self.scoring.labelled), self._reference)["mean"]

    @cached_property
    def _reference(self) -> Scores:
        return self.scoring.score(self.models.own_networks, "experts", self.scoring.labelled)


def _best(found: Mapping[float, float]) -> float:
    """The value with the highest entry, the least of equal ones."""
    return max(sorted(found), key=lambda value: found[value])


def check_criterion(criterion: str) -> None:
    """Raise ValueError unless ``criterion`` is known."""
    if criterion not in CRITERIA:
        raise ValueError(did_you_mean(criterion, CRITERIA, "tuning criterion"))
