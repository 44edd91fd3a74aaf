"""Beyond images: the merge of text encoders, by the same mergers and the same layer-wise coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from symerge_dense.adaptation.methods.symerge import SyMerge
from symerge_dense.registry import STUDIES
from symerge_dense.studies.frame.intervals import every, exceeds
from symerge_dense.studies.frame.laboratory import EXPERTS, Numbers, Run
from symerge_dense.studies.frame.study import Measured, Study, Verdict, difference
from symerge_dense.studies.frame.workplace import Workplace
from symerge_dense.studies.language.laboratory import TextLaboratory
from symerge_dense.studies.language.sentences import TASKS

OURS = SyMerge.name
MERGES = ("average", "task_arithmetic", "ties", "iso_c")
PARTS = ("symerge_coefficients", "symerge_layer", "layer_on_base")


@STUDIES.register_module()
class TextEncoders(Study):
    """Merges small transformers that were fine-tuned for tasks on the sentences of a made-up language.

    Heads are one linear layer, so this is the layer that SyMerge adapts. Nothing is shared with images but the mergers
    and ``LayerwiseMerge``: no BatchNorm, no pixels, no views. Scales of methods are tuned by agreement with the experts
    on unlabelled sentences.

    Args:
        merges: training-free rows.
        parts: rows that learn a part of what SyMerge learns.
        margin: points of Delta_m by which SyMerge must be better than each.
    """

    name: ClassVar[str] = "text"
    title: ClassVar[str] = "Beyond images: text encoders"
    claim: ClassVar[str] = "On text encoders, too, SyMerge beats training-free merges and each of its parts."
    question: ClassVar[str] = "Does the method need images, or only a network and a task vector?"
    paper: ClassVar[str | None] = None
    rule: ClassVar[str] = (
        "confirmed if the 95 % intervals over seeds of the differences of Delta_m (of accuracies, against the experts) "
        "between SyMerge and every other row lie above the margin (0); refuted if one lies below; else inconclusive."
    )
    would_change: ClassVar[str] = (
        "real text and large encoders, whose task vectors interfere less; experts fine-tuned so gently that nothing is "
        "lost by averaging."
    )
    experiment: ClassVar[str] = "text"
    shown: ClassVar[tuple[str, ...]] = ("delta_m", *(f"{task}/accuracy" for task in TASKS))
    workplace: ClassVar[type[Workplace]] = TextLaboratory

    def __init__(self, merges: Sequence[str] = MERGES, parts: Sequence[str] = PARTS, margin: float = 0.0) -> None:
        self.merges, self.parts, self.margin = list(merges), list(parts), margin

    def grid(self, tasks: Sequence[str]) -> list[Run]:
        return [{"label": name, "method": name} for name in (EXPERTS, OURS, *self.parts, *self.merges)]

    def measure(self, laboratory: Any, run: Run) -> Numbers:
        return dict(laboratory.numbers(laboratory.make(run)))

    def verdict(self, measured: Sequence[Measured]) -> Verdict:
        rows = [*self.merges, *self.parts]
        findings = {f"{OURS} - {row}": difference(measured, OURS, row) for row in rows}
        nearest = min(findings, key=lambda what: findings[what].low)
        reason = f"The smallest difference is {nearest}: {findings[nearest]} points of Delta_m."
        return Verdict(every(exceeds(found, self.margin) for found in findings.values()), reason, findings)
