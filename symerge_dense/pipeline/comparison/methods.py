"""What is compared: every registered static and adaptive method, joint training with labels, and the experts."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import torch

from symerge_dense.adaptation.options import NO_NUMBER, SyMergeOptions
from symerge_dense.experts.statistics import LARGEST_GRAM, SAMPLED, Statistics
from symerge_dense.merging.base import Merger
from symerge_dense.merging.run import merge_state
from symerge_dense.merging.tensor_specs import TensorSpec
from symerge_dense.pipeline.comparison.model_pool import ModelPool
from symerge_dense.pipeline.comparison.scoring import Networks
from symerge_dense.pipeline.comparison.tuning import States, Tuner, knob_of, values_of
from symerge_dense.pipeline.config_checks import explained
from symerge_dense.pipeline.method_options import built
from symerge_dense.registry import ADAPTIVE_METHODS, MERGERS

BLOCKS = {
    "reference": "references",
    "plain": "one encoder, nothing beside it",
    "adapters": "one encoder, parameters beside it",
    "masks": "weights per task: one encoder pass per task",
}
EXPERTS, IN_VIEWS, JOINT = "experts", "experts_views", "joint_training"
DATA = ("none", "unlabelled", "labels")


@dataclass
class Outcome:
    """What a candidate makes.

    Args:
        networks: finished networks, ready to be scored.
        block: the block of the table it belongs to, of ``BLOCKS``.
        data: what it has looked at, of ``DATA``. Images for re-estimating BatchNorm, the same for all, do not count.
        facts: further entries of the row, as they are.
    """

    networks: Networks
    block: str
    data: str
    facts: dict[str, Any] = field(default_factory=dict)


class Candidate(ABC):
    """A method or a reference that gets a row in the table.

    Attributes:
        name: of the row.
        block: the row's block if the method fails; otherwise the ``Outcome`` has it.
        data: what the row says it has looked at if the method fails.
        transfers: whether SyMerge's adapted layers are tried on its encoder.
    """

    name: str
    block: str = "plain"
    data: str = "none"
    transfers: bool = True

    @property
    def random(self) -> bool:
        """Whether the result depends on the seed."""
        return False

    def settings(self, options: SyMergeOptions) -> dict[str, Any]:
        """All that the row is made with and a later version may have other defaults for; empty by default.

        Args:
            options: of the config's adaptation.
        """
        return {}

    @abstractmethod
    def make(self, models: ModelPool, tuner: Tuner, seed: int) -> Outcome:
        """Do all of the method's own work, from base and experts to networks that can be scored.

        Args:
            models: base, experts and unlabelled images.
            tuner: chooses the method's scale, if it has one.
            seed: of everything random.
        """


class Static(Candidate):
    """A method of ``MERGERS``.

    It collects the statistics it needs, tunes its scale if it has one, merges, and settles BatchNorm.

    Args:
        name: of the method.
        options: arguments of the method; all others keep their defaults.
    """

    def __init__(self, name: str, options: Mapping[str, Any] = MappingProxyType({})) -> None:
        self.name, self.kind, self.options = name, MERGERS[name], dict(options)
        self.default: Merger = built(self.kind, name, self.options)
        self.block = "masks" if self.default.per_task else "plain"
        self.data = "unlabelled" if self.default.needs else "none"

    @cached_property
    def random(self) -> bool:
        """Whether the method, or a statistic that it needs, is drawn at random."""
        return bool(self.default.needs & SAMPLED) or draws(self.default)

    def settings(self, options: SyMergeOptions) -> dict[str, Any]:
        shared = {name: getattr(options, name) for name in ("batchnorm", "recalibration_images", "batch_size")}
        return {**shared, **self.default.hyperparameters}

    def make(self, models: ModelPool, tuner: Tuner, seed: int) -> Outcome:
        extras = {what: models.statistics(what, seed, self.default) for what in sorted(self.default.needs)}
        tasks: list[str | None] = list(models.experts) if self.default.per_task else [None]

        def merge(merger: Merger) -> States:
            return {task: models.merge(merger, seed, extras, task) for task in tasks}

        merger, facts = self._tuned(tuner, merge)
        networks = {task: models.place(state, task) for task, state in merge(merger).items()}
        tuned_on = "labels" if tuner.criterion == "labels" else "unlabelled"
        data = max(self.data, tuned_on if "tuning" in facts else "none", key=DATA.index)
        facts |= {"options": merger.hyperparameters, "extra_parameters": self._beside(models)}
        grams = [_without_gram(models, found) for what, found in extras.items() if what != "fisher"]
        notes = [_of_convolutions(merger, models), *grams]
        facts["note"] = "; ".join(filter(None, notes))
        return Outcome(networks, self.block, data, facts)

    def _tuned(self, tuner: Tuner, merge: Callable[[Merger], States]) -> tuple[Merger, dict[str, Any]]:
        """The method with its knob at the best value, and the record of the choice, if there was one."""
        knob = knob_of(self.kind)
        if knob is None or knob in self.options or len(values_of(self.kind, tuner.scales)) < 2:
            return self.default, {}
        start = time.perf_counter()
        best, found = tuner.best(self.kind, lambda value: merge(self.kind(**self.options, **{knob: value})))
        tuning = {"argument": knob, "best": best, "values": {f"{value:g}": found[value] for value in sorted(found)}}
        seconds = round(time.perf_counter() - start, 2)
        return self.kind(**self.options, **{knob: best}), {"tuning": tuning, "tuning_seconds": seconds}

    def _beside(self, models: ModelPool) -> int:
        """Numbers kept beside one backbone, in units of float32: the unified task vector, and a mask for each task."""
        if not self.default.per_task:
            return 0
        weights = models.backbone_weights
        return weights + len(models.experts) * -(-weights * self.default.extra_bits // 32)


class Adaptive(Candidate):
    """A method of ``ADAPTIVE_METHODS``, run on the unlabelled images with the config's options.

    Args:
        name: of the method.
        options: the method's own arguments; all others keep their defaults.
    """

    data = "unlabelled"

    def __init__(self, name: str, options: Mapping[str, Any] = MappingProxyType({})) -> None:
        self.name = name
        self.method = built(ADAPTIVE_METHODS[name], name, options)

    @property
    def random(self) -> bool:
        """True: batches are drawn at random."""
        return True

    def settings(self, options: SyMergeOptions) -> dict[str, Any]:
        own = {**vars(options), **self.method.changes, **self.method.hyperparameters}
        return {name: value for name, value in own.items() if name not in NO_NUMBER}

    def own(self, models: ModelPool) -> ModelPool:
        """Base and experts, with the options and unlabelled images that the method gets: the config's.

        Args:
            models: with those of the config.
        """
        return models

    def check(self, models: ModelPool) -> None:
        """Check that the heads have the layer that is adapted, before any method runs.

        Args:
            models: has the experts.

        Raises:
            ValueError: they do not.
        """
        layer = self.method.options(self.own(models).context(0)).layer
        for task, expert in models.experts.items():
            with explained(f"{self.name}: layer, expert {task}"):
                dict(expert.named_heads())[task].layer_modules(layer)

    def prepare(self, models: ModelPool) -> None:
        """Let the experts label all images, if the method learns from cached labels, so that it is not charged for it.

        Args:
            models: base, experts and unlabelled images of the config.
        """
        own = self.own(models)
        own.ask_experts(self.method.options(own.context(0)))

    def make(self, models: ModelPool, tuner: Tuner, seed: int) -> Outcome:
        adapted = self.method.run(self.own(models).context(seed))
        passes = adapted.model.encoder_passes
        block = "masks" if passes > 1 else "adapters" if adapted.extra_parameters else "plain"
        facts = {
            "options": self.method.hyperparameters,
            "extra_parameters": adapted.extra_parameters,
            "encoder_passes": passes,
            "note": adapted.note,
        }
        return Outcome({None: adapted.model}, block, self.data, facts)


def _of_convolutions(merger: Merger, models: ModelPool) -> str:
    """A remark on what a matrix method did to convolutions, which published code averages."""
    conv = merger.hyperparameters.get("conv")
    if conv is None or not any(spec.kind == "conv" for spec in models.specs):
        return ""
    return "convolutions averaged" if conv == "mean" else "convolutions as matrices (O, I*kh*kw)"


def _without_gram(models: ModelPool, grams: Statistics) -> str:
    """A remark on weights that RegMean could only average; empty without any."""
    matrices = [spec for spec in models.specs if spec.kind in ("matrix", "conv")]
    without = [spec for spec in matrices if any(spec.name not in found for found in grams.values())]
    share = sum(spec.numel for spec in without) / max(sum(spec.numel for spec in matrices), 1)
    return (
        f"{len(without)} of {len(matrices)} matrices ({share:.0%} of their weights) averaged: grouped, or of over "
        f"{LARGEST_GRAM} inputs"
        if without
        else ""
    )


# -- which static methods draw at random: only those are worth several runs -------------------------------------------
SIZE = 16


def draws(merger: Merger) -> bool:
    """Whether two seeds give two results, tried on one small matrix.

    Args:
        merger: the method; one that needs statistics counts as not random.
    """
    if merger.needs:
        return False
    generator = torch.Generator().manual_seed(0)
    base, *experts = ({"weight": torch.randn(SIZE, SIZE, generator=generator)} for _ in range(3))
    named = {str(number): expert for number, expert in enumerate(experts)}
    specs = [TensorSpec("weight", (SIZE, SIZE), torch.float32, "matrix", 0, 1, depth=0.0)]
    task = next(iter(named)) if merger.per_task else None
    first, second = (merge_state(merger, base, named, specs, seed=seed, task=task) for seed in (0, 1))
    return not torch.equal(first["weight"], second["weight"])
