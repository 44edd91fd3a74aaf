"""Open question 4: may something other than the fixed experts teach: averages of the merged model, or other models?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from symerge_dense.registry import STUDIES
from symerge_dense.studies.frame.intervals import exceeds
from symerge_dense.studies.frame.laboratory import EXPERTS, Laboratory, Numbers, Run, measure_method
from symerge_dense.studies.frame.study import Measured, Study, Verdict, difference

TEACHERS: Mapping[str, Any] = {
    "the merged model's average": "ema",
    "experts and average": "mix",
    "cross-task": {"type": "cross_task", "fov": 60},
}


@STUDIES.register_module()
class Teachers(Study):
    """Adapts with different teachers, all else equal.

    Args:
        teachers: {label: the option ``teacher``}.
        merged_by: methods whose merged models teach, each beside the other rows.
        margin: points of Delta_m by which a teacher must beat the experts.
    """

    name: ClassVar[str] = "teachers"
    title: ClassVar[str] = "What teaches the merged model"
    claim: ClassVar[str] = "A teacher that is composed while the model learns beats the fixed experts."
    question: ClassVar[str] = "Which teacher gives the best merged model?"
    rule: ClassVar[str] = (
        "95 % intervals of (Delta_m with a teacher - with the experts): confirmed if one lies above the margin (0), "
        "refuted if all lie below it, else inconclusive."
    )
    would_change: ClassVar[str] = "longer runs, in which an average of the merged model has time to pass its experts."
    keys: ClassVar[tuple[str, ...]] = ("merged_by",)

    def __init__(
        self,
        teachers: Mapping[str, Any] = TEACHERS,
        merged_by: Sequence[str] = ("full_distillation",),
        margin: float = 0.0,
    ) -> None:
        self.teachers, self.merged_by, self.margin = dict(teachers), list(merged_by), margin

    def grid(self, tasks: Sequence[str]) -> list[Run]:
        return [
            {"label": EXPERTS, "method": "symerge"},
            *(
                {"label": label, "method": "symerge", "options": {"teacher": teacher}}
                for label, teacher in self.teachers.items()
            ),
            *({"label": f"merged by {name}", "method": "symerge", "merged_by": name} for name in self.merged_by),
        ]

    def measure(self, laboratory: Laboratory, run: Run) -> Numbers:
        if "merged_by" not in run:
            return measure_method(laboratory, run)
        with laboratory.working() as models:
            teacher = laboratory.merged_file(models, {"method": run["merged_by"], "seed": run["seed"]})
        options = {"teacher": {"type": "model", "checkpoint": str(teacher)}}
        return measure_method(laboratory, {**run, "options": options})

    def verdict(self, measured: Sequence[Measured]) -> Verdict:
        others = [label for label in dict.fromkeys(one.label for one in measured) if label != EXPERTS]
        findings = {f"{label} - {EXPERTS}": difference(measured, label, EXPERTS) for label in others}
        outcomes = [exceeds(found, self.margin) for found in findings.values()]
        best = max(findings, key=lambda what: findings[what].mean)
        reason = f"The best is {best}: {findings[best]} points of Delta_m."
        if "confirmed" in outcomes:
            return Verdict("confirmed", reason, findings)
        return Verdict("refuted" if set(outcomes) == {"refuted"} else "inconclusive", reason, findings)
