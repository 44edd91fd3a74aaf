"""The one number that a method leaves open, chosen in the same way for all methods."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from symerge_dense.evaluation.scores import Scores
from symerge_dense.pipeline.baselines import compare
from symerge_dense.pipeline.comparison.agreement import Agreement
from symerge_dense.pipeline.comparison.family import Family, States
from symerge_dense.pipeline.comparison.ground import Ground
from symerge_dense.pipeline.comparison.measures import Measures, Networks
from symerge_dense.progress import track
from symerge_dense.registry import nearest

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

    ground: Ground
    measures: Measures
    scales: Sequence[float]
    criterion: str = "agreement"

    def __post_init__(self) -> None:
        check_criterion(self.criterion)
        self.agreement = Agreement(self.ground)

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
        networks: Networks = {task: self.ground.place(state, task, self.agreement.images)
                              for task, state in states.items()}
        judged = self.agreement(networks) if self.criterion == "agreement" else self._delta(networks)
        return judged if math.isfinite(judged) else -math.inf

    def _delta(self, networks: Networks) -> float:
        return compare(self.measures.score(networks, "tuning", self.measures.labelled), self._reference)["mean"]

    @cached_property
    def _reference(self) -> Scores:
        return self.measures.score(self.ground.own_networks, "experts", self.measures.labelled)


def _best(found: Mapping[float, float]) -> float:
    """The value with the highest entry, the least of equal ones."""
    return max(sorted(found), key=lambda value: found[value])


def check_criterion(criterion: str) -> None:
    """Raise ValueError unless ``criterion`` is known."""
    if criterion not in CRITERIA:
        raise ValueError(nearest(criterion, CRITERIA, "tuning criterion"))
