"""Claim 5: which single layer of the heads is adapted matters little."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from symerge_dense.registry import STUDIES
from symerge_dense.studies.frame.intervals import Interval, stays_below
from symerge_dense.studies.frame.laboratory import Run
from symerge_dense.studies.frame.study import CHANGES, Measured, Study, Verdict, by_seed, column, over_seeds


@STUDIES.register_module()
class Layers(Study):
    """Adapts one layer of the heads after the other, and all of them.

    Args:
        layers: values of the option ``layer`` that are single layers.
        others: values that are shown beside them: several layers.
        spread: points of Delta_m between best and worst single layer that count as little.
    """

    name: ClassVar[str] = "layers"
    title: ClassVar[str] = "Which layer is adapted"
    claim: ClassVar[str] = "Which single layer is adapted matters little."
    question: ClassVar[str] = "How far apart are the best and the worst layer, per task and on average?"
    paper: ClassVar[str | None] = "any single layer of the head gives a similar result; the best per task type is open"
    rule: ClassVar[str] = (
        "the distance in Delta_m of best and worst single layer, per seed: confirmed if its 95 % interval lies below "
        "`spread` (2 points), refuted if it lies above, else inconclusive."
    )
    would_change: ClassVar[str] = (
        "a smaller learning rate for layers that no normalisation follows; heads with more layers."
    )
    shown: ClassVar[tuple[str, ...]] = CHANGES

    def __init__(
        self,
        layers: Sequence[str] = ("laterals.0", "laterals.1", "laterals.2", "laterals.3", "pre_final", "final"),
        others: Sequence[str] = ("head",),
        spread: float = 2.0,
    ) -> None:
        self.layers, self.others, self.spread = list(layers), list(others), spread

    def grid(self, tasks: Sequence[str]) -> list[Run]:
        chosen = [*self.layers, *self.others]
        none: Run = {"label": "none: coefficients only", "method": "symerge_coefficients"}
        return [*({"label": name, "method": "symerge", "options": {"layer": name}} for name in chosen), none]

    def verdict(self, measured: Sequence[Measured]) -> Verdict:
        def distance(name: str) -> Interval:
            def of_seed(runs: Sequence[Measured]) -> float:
                values = [value for label in self.layers for value in by_seed(runs, label, name).values()]
                return max(values) - min(values)

            return over_seeds(measured, of_seed)

        names = [name for name in self.shown if any(name in one.numbers for one in measured)]
        findings = {f"best - worst layer, {name}": distance(name) for name in names}
        first = next(iter(findings.values()))
        outcome = stays_below(first, self.spread)
        means = {label: found.mean for label, found in column(measured).items()}
        ranked = sorted((label for label in self.layers if label in means), key=lambda label: means[label])
        reason = f"Best layer {ranked[-1]}, worst {ranked[0]}: they are {first} points of Delta_m apart."
        return Verdict(outcome, reason, findings)
