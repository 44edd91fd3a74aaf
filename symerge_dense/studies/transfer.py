"""Claim 6: SyMerge's adapted layers improve the encoders of other merging methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from symerge_dense.pipeline.comparison.head_transfer import HeadDonor
from symerge_dense.registry import STUDIES
from symerge_dense.studies.frame.laboratory import Laboratory, Numbers, Run
from symerge_dense.studies.frame.study import Measured, Study, Verdict, gains

METHODS = ("average", "task_arithmetic", "ties", "magmax", "iso_c", "tsv_m", "breadcrumbs", "dare")
GAIN = "gain of transferred layers"


@STUDIES.register_module()
class Transfer(Study):
    """Puts the heads that SyMerge adapted onto encoders that other methods merged.

    Args:
        methods: static methods; each has its scale tuned by agreement, with its experts' heads.
        margin: points of Delta_m by which the mean gain must exceed 0.
        majority: share of methods that must gain.
    """

    name: ClassVar[str] = "transfer"
    title: ClassVar[str] = "Adapted layers on other encoders"
    claim: ClassVar[str] = "The adapted layer, plugged into the encoders of other merging methods, improves them."
    question: ClassVar[str] = "What does each method gain from layers that were adapted for another encoder?"
    paper: ClassVar[str | None] = "every tried method gains"
    rule: ClassVar[str] = (
        "confirmed if the 95 % interval over seeds of the mean gain over methods lies above the margin (0) and that of "
        "the share of methods that gain lies above `majority` (0.5); refuted if one lies below; else inconclusive."
    )
    would_change: ClassVar[str] = "encoders farther from SyMerge's, such as those of very sparse task vectors."
    experiment: ClassVar[str] = "transfer"
    shown: ClassVar[tuple[str, ...]] = (GAIN, "delta_m", "delta_m, transferred layers")
    axis: ClassVar[str] = "points of Δm gained: further right is better"

    def __init__(self, methods: Sequence[str] = METHODS, margin: float = 0.0, majority: float = 0.5) -> None:
        self.methods, self.margin, self.majority = list(methods), margin, majority

    def grid(self, tasks: Sequence[str]) -> list[Run]:
        return [{"label": name, "method": name} for name in self.methods]

    def measure(self, laboratory: Laboratory, run: Run) -> Numbers:
        with laboratory.working() as models:
            donor = HeadDonor(laboratory.merged_file(models, {"method": "symerge", "seed": run["seed"]}))
            networks = laboratory.make(models, run["method"], run.get("options", {})).networks
            own = laboratory.numbers(models, networks)
            moved = laboratory.numbers(models, donor.plugged(models, networks))["delta_m"]
            return {**own, "delta_m, transferred layers": moved, GAIN: moved - own["delta_m"]}

    def verdict(self, measured: Sequence[Measured]) -> Verdict:
        return gains(measured, GAIN, self.margin, self.majority, "methods")


@STUDIES.register_module()
class TransferPerTensor(Transfer):
    """The same where SyMerge has one coefficient per tensor, as in the paper.

    Args:
        methods: as ``Transfer`` has them.
        margin: points of Delta_m by which the mean gain must exceed 0.
        majority: share of methods that must gain.
    """

    name: ClassVar[str] = "transfer_per_tensor"
    title: ClassVar[str] = "Adapted layers of the paper's setting on other encoders"
    claim: ClassVar[str] = (
        "With one coefficient per tensor, as in the paper, the adapted layer improves the encoders of other methods."
    )
