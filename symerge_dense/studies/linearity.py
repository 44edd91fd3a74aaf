"""Claim 10, Proposition 1: features of the merged encoder are near the mean of the experts' features, and its bound."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import ClassVar

import torch

from symerge_dense.merging.methods.average import Average
from symerge_dense.models.batchnorm import recalibrate
from symerge_dense.models.multi_task import MultiTaskModel, assemble
from symerge_dense.pipeline.comparison.model_pool import ModelPool, State
from symerge_dense.pipeline.comparison.tuning import IMAGES
from symerge_dense.registry import STUDIES
from symerge_dense.studies.frame.intervals import Interval, every, exceeds
from symerge_dense.studies.frame.laboratory import Laboratory, Numbers, Run
from symerge_dense.studies.frame.plots import draw_curves
from symerge_dense.studies.frame.study import Measured, Study, Verdict, over_seeds, table


@STUDIES.register_module()
class Linearity(Study):
    """Compares the merged encoder's features with the mean of the experts' features, level by level.

    The merge is the plain average, BatchNorm re-estimated everywhere. Both sides of the proposition's bound are
    measured as losses against the expert's own output: of task B's head on the merged features, and the mean over
    experts A of the losses of B's head on A's features, which bounds it if features are linear and the loss convex.

    Args:
        least: cosine that counts as linear.
    """

    name: ClassVar[str] = "linearity"
    title: ClassVar[str] = "Cross-task linearity"
    claim: ClassVar[str] = "Merged features are the mean of the experts', and cross-task losses bound the merged loss."
    question: ClassVar[str] = "At which depth does linearity end, and does Proposition 1's bound hold for each task?"
    paper: ClassVar[str | None] = "assumed by Proposition 1; shown for the last layer of ViT-B/32"
    rule: ClassVar[str] = (
        "confirmed if the 95 % intervals over seeds of the cosine at the last level lie above `least` (0.9) and of "
        "(cross-task loss - merged loss) above 0 for every task; refuted if one lies below; else inconclusive."
    )
    would_change: ClassVar[str] = "experts that moved farther from their base; networks without normalisation."
    experiment: ClassVar[str] = "linearity"
    shown: ClassVar[tuple[str, ...]] = tuple(f"{what}, level {n}" for what in ("cosine", "error") for n in range(5))

    def __init__(self, least: float = 0.9) -> None:
        self.least = least

    def grid(self, tasks: Sequence[str]) -> list[Run]:
        return [{"label": "average"}]

    def measure(self, laboratory: Laboratory, run: Run) -> Numbers:
        with laboratory.working() as models, torch.no_grad():
            merged = self._network(models, models.merge(Average()))
            experts = {task: self._network(models, one.backbone.state_dict()) for task, one in models.experts.items()}
            return {**_distances(models, merged, experts), **_bound(models, merged, experts)}

    def _network(self, models: ModelPool, state: State) -> MultiTaskModel:
        """All heads on one encoder, its BatchNorm re-estimated, as for the merge; heads keep their own."""
        network = assemble(models.base, models.experts).to(models.device).eval()
        network.backbone.load_state_dict(state)
        recalibrate(network.backbone, [network.normalised(images) for images in models.images(IMAGES)])
        return network.eval()

    def verdict(self, measured: Sequence[Measured]) -> Verdict:
        names = list(measured[0].numbers)
        last = [name for name in names if name.startswith("cosine")][-1]
        tasks = [name.removeprefix("merged loss, ") for name in names if name.startswith("merged loss")]
        cosine = over_seeds(measured, lambda runs: runs[0].numbers[last])
        findings = {last: cosine}
        for task in tasks:
            findings[f"cross-task - merged loss, {task}"] = over_seeds(measured, partial(_slack, task=task))
        slack = [found for what, found in findings.items() if what != last]
        outcome = every([exceeds(cosine, self.least), *map(exceeds, slack)])
        return Verdict(outcome, f"The cosine at the last level is {cosine}.", findings)

    def draw(self, path: Path, measured: Sequence[Measured], verdict: Verdict) -> None:
        curves = {what: _by_level(measured, what) for what in ("cosine", "error")}
        axes = ("level of the feature pyramid, 0 is the finest", "cosine, and relative error")
        draw_curves(path, curves, f"{self.title}: {verdict.outcome}", axes)


def _by_level(measured: Sequence[Measured], what: str) -> dict[float, Interval]:
    row = table(measured, [f"{what}, level {level}" for level in range(5)])
    found = next(iter(row.values()))
    return {float(name[-1]): interval for name, interval in found.items()}


def _slack(runs: Sequence[Measured], task: str) -> float:
    return runs[0].numbers[f"cross-task loss, {task}"] - runs[0].numbers[f"merged loss, {task}"]


def _distances(models: ModelPool, merged: MultiTaskModel, experts: dict[str, MultiTaskModel]) -> Numbers:
    """Cosine and relative error of the merged features against the mean of the experts', per level of the pyramid."""
    found: dict[str, list[float]] = {}
    for images in models.images(IMAGES):
        own = merged.features(images)
        others = [expert.features(images) for expert in experts.values()]
        for level, feature in enumerate(own):
            mean = torch.stack([other[level] for other in others]).mean(0).flatten(1)
            cosine = torch.cosine_similarity(feature.flatten(1), mean)
            error = (feature.flatten(1) - mean).norm(dim=1) / mean.norm(dim=1)
            found.setdefault(f"cosine, level {level}", []).extend(cosine.tolist())
            found.setdefault(f"error, level {level}", []).extend(error.tolist())
    return {name: fmean(values) for name, values in sorted(found.items())}


def _bound(models: ModelPool, merged: MultiTaskModel, experts: dict[str, MultiTaskModel]) -> Numbers:
    """Losses against the experts' own outputs: of the merged features, and the mean of the experts' features."""
    losses: dict[str, list[float]] = {}
    for images in models.images(IMAGES):
        wanted = {task: expert(images, mode="tensor")[task] for task, expert in models.experts.items()}
        for what, networks in (("merged loss", [merged]), ("cross-task loss", list(experts.values()))):
            for network in networks:
                for task, output in network(images, mode="tensor").items():
                    rule = network.tasks[task]
                    loss = rule.pixel_loss(output, rule.self_label(wanted[task])).mean()
                    losses.setdefault(f"{what}, {task}", []).append(float(loss))
    return {name: fmean(values) for name, values in losses.items()}
