"""What is left of the gain when experts are bad: fewer epochs, fewer frames, or one broken expert among good ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from symerge_dense.registry import STUDIES
from symerge_dense.studies.frame.intervals import every, exceeds
from symerge_dense.studies.frame.laboratory import Run
from symerge_dense.studies.frame.study import CHANGES, REACHED, Measured, Study, Verdict, difference

GOOD = "good experts"
WORSE: Mapping[str, Mapping[str, Any]] = {
    GOOD: {},
    "a third of the epochs": {"experts.recipe.epochs": 5},
    "a quarter of the frames": {"data.train.count": 75},
    "one broken expert": {"experts.recipes": {"depth": {"epochs": 1, "max_iters": 2}}},
}


@STUDIES.register_module()
class WorseExperts(Study):
    """Merges experts that were made worse on purpose, by SyMerge and by task arithmetic. Delta_m is against them.

    Args:
        worse: {label: values of the config}.
        margin: points of Delta_m by which SyMerge must beat task arithmetic.
    """

    name: ClassVar[str] = "worse_experts"
    title: ClassVar[str] = "Worse experts"
    claim: ClassVar[str] = "SyMerge keeps its advantage over task arithmetic with worse experts."
    question: ClassVar[str] = "How does the gain change with fewer epochs, fewer frames, or one broken expert?"
    rule: ClassVar[str] = (
        "confirmed if, for every kind of experts, the 95 % interval of (SyMerge - tuned task arithmetic) in Delta_m "
        "lies above the margin (0); refuted if one lies below; else inconclusive."
    )
    would_change: ClassVar[str] = "experts so bad that their own metric is chance: Delta_m against them says nothing."
    keys: ClassVar[tuple[str, ...]] = ("experts",)
    shown: ClassVar[tuple[str, ...]] = (*CHANGES, *REACHED)

    def __init__(self, worse: Mapping[str, Mapping[str, Any]] = WORSE, margin: float = 0.0) -> None:
        self.worse, self.margin = {label: dict(values) for label, values in worse.items()}, margin

    def grid(self, tasks: Sequence[str]) -> list[Run]:
        return [
            {"label": f"{method}, {label}", "method": method, "config": values, "experts": label}
            for label, values in self.worse.items()
            for method in ("experts", "symerge", "task_arithmetic")
        ]

    def verdict(self, measured: Sequence[Measured]) -> Verdict:
        findings = {
            f"symerge - task arithmetic, {label}": difference(
                measured, f"symerge, {label}", f"task_arithmetic, {label}"
            )
            for label in self.worse
        }
        outcome = every(exceeds(found, self.margin) for found in findings.values())
        weakest = min(findings, key=lambda what: findings[what].mean)
        return Verdict(outcome, f"The smallest gain: {weakest}, {findings[weakest]} points of Delta_m.", findings)
