"""Claim 1: how well task B's head works on task A's encoder tells how well A and B can be merged."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations, permutations
from pathlib import Path
from statistics import fmean
from typing import ClassVar

from symerge_dense.evaluation.scores import Scores
from symerge_dense.merging.methods.task_arithmetic import TaskArithmetic
from symerge_dense.models.batchnorm import recalibrate
from symerge_dense.models.multi_task import assemble
from symerge_dense.registry import STUDIES, TASKS
from symerge_dense.studies.frame.intervals import exceeds, pearson, spearman
from symerge_dense.studies.frame.laboratory import Laboratory, Numbers, Run
from symerge_dense.studies.frame.plots import draw_scatter
from symerge_dense.studies.frame.study import Measured, Study, Verdict, over_seeds

MEAN = "mean"  # over the heads of a run
BATCHNORM = {"": "BatchNorm re-estimated", ", own BatchNorm": "BatchNorm of the encoders"}
"""{suffix of a number: what it means}."""


@STUDIES.register_module()
class Pilot(Study):
    """Scores, for every ordered pair of tasks, B's head on A's encoder and on the merge of both encoders.

    A run is one encoder with the heads of all other tasks, or one merge of two with both heads: what costs time is the
    encoder.

    A score is the share of the expert's quality that is left: metric / expert's where higher is better, else expert's /
    metric. It is bounded, so that no single broken pair decides a correlation.

    Args:
        scale: coefficient of both task vectors; 0.5 is the mean of the two experts.
        least: correlation that counts as prediction.
    """

    name: ClassVar[str] = "pilot"
    title: ClassVar[str] = "Cross-task performance predicts merge quality"
    claim: ClassVar[str] = "Cross-task performance (encoder of A, head of B) predicts how well A and B merge."
    question: ClassVar[str] = "Over all ordered pairs of tasks, how strongly do the two correlate?"
    paper: ClassVar[str | None] = "r = 0.863 (Pearson, 20 classification tasks, ViT-B/32)"
    rule: ClassVar[str] = (
        "Pearson's r over all ordered pairs, one per seed, BatchNorm re-estimated in both networks: confirmed if its "
        "95 % interval over seeds lies above `least` (0.5), refuted if it lies below, else inconclusive."
    )
    would_change: ClassVar[str] = (
        "tasks that are all equally near to each other, so that there is nothing to predict; another merging rule."
    )
    keys: ClassVar[tuple[str, ...]] = ("encoder", "scale")
    experiment: ClassVar[str] = "pair"
    version: ClassVar[int] = 2
    shown: ClassVar[tuple[str, ...]] = tuple(f"{MEAN}{suffix}" for suffix in BATCHNORM)

    def __init__(self, scale: float = 0.5, least: float = 0.5) -> None:
        self.scale, self.least = scale, least

    def grid(self, tasks: Sequence[str]) -> list[Run]:
        encoders: list[Run] = [{"label": f"encoder of {task}", "tasks": list(tasks), "encoder": task} for task in tasks]
        merges: list[Run] = [
            {"label": f"{first} + {second}", "tasks": [first, second], "scale": self.scale}
            for first, second in combinations(tasks, 2)
        ]
        return [*encoders, *merges]

    def measure(self, laboratory: Laboratory, run: Run) -> Numbers:
        with laboratory.working() as models:
            own = run.get("encoder", "")  # of no task where both are merged
            heads = {task: expert for task, expert in models.experts.items() if task != own}
            network = assemble(models.base, heads).to(models.device).eval()
            state = models.experts[own].backbone.state_dict() if own else models.merge(TaskArithmetic(run["scale"]))
            network.backbone.load_state_dict(state)
            reference = laboratory.reference(models)
            found: Numbers = {}
            for suffix in reversed(BATCHNORM):  # re-estimation comes last: it changes the network
                if not suffix:
                    recalibrate(network, models.images(models.options.recalibration_images))
                left = _left(laboratory.scoring.score({None: network}, run["label"]), reference)
                found |= {f"{task}{suffix}": share for task, share in left.items()}
                found[f"{MEAN}{suffix}"] = fmean(left.values())
        return found

    def verdict(self, measured: Sequence[Measured]) -> Verdict:
        findings = {}
        for suffix, title in BATCHNORM.items():
            for name, correlation in (("Pearson's r", pearson), ("Spearman's rho", spearman)):
                of_seed = partial(_correlation, suffix=suffix, correlation=correlation)
                findings[f"{name}, {title}"] = over_seeds(measured, of_seed)
        first = next(iter(findings.values()))
        pairs = 2 * len({one.label for one in measured if "encoder" not in one.run})
        return Verdict(exceeds(first, self.least), f"r = {first} over {pairs} ordered pairs of tasks.", findings)

    def draw(self, path: Path, measured: Sequence[Measured], verdict: Verdict) -> None:
        seeds = {one.run["seed"]: [m for m in measured if m.run["seed"] == one.run["seed"]] for one in measured}
        clouds = {
            title: [point for runs in seeds.values() for point in _points(runs, suffix)]
            for suffix, title in BATCHNORM.items()
        }
        axes = ("B's head on A's encoder, share of the expert's quality", "B's head on the merge of A and B")
        draw_scatter(path, clouds, f"{self.title}: {verdict.outcome}. {verdict.reason}", axes)


def _left(scores: Scores, reference: Scores) -> Numbers:
    """Share of the expert's quality that each task has left."""
    found: Numbers = {}
    for task, metrics in scores.items():
        score, expert = metrics[TASKS[task].headline], reference[task][TASKS[task].headline].value
        part, whole = (score.value, expert) if score.higher_is_better else (expert, score.value)
        found[task] = part / whole if whole else math.nan
    return found


def _points(runs: Sequence[Measured], suffix: str) -> list[tuple[float, float]]:
    """(B's head on A's encoder, B's head on the merge) of every ordered pair of one seed, where both are defined."""
    cross = {one.run["encoder"]: one.numbers for one in runs if "encoder" in one.run}
    points = [
        (cross[encoder][f"{head}{suffix}"], one.numbers[f"{head}{suffix}"])
        for one in runs
        if "encoder" not in one.run
        for encoder, head in permutations(one.run["tasks"])
    ]
    return [point for point in points if all(map(math.isfinite, point))]


def _correlation(
    runs: Sequence[Measured], suffix: str, correlation: Callable[[Sequence[float], Sequence[float]], float]
) -> float:
    cross, merged = zip(*_points(runs, suffix), strict=True)
    return correlation(cross, merged)
