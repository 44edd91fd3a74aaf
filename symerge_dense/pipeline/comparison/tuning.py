"""Tuning of the one argument that a method leaves open, in the same way for all methods."""

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

FEW = 3  # so many values cost no more than the test for a line
ROUNDING = (1e-6, 1e-4)  # deviation that counts as none: shares of the largest weight and of the largest change


# -- the merges of one method at all values of its scale, of which few are computed -----------------------------------
class Family:
    """The merges of one method at many values of its scale, often at the price of three.

    ``family(value)`` is ``merge(value)``, up to rounding. Most methods are affine in their scale: theta(s) = A + s * B.
    The merges at the smallest, the middle and the largest value test this: if the middle one lies on the line through
    the other two in every tensor, all further merges are taken from that line. Otherwise, or with at most three values,
    each is computed.

    Args:
        merge: gives the merged states at a value.
        values: those that will be asked for; others may be asked for too.
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
IMAGES = 64  # evenly spaced unlabelled ones: enough to tell scales apart, and cheap


@dataclass
class Agreement:
    """How well networks agree with the experts on a few unlabelled images.

    Args:
        models: has the experts and the images.
    """

    models: ModelPool

    @property
    def images(self) -> list[Tensor]:
        """The batches (N,3,H,W)."""
        return self.models.images(IMAGES)

    def __call__(self, networks: Networks) -> float:
        """Minus the mean over tasks of the distance from the expert, in units of the plain average's distance."""
        distances, unit = self.distances(networks), self.unit
        return -fmean(distance / max(unit[task], 1e-12) for task, distance in distances.items())

    @torch.no_grad()
    def distances(self, networks: Networks) -> dict[str, float]:
        """Distance of networks from the experts.

        Args:
            networks: one for all tasks, or one per task.

        Returns:
            {task: the task's loss against its expert's output, mean over images and pixels}.
        """
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
        """The distances of the plain average of the experts: losses of different tasks are divided by them."""
        average = self.models.place(self.models.merge(Average()), images=self.images)
        return self.distances({None: average})


# -- the choice -------------------------------------------------------------------------------------------------------
CRITERIA = {
    "agreement": "agreement with the experts' own outputs on unlabelled images; no label is read",
    "labels": "Delta_m on a labelled split",
}
SCALES: dict[str, tuple[float, ...]] = {"scale": (), "beta": (0.0,)}
"""{constructor argument that is a scale: values tried besides the config's grid and the default}."""
OWN: dict[str, tuple[float, ...]] = {"threshold": (0.2, 0.3, 0.4, 0.5, 0.6), "norm": (0.07, 0.2, 0.6, 1.8, 5.4)}
"""{other argument that is tuned: values tried}. The thresholds of masks are those of their paper; the norms of task
vectors are those of small to large networks."""
REACH = 3.0  # if the largest scale is the best, larger ones are tried, up to this many times the grid's end


def knob_of(kind: type) -> str | None:
    """The argument of a method that is tuned: the first of ``SCALES`` and ``OWN`` that it has, or None.

    Args:
        kind: class of the method.
    """
    return next((knob for knob in (*SCALES, *OWN) if knob in inspect.signature(kind).parameters), None)


def values_of(kind: type, scales: Sequence[float]) -> list[float]:
    """The values of a method's knob that are tried first.

    Args:
        kind: class of the method.
        scales: the grid that all methods share.

    Returns:
        Ascending values, the default among them; empty without a knob.
    """
    knob = knob_of(kind)
    if knob is None:
        return []
    default = inspect.signature(kind).parameters[knob].default
    tried = OWN[knob] if knob in OWN else (*SCALES[knob], *scales)
    return sorted({float(value) for value in (default, *tried)})


def beyond(values: Sequence[float], scales: Sequence[float]) -> list[float]:
    """Further scales above those already tried, at the last step of the grid, up to ``REACH`` times its end.

    Args:
        values: already tried.
        scales: the grid that all methods share.

    Returns:
        Ascending scales; empty where the grid has no step.
    """
    grid = sorted(set(scales))
    if len(grid) < 2:
        return []
    start, step = max(*values, grid[-1]), grid[-1] - grid[-2]
    count = int((REACH * grid[-1] - start) / step + 1e-6)
    return [round(start + step * number, 6) for number in range(1, count + 1)]


@dataclass
class Tuner:
    """Chooses the knobs of methods.

    Args:
        models: base, experts and unlabelled images.
        scoring: scores networks, for the criterion 'labels'.
        scales: the grid that all methods share.
        criterion: what is best, of ``CRITERIA``.

    Raises:
        ValueError: an unknown criterion.
    """

    models: ModelPool
    scoring: Scoring
    scales: Sequence[float]
    criterion: str = "agreement"

    def __post_init__(self) -> None:
        check_criterion(self.criterion)
        self.agreement = Agreement(self.models)

    def prepare(self) -> None:
        """Ask and measure the experts now, so that no method is charged for it."""
        _ = self.agreement.unit if self.criterion == "agreement" else self._reference

    def best(self, kind: type, merge: Callable[[float], States]) -> tuple[float, dict[float, float]]:
        """Find the best value of a method's knob.

        If the largest scale is the best, larger ones are tried one by one until one is no better (``beyond``).

        Args:
            kind: class of the method.
            merge: gives the merged backbone states at a value.

        Returns:
            The best value, and {value: result} of all that were tried. A higher result is better, undefined is worst.
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
    """The value with the highest result, the smallest of equal ones."""
    return max(sorted(found), key=lambda value: found[value])


def check_criterion(criterion: str) -> None:
    """Check the name of a tuning criterion.

    Args:
        criterion: of ``CRITERIA``.

    Raises:
        ValueError: it is unknown.
    """
    if criterion not in CRITERIA:
        raise ValueError(did_you_mean(criterion, CRITERIA, "tuning criterion"))
