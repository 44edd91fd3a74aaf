"""Hooks of every run: a progress bar, and random numbers that an interruption does not change."""

from __future__ import annotations

import random
import time
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook, IterTimerHook

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


@HOOKS.register_module()
class SteadyTimerHook(IterTimerHook):
    """MMEngine's times of iterations and the time left, by a clock that nobody sets: none of them is ever negative."""

    def _before_epoch(self, runner: Any, mode: str = "train") -> None:
        self._last = time.monotonic()

    def _before_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, mode: str = "train") -> None:
        runner.message_hub.update_scalar(f"{mode}/data_time", time.monotonic() - self._last)

    def _after_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None, mode: str = "train"
    ) -> None:
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        runner.message_hub.update_scalar(f"{mode}/time", seconds)
        if mode == "train":
            self.time_sec_tot += seconds
            mean, left = self.time_sec_tot / (runner.iter - self.start_iter + 1), runner.max_iters - runner.iter - 1
        else:
            loader = runner.val_dataloader if mode == "val" else runner.test_dataloader
            self.time_sec_test_val += seconds
            mean, left = self.time_sec_test_val / (batch_idx + 1), len(loader) - batch_idx - 1
        runner.message_hub.update_info("eta", mean * left)
