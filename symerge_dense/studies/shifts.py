"""Claim 8 beyond corruptions, and reviewers' question: another camera, other light, foreign or long-tailed pools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from symerge_dense.registry import STUDIES
from symerge_dense.studies.frame.intervals import Interval, every, exceeds
from symerge_dense.studies.frame.laboratory import EXPERTS, Run
from symerge_dense.studies.frame.study import Measured, Study, Verdict, difference

OURS, CLEAN, ELSEWHERE = "symerge", "clean", "adapted on clean images"
SHIFTS: Mapping[str, Mapping[str, float]] = {
    "low camera": {"height": -0.8},
    "camera looks down": {"pitch": -20.0},
    "tilted camera": {"roll": 20.0},
    "dim light": {"ambient": 0.35, "lamp": 0.35},
    "hard light": {"ambient": 0.25, "lamp": 1.8},
}
"""{label: arguments of ``Shift``}."""
POOLS: Mapping[str, Mapping[str, Any]] = {
    "negative images": {"corruption": "solarize"},
    "jigsaw images": {"corruption": "jigsaw"},
    "noisy images": {"corruption": "noise"},
    "long tail": {"dataset.exponent": 1.0},
    "longer tail": {"dataset.exponent": 2.0},
}
"""{label: values of ``data.unlabelled``}."""


@STUDIES.register_module()
class Shifts(Study):
    """Adapts where camera or light has changed and tests there; and adapts on odd images and tests on clean ones.

    Experts were trained on clean images. ``data.unlabelled`` of the config is of type ``Corrupted``, at severity 5, of
    ``LongTailed`` of ``Rooms``, and ``data.test`` of ``Rooms``. All rows, training-free ones included, re-estimate
    BatchNorm and tune their scale on the images that they have.

    Args:
        shifts: {label: arguments of ``Shift``}.
        pools: {label: values of ``data.unlabelled``}.
        training_free: methods that SyMerge is compared with.
        margin: points of Delta_m by which SyMerge must beat them.
    """

    name: ClassVar[str] = "shifts"
    title: ClassVar[str] = "Shifts of camera and light, odd pools"
    claim: ClassVar[str] = (
        "SyMerge beats training-free merging under shifts of camera and light, and with foreign or long-tailed images."
    )
    question: ClassVar[str] = "How much of the gain is left under each shift, and what does each odd pool cost?"
    rule: ClassVar[str] = (
        "for every shift (adapted and tested there) and every pool (tested on clean images), the 95 % interval over "
        "seeds of (SyMerge - each training-free method, with the same images) in Delta_m: confirmed if all lie above "
        "the margin (0), refuted if one lies below, else inconclusive."
    )
    would_change: ClassVar[str] = (
        "shifts so large that the experts' labels are noise; foreign images on which BatchNorm is not re-estimated."
    )

    def __init__(
        self,
        shifts: Mapping[str, Mapping[str, float]] = SHIFTS,
        pools: Mapping[str, Mapping[str, Any]] = POOLS,
        training_free: Sequence[str] = ("task_arithmetic",),
        margin: float = 0.0,
    ) -> None:
        self.shifts = {label: dict(shift) for label, shift in shifts.items()}
        self.pools = {label: dict(values) for label, values in pools.items()}
        self.training_free, self.margin = list(training_free), margin

    def grid(self, tasks: Sequence[str]) -> list[Run]:
        methods = [OURS, *self.training_free]
        runs: list[Run] = [{"label": f"{method}, {CLEAN}", "method": method} for method in (EXPERTS, *methods)]
        for label, shift in self.shifts.items():
            test = {"data.test.shift": shift}
            both = {**test, "data.unlabelled.dataset.dataset.shift": shift}
            runs += [{"label": f"{name}, {label}", "method": name, "config": both} for name in (EXPERTS, *methods)]
            runs.append({"label": f"{OURS}, {label}, {ELSEWHERE}", "method": OURS, "config": test})
        for label, values in self.pools.items():
            pool = {f"data.unlabelled.{key}": value for key, value in values.items()}
            runs += [{"label": f"{method}, {label}", "method": method, "config": pool} for method in methods]
        return runs

    def verdict(self, measured: Sequence[Measured]) -> Verdict:
        def between(better: str, worse: str) -> Interval:
            return difference(measured, better, worse)

        places = [*self.shifts, *self.pools]
        judged = {
            f"symerge - {free}, {place}": between(f"{OURS}, {place}", f"{free}, {place}")
            for place in places
            for free in self.training_free
        }
        adapted = {
            f"adapted there - on clean images, {label}": between(f"{OURS}, {label}", f"{OURS}, {label}, {ELSEWHERE}")
            for label in self.shifts
        }
        cost = {f"cost of the pool, {label}": between(f"{OURS}, {CLEAN}", f"{OURS}, {label}") for label in self.pools}
        weakest = min(judged, key=lambda what: judged[what].low)
        outcome = every(exceeds(one, self.margin) for one in judged.values())
        reason = f"The smallest gap is {weakest}: {judged[weakest]} points of Delta_m."
        if cost:
            dearest = max(cost, key=lambda what: cost[what].mean)
            reason += f" The largest {dearest}: {cost[dearest]} points."
        return Verdict(outcome, reason, {**judged, **adapted, **cost})
