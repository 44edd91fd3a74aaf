"""How few unlabelled images suffice: reviewers' question."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from symerge_dense.registry import STUDIES
from symerge_dense.studies.frame.intervals import exceeds
from symerge_dense.studies.frame.laboratory import Run
from symerge_dense.studies.frame.plots import draw_curves
from symerge_dense.studies.frame.study import Measured, Study, Verdict, by_seed, column, difference, over_seeds

START = "task arithmetic"


@STUDIES.register_module()
class UnlabelledImages(Study):
    """Adapts on 1 to 1000 images and tests on others. All rows re-estimate BatchNorm on the images that they have.

    Args:
        counts: of images.
        few: the count that the claim is about.
        enough: the count that it is measured by.
        share: of the gain over task arithmetic that few images must reach.
    """

    name: ClassVar[str] = "unlabelled_images"
    title: ClassVar[str] = "Number of unlabelled images"
    claim: ClassVar[str] = "A few unlabelled images reach most of the gain of many."
    question: ClassVar[str] = "How does Delta_m on new frames grow with the number of images of the pool?"
    rule: ClassVar[str] = (
        "confirmed if the 95 % interval of (Delta_m with `few` images - that of task arithmetic with `enough`) - "
        "`share` (0.75) x (Delta_m with `enough` - that of task arithmetic) lies above 0, refuted if it lies below, "
        "else inconclusive."
    )
    would_change: ClassVar[str] = "pools of one place only, whose images repeat each other; more rounds."
    keys: ClassVar[tuple[str, ...]] = ("images",)

    def __init__(
        self,
        counts: Sequence[int] = (1, 4, 16, 64, 200, 1000),
        few: int = 64,
        enough: int = 1000,
        share: float = 0.75,
    ) -> None:
        if few not in counts or enough not in counts:
            raise ValueError(f"few={few} and enough={enough} must be among counts={list(counts)}.")
        self.counts, self.few, self.enough, self.share = list(counts), few, enough, share

    def grid(self, tasks: Sequence[str]) -> list[Run]:
        pool = {"data.unlabelled.count": max(self.counts)}
        start = {"label": START, "method": "task_arithmetic", "options": {"scale": 0.3}, "config": pool}
        return [
            start,
            *(
                {
                    "label": _label(count),
                    "method": "symerge",
                    "images": count,
                    "config": {**pool, "data.unlabelled.limit": count},
                }
                for count in self.counts
            ),
        ]

    def verdict(self, measured: Sequence[Measured]) -> Verdict:
        few, enough = _label(self.few), _label(self.enough)

        def beyond(runs: Sequence[Measured]) -> float:
            (start,), (small,), (large,) = (by_seed(runs, label).values() for label in (START, few, enough))
            return (small - start) - self.share * (large - start)

        findings = {
            f"gain of {few} beyond {self.share:.0%} of that of {enough}": over_seeds(measured, beyond),
            f"gain of {few} over task arithmetic": difference(measured, few, START),
            f"gain of {enough} over task arithmetic": difference(measured, enough, START),
        }
        small, large = list(findings.values())[1:]
        reason = f"{few} gain {small} points over task arithmetic, {enough} {large}."
        return Verdict(exceeds(next(iter(findings.values()))), reason, findings)

    def draw(self, path: Path, measured: Sequence[Measured], verdict: Verdict) -> None:
        rows = column(measured)
        curves = {
            "SyMerge": {float(n): rows[_label(n)] for n in self.counts if _label(n) in rows},
            START: {float(n): rows[START] for n in self.counts},
        }
        axes = ("unlabelled images", "Δm in percent against the experts, on other frames")
        draw_curves(path, curves, f"{self.title}: {verdict.outcome}", axes, log=True)


def _label(count: int) -> str:
    return f"{count} images" if count != 1 else "1 image"
