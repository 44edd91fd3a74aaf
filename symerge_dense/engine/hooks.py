"""Hooks of every run: a progress bar, and random numbers that an interruption does not change."""

from __future__ import annotations

import random
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook

from symerge_dense.progress import Bar
from symerge_dense.registry import HOOKS


@runtime_checkable
class Closing(Protocol):
    """A hook that ``QuietRunner`` closes when training ends, by an exception too."""

    def close(self) -> None:
        """Write what is buffered, and release resources."""


@HOOKS.register_module()
class ProgressHook(Hook):
    """A progress bar over the iterations of a run, followed by the loss.

    Args:
        description: shown before the bar.
    """

    priority = "LOW"

    def __init__(self, description: str) -> None:
        self.description = description
        self._bar: Bar | None = None

    def before_train(self, runner: Any) -> None:
        """Start the bar at the run's first iteration, which is not 0 after a resume."""
        self._bar = Bar(self.description, total=runner.max_iters, done=runner.iter).__enter__()

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """One step, with its loss."""
        if self._bar is not None:
            loss = (outputs or {}).get("loss")
            self._bar.advance("" if loss is None else f"loss {float(loss.detach()):.4f}")

    def close(self) -> None:
        """End the bar, also after an interruption."""
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None


@HOOKS.register_module()
class IterationSeedHook(Hook):
    """Seeds torch, numpy and random before each iteration from (seed, iteration, rank).

    So the random numbers of an iteration (dropout) do not depend on where the run was interrupted.

    Args:
        seed: of the run.
    """

    priority = "VERY_HIGH"

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Seed everything for the coming iteration."""
        value = int(np.random.SeedSequence([self.seed, runner.iter, get_rank()]).generate_state(1)[0])
        torch.manual_seed(value)
        np.random.seed(value)
        random.seed(value)
