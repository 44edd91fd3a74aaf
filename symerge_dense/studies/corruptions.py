"""Claim 8: under image corruption training-free merging breaks, and SyMerge adapts to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import ClassVar

from symerge_dense.registry import STUDIES
from symerge_dense.studies.frame.intervals import Interval, every, exceeds, t_interval
from symerge_dense.studies.frame.laboratory import EXPERTS, Run
from symerge_dense.studies.frame.plots import draw_curves
from symerge_dense.studies.frame.study import Measured, Study, Verdict, column, difference

CLEAN = "clean"
METHODS = (EXPERTS, "symerge", "task_arithmetic", "ties")


@STUDIES.register_module()
class Corruptions(Study):
    """Adapts on corrupted images and tests on corrupted images; experts were trained on clean ones.

    ``data.unlabelled`` and ``data.test`` of its config are of type ``Corrupted``. Delta_m is against the experts on the
    same corrupted images, which suffer as well.

    Args:
        corruptions: names of ``datasets.corrupted.CORRUPTIONS``.
        severities: from 1 to 5.
        methods: rows of a comparison; 'symerge' among them.
        training_free: methods that the claim says break.
        margin: points of Delta_m by which the gap must grow.
    """

    name: ClassVar[str] = "corruptions"
    title: ClassVar[str] = "Image corruptions"
    claim: ClassVar[str] = "Training-free merging breaks under image corruption, and SyMerge adapts to it."
    question: ClassVar[str] = "How far apart are SyMerge and training-free merging on corrupted and on clean images?"
    paper: ClassVar[str | None] = "SyMerge keeps the smallest loss under every corruption of its table"
    rule: ClassVar[str] = (
        "for every corruption and severity, the 95 % interval over seeds of (SyMerge - each training-free method) in "
        "Delta_m: confirmed if all lie above the margin (0), refuted if one lies below, else inconclusive."
    )
    would_change: ClassVar[str] = "corruptions so strong that the experts' labels are noise; statistics that absorb it."
    keys: ClassVar[tuple[str, ...]] = ("corruption", "severity")

    def __init__(
        self,
        corruptions: Sequence[str] = ("noise", "blur", "contrast", "brightness", "jpeg", "pixelate"),
        severities: Sequence[int] = (1, 3, 5),
        methods: Sequence[str] = METHODS,
        training_free: Sequence[str] = ("task_arithmetic", "ties"),
        margin: float = 0.0,
    ) -> None:
        self.images = [(CLEAN, "none", 1)]
        self.images += [(f"{name} {severity}", name, severity) for name in corruptions for severity in severities]
        self.methods, self.training_free, self.margin = list(methods), list(training_free), margin

    def grid(self, tasks: Sequence[str]) -> list[Run]:
        return [
            {
                "label": f"{method}, {title}",
                "method": method,
                "corruption": corruption,
                "severity": severity,
                "config": {
                    f"data.{split}.{key}": value
                    for split in ("unlabelled", "test")
                    for key, value in (("corruption", corruption), ("severity", severity))
                },
            }
            for title, corruption, severity in self.images
            for method in self.methods
        ]

    def verdict(self, measured: Sequence[Measured]) -> Verdict:
        findings = {
            f"symerge - {free}, {title}": difference(measured, f"symerge, {title}", f"{free}, {title}")
            for title, _, _ in self.images
            for free in self.training_free
        }
        judged = {what: one for what, one in findings.items() if not what.endswith(f", {CLEAN}")}
        weakest = min(judged, key=lambda what: judged[what].low)
        reason = f"The smallest gap is {weakest}: {judged[weakest]} points of Delta_m."
        return Verdict(every(exceeds(one, self.margin) for one in judged.values()), reason, findings)

    def draw(self, path: Path, measured: Sequence[Measured], verdict: Verdict) -> None:
        rows = column(measured)
        kinds = list(dict.fromkeys(corruption for _, corruption, _ in self.images if corruption != "none"))
        curves = {method: self._mean(rows, method, kinds) for method in ("symerge", *self.training_free)}
        axes = ("severity, 0 is clean", "Δm in percent against the experts, mean over corruptions")
        draw_curves(path, curves, f"{self.title}: {verdict.outcome}", axes)

    def _curve(self, rows: Mapping[str, Interval], method: str, kind: str) -> dict[float, Interval]:
        places = {0.0: f"{method}, {CLEAN}"}
        places |= {float(n): f"{method}, {title}" for title, corruption, n in self.images if corruption == kind}
        return {place: rows[label] for place, label in places.items() if label in rows}

    def _mean(self, rows: Mapping[str, Interval], method: str, kinds: Sequence[str]) -> dict[float, Interval]:
        """Mean over corruptions of the means over seeds, without a band."""
        curves = [self._curve(rows, method, kind) for kind in kinds]
        shared = sorted(set.intersection(*(set(curve) for curve in curves)))
        return {place: t_interval([fmean(curve[place].mean for curve in curves)]) for place in shared}
