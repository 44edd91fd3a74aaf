"""How much the result depends on learning rates, rounds, the initial coefficient and the clamp: reviewers' question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from symerge_dense.registry import STUDIES
from symerge_dense.studies.frame.intervals import every, stays_below
from symerge_dense.studies.frame.laboratory import Run
from symerge_dense.studies.frame.study import Measured, Study, Verdict, difference

DEFAULT = "as it is"
NEAR: Mapping[str, Sequence[Any]] = {
    "coefficient_lr": (0.067, 0.6),
    "layer_lr": (1e-3, 9e-3),
    "rounds": (75, 300),
    "initial": (0.2, 0.5),
}
FAR: Mapping[str, Sequence[Any]] = {
    "coefficient_lr": (0.02, 2.0),
    "layer_lr": (3e-4, 3e-2),
    "rounds": (30,),
    "initial": (0.0, 1.0),
    "clamp": ((0.0, 1.0),),
}


@STUDIES.register_module()
class Sensitivity(Study):
    """Changes one option at a time: by a factor of about 3 (near) and of about 10 (far).

    Args:
        near: {option: values} that the verdict is about.
        far: {option: values} that are shown beside them.
        loss: points of Delta_m that a near value may cost.
    """

    name: ClassVar[str] = "sensitivity"
    title: ClassVar[str] = "Sensitivity to the options"
    claim: ClassVar[str] = "No option has to be hit: a factor of 3 in any of them costs little."
    question: ClassVar[str] = "What does each option cost when it is off by a factor of 3, and of 10?"
    rule: ClassVar[str] = (
        "for every near value, the 95 % interval of (Delta_m as it is - Delta_m with the value): confirmed if all lie "
        "below `loss` (2 points), refuted if one lies above, else inconclusive."
    )
    would_change: ClassVar[str] = "backbones whose layers shake at rates that suit this one; longer runs."

    def __init__(
        self,
        near: Mapping[str, Sequence[Any]] = NEAR,
        far: Mapping[str, Sequence[Any]] = FAR,
        loss: float = 2.0,
    ) -> None:
        self.near, self.far, self.loss = dict(near), dict(far), loss

    def grid(self, tasks: Sequence[str]) -> list[Run]:
        runs: list[Run] = [{"label": DEFAULT, "method": "symerge"}]
        for changes in (self.near, self.far):
            for option, values in changes.items():
                runs += [
                    {"label": _label(option, value), "method": "symerge", "options": {option: value}}
                    for value in values
                ]
        return runs

    def verdict(self, measured: Sequence[Measured]) -> Verdict:
        labels = [_label(option, value) for option, values in self.near.items() for value in values]
        findings = {f"cost of {label}": difference(measured, DEFAULT, label) for label in labels}
        outcome = every(stays_below(one, self.loss) for one in findings.values())
        worst = max(findings, key=lambda what: findings[what].high)
        return Verdict(outcome, f"The largest is the {worst}: {findings[worst]} points of Delta_m.", findings)


def _label(option: str, value: Any) -> str:
    return f"{option}={value}"
