"""What a config of a study on sentences says, validated."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from symerge_dense.adaptation.option_checks import check_types
from symerge_dense.adaptation.options import SyMergeOptions, make_options
from symerge_dense.pipeline.config import Spec, to_json
from symerge_dense.pipeline.config_checks import check_keys
from symerge_dense.registry import did_you_mean
from symerge_dense.studies.language.encoder import Recipe, TextEncoder
from symerge_dense.studies.language.merged import USED
from symerge_dense.studies.language.sentences import TASKS

SPLITS = ("train", "unlabelled", "test")


@dataclass(frozen=True)
class TextConfig:
    """What a config of a study on sentences says.

    Args:
        name: of the config file.
        tasks: {task: {}}, of ``TASKS``.
        sentences: {split: how many}, of ``SPLITS``.
        encoder: arguments of ``TextEncoder``.
        base: arguments of ``Recipe``, for the training on text alone.
        experts: arguments of ``Recipe``, for the training on each task.
        adaptation: options of SyMerge, of those in ``USED``.
        baselines: 'scales' that are tried where a method has one.
        seed: of everything but the sentences.

    Raises:
        ValueError: an unknown name, or a value that is not allowed.
    """

    name: str
    tasks: Spec
    sentences: Spec
    encoder: Spec = field(default_factory=dict)
    base: Spec = field(default_factory=dict)
    experts: Spec = field(default_factory=dict)
    adaptation: Spec = field(default_factory=dict)
    baselines: Spec = field(default_factory=lambda: {"scales": [0.1, 0.2, 0.3, 0.5, 0.7]})
    seed: int = 0

    def __post_init__(self) -> None:
        for task, spec in self.tasks.items():
            if task not in TASKS:
                raise ValueError(did_you_mean(task, TASKS, "task on sentences"))
            if spec:
                raise ValueError(f"tasks.{task}={spec!r}: tasks on sentences have no options; give {{}}.")
        check_keys(self.sentences, SPLITS, "sentences", every=True)
        check_keys(self.encoder, list(inspect.signature(TextEncoder).parameters), "encoder")
        for section, values in (("sentences", self.sentences), ("encoder", self.encoder)):
            for name, value in values.items():
                if type(value) is not int or value < 1:
                    raise ValueError(f"{section}.{name}={value!r}: give a whole number, 1 or more.")
        for section in ("base", "experts"):
            values = getattr(self, section)
            check_keys(values, list(inspect.signature(Recipe).parameters), section)
            check_types(Recipe, values, section)
            Recipe(**values)
        TextEncoder(**self.encoder)
        scales = self.baselines.get("scales")
        if set(self.baselines) != {"scales"} or not isinstance(scales, list | tuple) or not scales:
            raise ValueError(f"baselines={self.baselines!r}: give scales=[...], those that are tried for every method.")
        check_used(self.adaptation)
        _ = self.options

    @property
    def options(self) -> SyMergeOptions:
        """The options of the adaptation, validated."""
        return make_options(**self.adaptation)

    @property
    def record(self) -> Spec:
        """The config as JSON-able data."""
        return {key: to_json(value) for key, value in vars(self).items()}


def check_used(options: Mapping[str, Any]) -> None:
    """Refuse options of the adaptation that do nothing without images.

    Args:
        options: by name.

    Raises:
        ValueError: there is one.
    """
    for name in options:
        if name not in USED:
            raise ValueError(did_you_mean(name, USED, "option of the adaptation on sentences"))
