"""Claim 2: one retrained layer of task B's head makes task A's encoder better for B."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from symerge_dense.models.batchnorm import recalibrate
from symerge_dense.models.multi_task import assemble
from symerge_dense.registry import ADAPTIVE_METHODS, STUDIES
from symerge_dense.studies.frame.laboratory import Laboratory, Numbers, Run
from symerge_dense.studies.frame.study import Measured, Study, Verdict, gains

BEFORE, AFTER, GAIN = "Δm, B's own head", "Δm, one layer retrained", "points gained"


@STUDIES.register_module()
class CrossTaskLayer(Study):
    """Puts B's head on A's encoder, for every ordered pair of tasks, and adapts its one layer to B's expert there.

    No label is read: the layer learns from the outputs of B's expert on unlabelled images. BatchNorm is re-estimated
    before and after.

    Args:
        margin: points of Delta_m by which the mean gain must exceed 0.
        majority: share of pairs that must gain.
    """

    name: ClassVar[str] = "cross_task_layer"
    title: ClassVar[str] = "One layer across tasks"
    claim: ClassVar[str] = "Retraining one layer of B's head on another task's encoder raises cross-task performance."
    question: ClassVar[str] = "How much of what B loses on A's encoder does one layer win back?"
    paper: ClassVar[str | None] = "cross-task performance rises for the pairs shown"
    rule: ClassVar[str] = (
        "confirmed if the 95 % intervals over seeds of the mean gain over ordered pairs and of the share of pairs that "
        "gain lie above the margin (0) and `majority` (0.5); refuted if one lies below; else inconclusive."
    )
    would_change: ClassVar[str] = "encoders that have thrown away what B needs: no layer behind them can win it back."
    keys: ClassVar[tuple[str, ...]] = ("encoder", "head")
    experiment: ClassVar[str] = "cross_task_layer"
    shown: ClassVar[tuple[str, ...]] = (GAIN, BEFORE, AFTER)
    axis: ClassVar[str] = "points of Δm gained by the layer: further right is better"

    def __init__(self, margin: float = 0.0, majority: float = 0.5) -> None:
        self.margin, self.majority = margin, majority

    def grid(self, tasks: Sequence[str]) -> list[Run]:
        pairs = [(encoder, head) for encoder in tasks for head in tasks if encoder != head]
        return [
            {"label": f"{encoder} > {head}", "tasks": [encoder, head], "encoder": encoder, "head": head}
            for encoder, head in pairs
        ]

    def measure(self, laboratory: Laboratory, run: Run) -> Numbers:
        with laboratory.working() as models:
            encoder, head = models.experts[run["encoder"]].backbone, {run["head"]: models.experts[run["head"]]}
            network = assemble(encoder, head).to(models.device).eval()
            recalibrate(network, models.images(models.options.recalibration_images))
            before = laboratory.numbers(models, {None: network})["delta_m"]
            context = models.context(run["seed"])
            context = dataclasses.replace(context, base=encoder, experts=head, files=None)
            adapted = ADAPTIVE_METHODS["layer_on_base"]().run(context)
            after = laboratory.numbers(models, {None: adapted.model})["delta_m"]
        return {BEFORE: before, AFTER: after, GAIN: after - before}

    def verdict(self, measured: Sequence[Measured]) -> Verdict:
        return gains(measured, GAIN, self.margin, self.majority, "pairs")
