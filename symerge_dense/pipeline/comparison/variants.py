"""Rows that are a method with other options, and perhaps other unlabelled images: ``baselines.variants`` of a config.

An ablation is written with them: every row changes one option of the config's own adaptation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from symerge_dense.adaptation.options import SyMergeOptions
from symerge_dense.adaptation.teacher import build_teacher
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.pipeline import data
from symerge_dense.pipeline.comparison.methods import Adaptive, Candidate, Outcome, Static
from symerge_dense.pipeline.comparison.model_pool import ModelPool, labels_of_pool
from symerge_dense.pipeline.comparison.tuning import Tuner
from symerge_dense.pipeline.config import RunConfig, to_json
from symerge_dense.pipeline.config_checks import explained
from symerge_dense.pipeline.evaluation_checks import parts_of
from symerge_dense.pipeline.expert_facts import check_given_experts
from symerge_dense.pipeline.network import check_size, check_teacher
from symerge_dense.pipeline.run_checks import check_disk, check_strong_views
from symerge_dense.registry import MERGERS


class AdaptiveVariant(Adaptive):
    """An adaptive method with options of its own.

    Args:
        name: of the row.
        spec: entry of ``baselines.variants``: 'method', options, and 'unlabelled' in place of ``data.unlabelled``.
        config: what it differs from.
    """

    transfers = False

    def __init__(self, name: str, spec: Mapping[str, Any], config: RunConfig) -> None:
        own, shared = parts_of(spec)
        super().__init__(spec["method"], own)
        self.name, self.spec, self.shared = name, dict(spec), shared
        learned = {key: value for key, value in own.items() if key in vars(config.options)}
        adaptation = {**config.adaptation, **shared, **self.method.changes, **learned}
        images = {"unlabelled": spec["unlabelled"]} if "unlabelled" in spec else {}
        self.config = dataclasses.replace(config, adaptation=adaptation, data={**config.data, **images}, baselines={})
        self._own: ModelPool | None = None
        self._given = config.options

    def settings(self, options: SyMergeOptions) -> dict[str, Any]:
        return super().settings(self.config.options)

    def check_images(self, folder: Path) -> None:
        """Check the row's unlabelled images, and the views that it asks for, before anything is trained.

        Args:
            folder: of the comparison.

        Raises:
            ValueError: they cannot be read, the network does not take their size, or labels do not fit on the disk.
        """
        with explained(f"baselines.variants, {self.name!r}"):
            pool = data.pool(self.config) if self._pool is None else self._pool
            if self._pool is not None:
                pool.check_tasks(list(self.config.tasks))
                pool.check_images()
            build_teacher(self.config.options.teacher).check_pool(pool, list(self.config.tasks))
            size = int(pool.image(0).shape[-2]), int(pool.image(0).shape[-1])
            options, given = self.config.options, self._given
            if self._pool is not None or options.views != given.views:  # else the config's own check has seen it
                check_size(self.config, size, "data.unlabelled")
            check_teacher(self.config, size)
            check_strong_views(self.config, size)
            if self._pool is not None or (options.views, options.labels) != (given.views, given.labels):
                labels = folder / "labels" if self._pool is None else labels_of_pool(folder, pool)
                check_disk(self.config, labels, len(pool), size, check_given_experts(self.config))

    @cached_property
    def _pool(self) -> Unlabelled | None:
        return data.pool(self.config) if "unlabelled" in self.spec else None

    def own(self, models: ModelPool) -> ModelPool:
        if self._own is None:
            options = dataclasses.replace(models.options, **self.shared)
            spec = data.pool_spec(self.config) if self._pool is not None else None
            self._own = models.variant(self.name, options, self._pool, spec)
        return self._own

    def make(self, models: ModelPool, tuner: Tuner, seed: int) -> Outcome:
        outcome = super().make(models, tuner, seed)
        otherwise = vars(type(self.method)().options(models.context(seed)))  # under the config's own adaptation
        changes = {**parts_of(self.spec)[0], **self.shared}
        about = [
            f"{key}={value!r}" for key, value in changes.items() if key not in otherwise or otherwise[key] != value
        ]
        if self._pool is not None:
            about.append(f"{len(self._pool)} unlabelled images of its own")
        outcome.facts["options"] = to_json(self.spec)
        outcome.facts["note"] = _noted(self.spec["method"], about, outcome.facts["note"])
        return outcome


class StaticVariant(Static):
    """A static method with arguments of its own, on the config's images.

    Args:
        name: of the row.
        spec: entry of ``baselines.variants``: 'method' and arguments.
    """

    transfers = False

    def __init__(self, name: str, spec: Mapping[str, Any]) -> None:
        super().__init__(spec["method"], parts_of(spec)[0])
        self.name, self.spec = name, dict(spec)

    def make(self, models: ModelPool, tuner: Tuner, seed: int) -> Outcome:
        outcome = super().make(models, tuner, seed)
        about = [f"{key}={value!r}" for key, value in self.options.items()]
        outcome.facts["options"] = {"method": self.spec["method"], **outcome.facts["options"]}
        outcome.facts["note"] = _noted(self.spec["method"], about, outcome.facts["note"])
        return outcome


def _noted(method: str, changes: Sequence[str], note: str) -> str:
    """What a row is, and the remark of its method."""
    return "; ".join(filter(None, [f"`{method}` with {', '.join(changes) or 'the options of the config'}", note]))


Variant = AdaptiveVariant | StaticVariant


def variants(config: RunConfig) -> list[Candidate]:
    """The rows of ``baselines.variants``.

    Args:
        config: of the comparison.
    """
    specs: Mapping[str, Mapping[str, Any]] = config.baselines.get("variants") or {}
    return [
        StaticVariant(name, spec) if spec["method"] in MERGERS else AdaptiveVariant(name, spec, config)
        for name, spec in specs.items()
    ]
