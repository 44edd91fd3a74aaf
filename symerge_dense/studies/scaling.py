"""Claim 7: more tasks cost every merge quality, and SyMerge less than its baselines; and what they cost in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

from symerge_dense.adaptation.methods.symerge import SyMerge
from symerge_dense.registry import STUDIES
from symerge_dense.studies.frame.costs import COLUMNS
from symerge_dense.studies.frame.intervals import Interval, every, exceeds
from symerge_dense.studies.frame.laboratory import Run
from symerge_dense.studies.frame.plots import draw_curves, draw_panels
from symerge_dense.studies.frame.study import Measured, Study, Verdict, by_seed, column, over_seeds

OURS = SyMerge.name
BASELINES = ("task_arithmetic", "ties", "iso_c", "adamerging", "head_distillation")


@STUDIES.register_module()
class Scaling(Study):
    """Merges the first 3, 8, 20 and 50 tasks of the config; seconds and memory of each method are drawn, too.

    Memory is that of the whole process, in which all experts lie for every method.

    Args:
        counts: of tasks. Without the 50 a full study costs about a third.
        baselines: rows of a comparison.
        margin: points of Delta_m by which a baseline must lose more from the fewest to the most tasks.
    """

    name: ClassVar[str] = "scaling"
    title: ClassVar[str] = "From three tasks to fifty"
    claim: ClassVar[str] = "With more tasks SyMerge loses less than the baselines."
    question: ClassVar[str] = "How do Delta_m, seconds and memory change with the number of tasks, for each method?"
    paper: ClassVar[str | None] = "8 to 20 classification tasks: a slower loss than the baselines"
    rule: ClassVar[str] = (
        "the loss of Delta_m from the fewest to the most tasks, of each baseline less that of SyMerge, per seed: "
        "confirmed if all 95 % intervals lie above the margin (0), refuted if one lies below, else inconclusive."
    )
    would_change: ClassVar[str] = (
        "another order of the tasks: the later ones may be easier or nearer to the first. Of the fifty, twenty-five "
        "ask for one class of another task, and so add less that is new."
    )
    keys: ClassVar[tuple[str, ...]] = ("count",)

    def __init__(
        self, counts: Sequence[int] = (3, 8, 20, 50), baselines: Sequence[str] = BASELINES, margin: float = 0.0
    ) -> None:
        found = list(counts) if isinstance(counts, Sequence) and not isinstance(counts, str) else [counts]
        if not found or not all(isinstance(count, int) and count > 0 for count in found):
            raise ValueError(f"counts={counts!r}: give numbers of tasks, for example [3, 8, 20].")
        self.counts, self.baselines, self.margin = sorted(found), list(baselines), margin

    def grid(self, tasks: Sequence[str]) -> list[Run]:
        if self.counts[-1] > len(tasks):
            raise ValueError(f"counts={self.counts}: the config has {len(tasks)} tasks; give it more, or count fewer.")
        return [
            {"label": _label(method, count), "method": method, "tasks": list(tasks[:count]), "count": count}
            for count in self.counts
            for method in (OURS, *self.baselines)
        ]

    def verdict(self, measured: Sequence[Measured]) -> Verdict:
        findings = {
            f"loss of {method} - loss of {OURS}": over_seeds(measured, partial(self._further, method))
            for method in self.baselines
        }
        nearest = min(findings, key=lambda what: findings[what].low)
        outcome = every(exceeds(found, self.margin) for found in findings.values())
        span = f"From {self.counts[0]} to {self.counts[-1]} tasks"
        return Verdict(outcome, f"{span} the smallest is {nearest}: {findings[nearest]} points of Delta_m.", findings)

    def _further(self, method: str, runs: Sequence[Measured]) -> float:
        """How much more a method loses than SyMerge, in one seed."""
        ends = self.counts[0], self.counts[-1]
        (few, many), (own_few, own_many) = (
            [next(iter(by_seed(runs, _label(name, count)).values())) for count in ends] for name in (method, OURS)
        )
        return (few - many) - (own_few - own_many)

    def draw(self, path: Path, measured: Sequence[Measured], verdict: Verdict) -> None:
        axes = ("tasks", "Δm in percent against the experts")
        draw_curves(path, self._curves(column(measured)), f"{self.title}: {verdict.outcome}", axes, log=True)

    def draw_costs(self, path: Path, costs: Mapping[str, Mapping[str, Interval]]) -> None:
        panels = {
            heading: self._curves({label: row[name] for label, row in costs.items() if name in row})
            for name, heading in COLUMNS.items()
        }
        draw_panels(path, panels, "What the methods cost", "tasks", log=True)

    def _curves(self, rows: Mapping[str, Interval]) -> dict[str, dict[float, Interval]]:
        """{method: {count: interval}} of the rows that are there."""
        return {
            method: {float(n): rows[_label(method, n)] for n in self.counts if _label(method, n) in rows}
            for method in (OURS, *self.baselines)
        }


def _label(method: str, count: int) -> str:
    return f"{method}, {count} tasks"
