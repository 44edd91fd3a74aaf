"""AdaMerging: merging coefficients that minimise the entropy of the merged model's predictions.

Yang et al., ICLR 2024, https://arxiv.org/abs/2310.02575

| method          | one coefficient per task and | task vectors                                     |
|-----------------|------------------------------|--------------------------------------------------|
| adamerging_task | network                      | whole                                            |
| adamerging      | tensor                       | whole                                            |
| adamerging_pp   | tensor                       | trimmed to 20 % and sign-elected, as TIES' are   |

Published settings: coefficients start at 0.3 and stay in [0, 1]; Adam at 1e-3 without decay of rate or weights; every
step sums the losses of all tasks. Rounds, batch, augmentation and balance of losses come from the context.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from symerge_dense.adaptation.method import AdaptationContext, OptionVariant
from symerge_dense.registry import ADAPTIVE_METHODS

PAPER = "https://arxiv.org/abs/2310.02575"
STEPS = 500
_PUBLISHED: dict[str, Any] = {
    "objective": "entropy",
    "initial": 0.3,
    "clamp": (0.0, 1.0),
    "learn_coefficients": True,
    "learn_layer": False,
    "coefficient_lr": 1e-3,
    "lr_decay": "none",
    "warmup": 0,
    "sharpness": 0.0,
    "schedule": "sum",
    "density": None,
}


class _EntropyMinimisation(OptionVariant):
    """Minimises the entropy of tasks that predict a distribution; other tasks learn from expert labels."""

    paper: ClassVar[str] = PAPER

    def note(self, context: AdaptationContext) -> str:
        tasks = {name: expert.tasks[name] for name, expert in context.experts.items()}
        others = [name for name, task in tasks.items() if task.entropy(torch.zeros(1, task.channels, 1, 1)) is None]
        labels = f"{', '.join(others)}: expert labels (no entropy); " if others else ""
        return f"{labels}{context.options.rounds} steps, {STEPS} in the paper"


@ADAPTIVE_METHODS.register_module()
class AdaMergingTask(_EntropyMinimisation):
    """Task-wise: one coefficient for each task vector."""

    name: ClassVar[str] = "adamerging_task"
    title: ClassVar[str] = "AdaMerging, task-wise"
    learns: ClassVar[str] = "one coefficient per task"
    changes: ClassVar[Mapping[str, Any]] = {**_PUBLISHED, "granularity": "task"}


@ADAPTIVE_METHODS.register_module()
class AdaMerging(_EntropyMinimisation):
    """Layer-wise: one coefficient for each tensor of each task vector."""

    name: ClassVar[str] = "adamerging"
    title: ClassVar[str] = "AdaMerging"
    learns: ClassVar[str] = "coefficients"
    changes: ClassVar[Mapping[str, Any]] = {**_PUBLISHED, "granularity": "tensor"}


@ADAPTIVE_METHODS.register_module()
class AdaMergingPP(_EntropyMinimisation):
    """AdaMerging++: layer-wise, on task vectors without the elements that TIES would drop."""

    name: ClassVar[str] = "adamerging_pp"
    title: ClassVar[str] = "AdaMerging++"
    learns: ClassVar[str] = "coefficients"
    changes: ClassVar[Mapping[str, Any]] = {**_PUBLISHED, "granularity": "tensor", "density": 0.2}
