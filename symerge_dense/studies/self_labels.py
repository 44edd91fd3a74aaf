"""Claim 4: labels from the experts keep the adaptation stable where minimising entropy collapses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import ClassVar

from symerge_dense.registry import STUDIES
from symerge_dense.studies.frame.intervals import Interval, every, exceeds, stays_below
from symerge_dense.studies.frame.laboratory import DIVERGED, Run
from symerge_dense.studies.frame.plots import draw_curves
from symerge_dense.studies.frame.study import Measured, Study, Verdict, over_seeds, table

LABELS, ENTROPY = "labels", "entropy"


@STUDIES.register_module()
class SelfLabels(Study):
    """Adapts by expert labels and by entropy, over learning rates, rounds and sets of tasks, and counts collapses.

    A run has collapsed where its loss was not finite, or where the mean Delta_m of its tasks with a distribution lies
    ``drop`` points below that of task arithmetic, at which it starts.

    Args:
        factors: of both learning rates.
        rounds: of the adaptation.
        task_sets: tasks of the merged models.
        certain: tasks that predict a distribution, whose entropy can be minimised; only these are judged.
        drop: points of Delta_m that make a collapse.
        most: share of collapsed runs that expert labels may have.
        margin: by which the share of entropy must exceed theirs.
    """

    name: ClassVar[str] = "self_labels"
    title: ClassVar[str] = "Expert labels against entropy"
    claim: ClassVar[str] = "Self-labelling is stable where entropy minimisation collapses."
    question: ClassVar[str] = "How often does each objective end worse than where it started?"
    paper: ClassVar[str | None] = (
        "entropy minimisation collapses in long runs and at high rates, self-labelling does not"
    )
    rule: ClassVar[str] = (
        "confirmed if the 95 % interval of (share of collapsed runs with entropy - share with labels) lies above the "
        "margin and that of the share with labels below its limit; refuted if one lies on the other side; else "
        "inconclusive."
    )
    would_change: ClassVar[str] = (
        "rates so low or runs so short that entropy has no time to collapse; distributions that are already certain."
    )
    keys: ClassVar[tuple[str, ...]] = ("objective", "factor", "rounds")
    shown: ClassVar[tuple[str, ...]] = ("delta_m", "delta_m/segmentation", "delta_m/edges", DIVERGED)

    def __init__(
        self,
        factors: Sequence[float] = (0.3, 1.0, 3.0),
        rounds: Sequence[int] = (50, 150, 300),
        task_sets: Sequence[Sequence[str]] = (("segmentation", "edges"), ("segmentation", "depth", "normals")),
        certain: Sequence[str] = ("segmentation", "edges"),
        drop: float = 10.0,
        most: float = 0.1,
        margin: float = 0.1,
    ) -> None:
        self.factors, self.rounds, self.task_sets = list(factors), list(rounds), [list(tasks) for tasks in task_sets]
        self.certain, self.drop, self.most, self.margin = list(certain), drop, most, margin

    def grid(self, tasks: Sequence[str]) -> list[Run]:
        runs: list[Run] = []
        for chosen in self.task_sets:
            start = {"label": _start(chosen), "method": "task_arithmetic", "options": {"scale": 0.3}, "tasks": chosen}
            runs.append(start)
            for objective in (LABELS, ENTROPY):
                for factor in self.factors:
                    for rounds in self.rounds:
                        rates = {"coefficient_lr": 0.2 * factor, "layer_lr": 3e-3 * factor}
                        runs.append(
                            {
                                "label": f"{objective}, {'+'.join(chosen)}, rates x{factor:g}, {rounds} rounds",
                                "method": "symerge",
                                "tasks": chosen,
                                "options": {"objective": objective, "rounds": rounds, **rates},
                                "objective": objective,
                                "factor": factor,
                                "rounds": rounds,
                            }
                        )
        return runs

    def collapsed(self, one: Measured, measured: Sequence[Measured]) -> bool:
        """Whether a run ended worse than where it started.

        Args:
            one: the run.
            measured: all runs, the starting points among them.
        """
        value = self._certain(one)
        label, seed = _start(one.run["tasks"]), one.run["seed"]
        start = next(self._certain(other) for other in measured if (other.label, other.run["seed"]) == (label, seed))
        return one.numbers.get(DIVERGED, 0.0) > 0 or not value > start - self.drop

    def _certain(self, one: Measured) -> float:
        """Mean Delta_m of the tasks whose entropy can be minimised."""
        values = [one.numbers[f"delta_m/{task}"] for task in self.certain if f"delta_m/{task}" in one.numbers]
        return fmean(values) if values else math.nan

    def _share(self, objective: str, measured: Sequence[Measured]) -> float:
        runs = [one for one in measured if one.run.get("objective") == objective]
        return fmean(self.collapsed(one, measured) for one in runs)

    def verdict(self, measured: Sequence[Measured]) -> Verdict:
        more = over_seeds(measured, lambda runs: self._share(ENTROPY, runs) - self._share(LABELS, runs))
        own = over_seeds(measured, lambda runs: self._share(LABELS, runs))
        share = over_seeds(measured, lambda runs: self._share(ENTROPY, runs))
        findings = {
            "collapsed share, entropy - labels": more,
            "collapsed share, labels": own,
            "collapsed share, entropy": share,
        }
        outcome = every([exceeds(more, self.margin), stays_below(own, self.most)])
        reason = f"With entropy {share.mean:.0%} of the runs collapse, with labels {own.mean:.0%}."
        return Verdict(outcome, reason, findings)

    def draw(self, path: Path, measured: Sequence[Measured], verdict: Verdict) -> None:
        rows = table(measured, ["delta_m/segmentation"])
        curves: dict[str, dict[float, Interval]] = {}
        for one in measured:
            if "objective" in one.run and one.run["tasks"] == self.task_sets[-1]:
                name = f"{one.run['objective']}, rates x{one.run['factor']:g}"
                found = rows[one.label].get("delta_m/segmentation")
                if found is not None:
                    curves.setdefault(name, {})[one.run["rounds"]] = found
        axes = ("rounds", "Δm of segmentation in percent against the expert")
        draw_curves(path, curves, f"{self.title}: {verdict.outcome}", axes)


def _start(tasks: Sequence[str]) -> str:
    return f"start, {'+'.join(tasks)}"
