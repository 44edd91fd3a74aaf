"""Claim 3: learning coefficients and layer jointly beats either alone, and is more than fitting the target images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from symerge_dense.registry import STUDIES
from symerge_dense.studies.frame.intervals import every, exceeds
from symerge_dense.studies.frame.laboratory import EXPERTS, Run
from symerge_dense.studies.frame.study import CHANGES, Measured, Study, Verdict, difference

JOINT, COEFFICIENTS, LAYER, CONTROL, NOTHING = (
    "joint",
    "coefficients only",
    "layer only",
    "layer on the base, no task vectors",
    "nothing: task arithmetic",
)


@STUDIES.register_module()
class Parts(Study):
    """Compares SyMerge with its parts and with the control without task vectors.

    Args:
        initial: coefficient of the rows that learn none, and at which the others start.
        margin: points of Delta_m by which a difference must exceed 0.
        options: of the adaptation, for all rows.
    """

    name: ClassVar[str] = "parts"
    title: ClassVar[str] = "Joint adaptation against its parts"
    claim: ClassVar[str] = "Coefficients and layer learned jointly beat each alone, and each beats learning nothing."
    question: ClassVar[str] = "Is it synergy of coefficients and layer, or just fitting one layer to the target images?"
    paper: ClassVar[str | None] = "joint > coefficients only > task arithmetic, joint > layer only, in every ablation"
    rule: ClassVar[str] = (
        "confirmed if the 95 % intervals over seeds of all five differences of Delta_m (joint - coefficients, "
        "joint - layer, coefficients - nothing, layer - nothing, joint - the control without task vectors) lie above "
        "the margin; refuted if one lies below it; else inconclusive."
    )
    would_change: ClassVar[str] = (
        "layers or learning rates with which one part alone reaches the joint result; experts whose task vectors do "
        "not interfere, so that nothing is left to gain."
    )
    shown: ClassVar[tuple[str, ...]] = CHANGES

    def __init__(self, initial: float = 0.3, margin: float = 0.0, options: dict[str, Any] | None = None) -> None:
        self.initial, self.margin, self.options = initial, margin, dict(options or {})

    def grid(self, tasks: Sequence[str]) -> list[Run]:
        learned = {"initial": self.initial, **self.options}
        return [
            {"label": EXPERTS, "method": EXPERTS},
            {"label": JOINT, "method": "symerge", "options": learned},
            {"label": COEFFICIENTS, "method": "symerge_coefficients", "options": learned},
            {"label": LAYER, "method": "symerge_layer", "options": learned},
            {"label": CONTROL, "method": "layer_on_base", "options": self.options},
            {"label": NOTHING, "method": "task_arithmetic", "options": {"scale": self.initial}},
            {"label": "task arithmetic, tuned", "method": "task_arithmetic"},
        ]

    def verdict(self, measured: Sequence[Measured]) -> Verdict:
        pairs = [(JOINT, COEFFICIENTS), (JOINT, LAYER), (COEFFICIENTS, NOTHING), (LAYER, NOTHING), (JOINT, CONTROL)]
        findings = {f"{better} - {worse}": difference(measured, better, worse) for better, worse in pairs}
        outcomes = {what: exceeds(found, self.margin) for what, found in findings.items()}
        weakest = min(findings, key=lambda what: findings[what].low)
        reason = f"The smallest difference is {weakest}: {findings[weakest]} points of Delta_m."
        return Verdict(every(outcomes.values()), reason, findings)
