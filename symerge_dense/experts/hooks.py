"""MMEngine's runner without its chatter, and the hooks that show progress and make every run resumable."""

from __future__ import annotations

import itertools
import logging
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank, init_dist, is_distributed, is_main_process
from mmengine.hooks import Hook, SyncBuffersHook
from mmengine.runner import Runner
from torch import nn

from symerge_dense.experts.resume import SafeCheckpointHook, checkpoints, newest_checkpoint
from symerge_dense.progress import Bar

_runs = itertools.count()  # MMEngine keeps loggers and message hubs by name: every run needs its own


class ProgressHook(Hook):
    """A progress bar over the iterations of a run, with the loss behind it."""

    priority = "LOW"

    def __init__(self, description: str) -> None:
        self.description = description
        self._bar: Bar | None = None

    def before_train(self, runner: Any) -> None:
        """Start where the run starts, which is not 0 after a resume."""
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


class IterationSeedHook(Hook):
    """Seeds torch, numpy and random before each iteration from (seed, iteration, rank).

    So the random numbers of an iteration (dropout) do not depend on where the run was interrupted.
    """

    priority = "VERY_HIGH"

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Seed everything for the iteration that comes."""
        value = int(np.random.SeedSequence([self.seed, runner.iter, get_rank()]).generate_state(1)[0])
        torch.manual_seed(value)
        np.random.seed(value)
        random.seed(value)


class QuietRunner(Runner):
    """MMEngine's Runner, which ends its progress bar, log file and data workers however training ends."""

    def train(self) -> nn.Module:
        """Train; the network is trained in place and returned."""
        try:
            return super().train()
        finally:
            for hook in self.hooks:
                if isinstance(hook, ProgressHook):
                    hook.close()
            for handler in [h for h in self.logger.handlers if isinstance(h, logging.FileHandler)]:
                handler.close()
                self.logger.removeHandler(handler)
            _end_workers(self._train_loop)


def _end_workers(loop: Any) -> None:
    """Stop persistent data workers now: garbage collection breaks their queue first and then waits for seconds."""
    for owner in (getattr(loop, "dataloader", None), getattr(loop, "dataloader_iterator", None)):
        iterator: Any = getattr(owner, "_iterator", None)
        if hasattr(iterator, "_shutdown_workers"):
            iterator._shutdown_workers()
            owner._iterator = None  # type: ignore[union-attr]  # the next pass starts new ones


def join_processes(launcher: str) -> None:
    """Join the process group of ``launcher`` ('none', 'pytorch', 'slurm'): NCCL with CUDA, gloo on CPUs."""
    if launcher == "none" or is_distributed():
        return
    if torch.cuda.is_available():
        init_dist(launcher, backend="nccl")
    elif launcher == "pytorch":  # MMEngine's own start needs a CUDA device
        torch.distributed.init_process_group("gloo")
    else:
        raise ValueError(f"launcher={launcher!r} without CUDA; on CPUs use 'none' or 'pytorch' (torchrun).")


def quiet_runner(model: nn.Module, work_dir: str | Path, *, title: str, seed: int, launcher: str = "none",
                 resume: bool = False, hooks: Sequence[Hook] = (), save_every: int = 0, by_epoch: bool = True,
                 fingerprint: str = "", find_unused_parameters: bool = False, **runner_arguments: Any) -> QuietRunner:
    """An MMEngine runner that prints a progress bar and nothing else, is seeded per iteration, and can be resumed.

    Args:
        work_dir: checkpoints and MMEngine's log. resume: go on from the newest sound checkpoint in it; without
            ``resume`` the checkpoints in it are removed.
        save_every: checkpoint interval in epochs or (``by_epoch=False``) iterations; 0 saves none.
        fingerprint: of the run; one that differs from a found checkpoint's refuses to resume.
        runner_arguments: of ``mmengine.runner.Runner``.
    Raises ValueError where a checkpoint must not be resumed from (see ``newest_checkpoint``).
    """
    join_processes(launcher)
    folder = Path(work_dir)
    found = newest_checkpoint(folder, fingerprint) if resume else None
    if not resume:
        discard(folder)
    own: list[Hook] = [IterationSeedHook(seed), ProgressHook(title)]
    own += [SyncBuffersHook()] if launcher != "none" else []
    own += [SafeCheckpointHook(folder, save_every, by_epoch, fingerprint)] if save_every else []
    cfg: dict[str, Any] = {"find_unused_parameters": find_unused_parameters}
    if launcher != "none" and not torch.cuda.is_available():
        cfg["model_wrapper_cfg"] = {"type": "MMDistributedDataParallel", "device_ids": None, "broadcast_buffers": False,
                                    "find_unused_parameters": find_unused_parameters}
    return QuietRunner(
        model, work_dir=str(folder), launcher=launcher, custom_hooks=[*own, *hooks], cfg=cfg, log_level="ERROR",
        default_scope="mmengine", default_hooks={"timer": None, "logger": None, "checkpoint": None},
        experiment_name=f"{re.sub(r'[^A-Za-z0-9]+', '-', title)}-{next(_runs)}", randomness={"seed": seed},
        load_from=str(found) if found else None, resume=found is not None, **runner_arguments)


def discard(folder: Path) -> None:
    """Remove the checkpoints of an unfinished run."""
    if is_main_process():
        for path in checkpoints(folder):
            path.unlink(missing_ok=True)
