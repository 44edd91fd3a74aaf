"""Claim 9: experts of different first weights. What breaks, does SyMerge still merge, and does matching restore it?"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from symerge_dense.pipeline.config import RunConfig
from symerge_dense.registry import STUDIES
from symerge_dense.studies.frame.intervals import Interval, Outcome, every, exceeds
from symerge_dense.studies.frame.laboratory import EXPERTS, Laboratory, Numbers, Run, measure_method, of_seed
from symerge_dense.studies.frame.study import CHANGES, Measured, Study, Verdict, difference, over_seeds

ONE, SEEDS, OWN, MATCHED = "one base", "one base, own seeds", "own bases", "own bases, matched"
OURS, COEFFICIENTS, TRAINING_FREE = "symerge", "symerge_coefficients", "task_arithmetic"
FURTHER = 1000  # from a task's seed to the next task's: far above the seeds of a study


@STUDIES.register_module()
class Initialisations(Study):
    """Merges experts whose bases were trained from different first weights, as they are and with units matched.

    Four ways to come to experts: from one base and one seed, as in all studies; from one base with seeds of their own
    (first weights of the heads, order of the images); from bases of their own, whose mean then is the base; and these
    with their units in the order of the first expert's, by the correlation of activations (``experts.match``). About a
    mean, task arithmetic gives the plain average at every scale.

    Args:
        collapse: points of Delta_m that coefficients alone must lose from one base to own bases.
        share: of their loss that SyMerge may lose at most, and of task arithmetic's loss that matching must restore.
    """

    name: ClassVar[str] = "initialisations"
    title: ClassVar[str] = "Experts of different first weights"
    claim: ClassVar[str] = (
        "From different first weights coefficients alone collapse, SyMerge still merges, and matching restores most."
    )
    question: ClassVar[str] = "What does each method lose, and how much of it does activation matching restore?"
    paper: ClassVar[str | None] = "coefficients alone collapse, SyMerge still merges; nothing on matching"
    rule: ClassVar[str] = (
        "losses are of Delta_m, from one base to own bases, per seed. Confirmed if the 95 % intervals over seeds of "
        "three quantities lie above their limits: the loss of coefficients alone above `collapse` (10 points); `share` "
        "(0.5) x this loss - the loss of SyMerge above 0; what matching wins back for task arithmetic - `share` x its "
        "loss above 0. Refuted if one lies below; else inconclusive."
    )
    would_change: ClassVar[str] = (
        "wider networks, whose units find better partners; matching by weights or with more images; bases trained so "
        "long that they compute the same; whole heads adapted in place of one layer."
    )
    keys: ClassVar[tuple[str, ...]] = ("start",)
    shown: ClassVar[tuple[str, ...]] = CHANGES

    def __init__(self, collapse: float = 10.0, share: float = 0.5) -> None:
        self.collapse, self.share = collapse, share

    def check(self, config: RunConfig) -> None:
        base, experts = config.base, config.experts
        given = [f"base.{key}" for key in ("checkpoint", "pretrained") if base.get(key)]
        given += ["experts.checkpoints"] if experts.get("checkpoints") else []
        if given:
            raise ValueError(
                f"{' and '.join(given)}: these weights are not trained here, so there are none from other first "
                "weights. Give base.train with tasks and a recipe, or base.random_init=True, and experts.recipe."
            )
        if len(config.tasks) < 2:
            raise ValueError(f"tasks={list(config.tasks)}: experts of different first weights take two or more.")

    def grid(self, tasks: Sequence[str]) -> list[Run]:
        return [
            {"label": _label(method, start), "method": method, **({} if start == ONE else {"start": start})}
            for start in (ONE, SEEDS, OWN, MATCHED)
            for method in (EXPERTS, OURS, COEFFICIENTS, TRAINING_FREE)
        ]

    def measure(self, laboratory: Laboratory, run: Run) -> Numbers:
        there = with_experts(laboratory, run["start"]) if "start" in run else laboratory
        numbers = measure_method(there, run)
        laboratory.cost = there.cost
        return numbers

    def verdict(self, measured: Sequence[Measured]) -> Verdict:
        lost = {method: _lost(measured, method) for method in (COEFFICIENTS, OURS, TRAINING_FREE)}
        findings = {f"loss of {method}": one for method, one in lost.items()}
        findings["loss of task_arithmetic by own seeds alone"] = difference(
            measured, _label(TRAINING_FREE, ONE), _label(TRAINING_FREE, SEEDS)
        )
        for method in (TRAINING_FREE, OURS):
            restored = difference(measured, _label(method, MATCHED), _label(method, OWN))
            findings[f"won back by matching, {method}"] = restored
        kept = over_seeds(measured, self._kept)
        enough = over_seeds(measured, self._restored)
        findings["share of the coefficients' loss - loss of symerge"] = kept
        findings["won back for task_arithmetic - share of its loss"] = enough
        parts: dict[str, Outcome] = {
            "coefficients alone collapse": exceeds(lost[COEFFICIENTS], self.collapse),
            "SyMerge still merges": exceeds(kept),
            "matching restores": exceeds(enough),
        }
        told = ", ".join(f"{part} ({outcome})" for part, outcome in parts.items())
        reason = f"Coefficients alone lose {lost[COEFFICIENTS]} points, SyMerge {lost[OURS]}. Parts: {told}."
        return Verdict(every(parts.values()), reason, findings)

    def _kept(self, runs: Sequence[Measured]) -> float:
        """How far SyMerge's loss lies below the share of the loss of coefficients alone, in one seed."""
        return self.share * _lost(runs, COEFFICIENTS).mean - _lost(runs, OURS).mean

    def _restored(self, runs: Sequence[Measured]) -> float:
        """What matching wins back for task arithmetic beyond the share of its loss, in one seed."""
        back = difference(runs, _label(TRAINING_FREE, MATCHED), _label(TRAINING_FREE, OWN)).mean
        return back - self.share * _lost(runs, TRAINING_FREE).mean


def _label(method: str, start: str) -> str:
    return f"{method}, {start}"


def _lost(measured: Sequence[Measured], method: str) -> Interval:
    return difference(measured, _label(method, ONE), _label(method, OWN))


# -- experts of other first weights -----------------------------------------------------------------------------------
def with_experts(laboratory: Laboratory, start: str) -> Laboratory:
    """The same images and methods with experts of other seeds, which are trained where they are missing.

    Args:
        laboratory: trains its base and experts from one seed; the first task keeps that expert where it can.
        start: ``SEEDS``, ``OWN`` or ``MATCHED``.
    """
    config, one_base = laboratory.config, laboratory.config.base
    if start == SEEDS:
        with laboratory.working() as models:
            one_base = {"checkpoint": str((models.files or {})["base"])}
    files = {}
    for number, (task, spec) in enumerate(config.tasks.items()):
        heads = {key: value for key, value in config.heads.items() if key == task}
        recipes = {key: value for key, value in config.experts.get("recipes", {}).items() if key == task}
        experts = {**config.experts, "recipes": recipes}
        alone = dataclasses.replace(config, tasks={task: spec}, heads=heads, base=one_base, experts=experts)
        there = _beside(laboratory, of_seed(alone, config.seed + FURTHER * number))
        there.train()
        files[task] = str(there.store.paths[task])
    base = one_base if start == SEEDS else {"mean": True}
    experts = {**config.experts, "checkpoints": files}
    experts |= {"match": {"type": "activations"}} if start == MATCHED else {}
    return _beside(laboratory, dataclasses.replace(config, base=base, experts=experts))


def _beside(laboratory: Laboratory, config: RunConfig) -> Laboratory:
    """Another laboratory with the same images, read once."""
    other = Laboratory(config, laboratory.cache)
    other.pool = laboratory.pool
    return other
