"""Training-free merges on the same footing as SyMerge: same heads, same images for BatchNorm re-estimation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from torch import Tensor

from symerge_dense.engine.batchnorm import recalibrate
from symerge_dense.evaluation.delta import delta_m
from symerge_dense.evaluation.scores import Scores
from symerge_dense.experts.model import MultiTaskModel
from symerge_dense.merging.base import merge_state
from symerge_dense.merging.kinds import tensor_specs
from symerge_dense.progress import say
from symerge_dense.registry import MERGERS


def compare(scores: Scores, reference: Scores) -> dict[str, float]:
    """Delta_m per task and as 'mean'; NaN, with a remark, for a task whose expert scores 0: a run goes on over it."""
    changes = {}
    for task, measured in scores.items():
        try:
            changes[task] = delta_m({task: measured}, reference)[task]
        except ValueError as error:
            say(f"{task}: {error}", once=True)
            changes[task] = math.nan
    return {"mean": fmean(changes.values()), **changes}


@dataclass
class Contest:
    """Puts merged backbones under the experts' heads and scores them.

    Args:
        model: the base backbone with the experts' heads; its backbone is overwritten by every entry.
        experts: the experts. images: gives the unlabelled batches for BatchNorm. score: scores a model under a title.
        batchnorm: policy for running statistics, see SyMergeOptions.
    """

    model: MultiTaskModel
    experts: Mapping[str, MultiTaskModel]
    images: Callable[[], Iterable[Tensor]]
    score: Callable[[MultiTaskModel, str], Scores]
    batchnorm: str = "recalibrate"

    def __post_init__(self) -> None:
        self.base = {name: value.clone() for name, value in self.model.backbone.state_dict().items()}

    def merge(self, method: str, **options: Any) -> MultiTaskModel:
        """The model merged by a registered static method, BatchNorm re-estimated."""
        experts = {task: expert.backbone.state_dict() for task, expert in self.experts.items()}
        statistics = "mean" if self.batchnorm == "recalibrate" else self.batchnorm
        specs = tensor_specs(self.model.backbone)
        merged = merge_state(MERGERS[method](**options), self.base, experts, specs, statistics)
        self.model.backbone.load_state_dict(merged)
        if self.batchnorm == "recalibrate":
            recalibrate(self.model, self.images())
        return self.model

    def enter(self, method: str, title: str, **options: Any) -> Scores:
        """Scores of a registered static method."""
        return self.score(self.merge(method, **options), title)

    def best_task_arithmetic(self, scales: Iterable[float],
                             reference: Scores) -> tuple[float, Scores, dict[str, float]]:
        """The scale with the best mean Delta_m on the split that is scored, its scores, and Delta_m of every scale.

        The choice uses the labels of that split: an upper bound, in the baseline's favour.
        """
        entries = {scale: self.enter("task_arithmetic", f"task arithmetic {scale:g}", scale=scale) for scale in scales}
        deltas = {scale: compare(scores, reference)["mean"] for scale, scores in entries.items()}
        best = max(deltas, key=lambda scale: deltas[scale] if deltas[scale] == deltas[scale] else -float("inf"))
        return best, entries[best], {f"{scale:g}": delta for scale, delta in deltas.items()}

