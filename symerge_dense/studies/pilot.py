"""Claim 1: how well task B's head works on task A's encoder tells how well A and B can be merged."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

from symerge_dense.evaluation.scores import Scores
from symerge_dense.merging.methods.task_arithmetic import TaskArithmetic
from symerge_dense.models.batchnorm import recalibrate
from symerge_dense.models.multi_task import MultiTaskModel, assemble
from symerge_dense.pipeline.comparison.model_pool import ModelPool
from symerge_dense.registry import STUDIES, TASKS
from symerge_dense.studies.frame.intervals import exceeds, pearson, spearman
from symerge_dense.studies.frame.laboratory import Laboratory, Numbers, Run
from symerge_dense.studies.frame.plots import draw_scatter
from symerge_dense.studies.frame.study import Measured, Study, Verdict, over_seeds

CROSS, MERGED = "cross", "merged"
BATCHNORM = {"": "BatchNorm re-estimated", ", own BatchNorm": "BatchNorm of the encoders"}
"""{suffix of a number: what it means}."""


@STUDIES.register_module()
class Pilot(Study):
    """Scores, for every ordered pair of tasks, B's head on A's encoder and on the merge of both encoders.

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
    keys: ClassVar[tuple[str, ...]] = ("encoder", "head", "scale")
    experiment: ClassVar[str] = "pair"
    shown: ClassVar[tuple[str, ...]] = tuple(f"{what}{suffix}" for suffix in BATCHNORM for what in (CROSS, MERGED))

    def __init__(self, scale: float = 0.5, least: float = 0.5) -> None:
        self.scale, self.least = scale, least

    def grid(self, tasks: Sequence[str]) -> list[Run]:
        pairs = [(encoder, head) for encoder in tasks for head in tasks if encoder != head]
        return [
            {
                "label": f"{encoder} > {head}",
                "tasks": [encoder, head],
                "encoder": encoder,
                "head": head,
                "scale": self.scale,
            }
            for encoder, head in pairs
        ]

    def measure(self, laboratory: Laboratory, run: Run) -> Numbers:
        found: Numbers = {}
        with laboratory.working() as models:
            reference = laboratory.reference(models)
            merged = models.merge(TaskArithmetic(run["scale"]))
            for what, state in (
                (CROSS, models.experts[run["encoder"]].backbone.state_dict()),
                (MERGED, merged),
            ):
                network = assemble(models.base, {run["head"]: models.experts[run["head"]]}).to(models.device).eval()
                network.backbone.load_state_dict(state)
                for suffix in reversed(BATCHNORM):  # re-estimation comes last: it changes the network
                    found[f"{what}{suffix}"] = self._left(laboratory, models, network, reference, suffix == "")
        return found

    def _left(
        self, laboratory: Laboratory, models: ModelPool, network: MultiTaskModel, reference: Scores, anew: bool
    ) -> float:
        if anew:
            recalibrate(network, models.images(models.options.recalibration_images))
        (task,) = network.tasks
        score = laboratory.scoring.score({None: network}, task)[task][TASKS[task].headline]
        expert = reference[task][TASKS[task].headline].value
        part, whole = (score.value, expert) if score.higher_is_better else (expert, score.value)
        return part / whole if whole else math.nan

    def verdict(self, measured: Sequence[Measured]) -> Verdict:
        measured = [one for one in measured if all(map(math.isfinite, one.numbers.values()))]
        findings = {}
        for suffix, title in BATCHNORM.items():
            for name, correlation in (("Pearson's r", pearson), ("Spearman's rho", spearman)):
                of_seed = partial(_correlation, suffix=suffix, correlation=correlation)
                findings[f"{name}, {title}"] = over_seeds(measured, of_seed)
        first = next(iter(findings.values()))
        pairs = len({one.label for one in measured})
        return Verdict(exceeds(first, self.least), f"r = {first} over {pairs} ordered pairs of tasks.", findings)

    def draw(self, path: Path, measured: Sequence[Measured], verdict: Verdict) -> None:
        clouds = {
            title: [(one.numbers[f"{CROSS}{suffix}"], one.numbers[f"{MERGED}{suffix}"]) for one in measured]
            for suffix, title in BATCHNORM.items()
        }
        axes = ("B's head on A's encoder, share of the expert's quality", "B's head on the merge of A and B")
        draw_scatter(path, clouds, f"{self.title}: {verdict.outcome}. {verdict.reason}", axes)


def _correlation(
    runs: Sequence[Measured], suffix: str, correlation: Callable[[Sequence[float], Sequence[float]], float]
) -> float:
    cross, merged = ([one.numbers[f"{what}{suffix}"] for one in runs] for what in (CROSS, MERGED))
    return correlation(cross, merged)
