"""MMEngine's runner as this package uses it: a progress bar, a seed for every iteration, resumable runs."""

from __future__ import annotations

import inspect
import itertools
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import init_dist, is_distributed
from mmengine.hooks import LoggerHook
from mmengine.runner import Runner
from torch import nn

from symerge_dense.engine.checkpointing import CheckpointPolicy
from symerge_dense.engine.hooks import Closing
from symerge_dense.registry import RUNNERS, SCOPE

PASSED_ON = ("env_cfg", "visualizer", "default_hooks", "custom_hooks", "log_level", "log_processor", "default_scope")
"""Keys of a config that are passed on to MMEngine's runner."""
_runs = itertools.count()  # MMEngine keeps loggers and message hubs by name, so every run needs a new name


@RUNNERS.register_module()
class QuietRunner(Runner):
    """MMEngine's Runner that always closes its hooks, log file and data workers, however training ends."""

    def train(self) -> nn.Module:
        """Train the model in place and return it."""
        try:
            return super().train()
        finally:
            for hook in self.hooks:
                if isinstance(hook, Closing):
                    hook.close()
            for handler in [h for h in self.logger.handlers if isinstance(h, logging.FileHandler)]:
                handler.close()
                self.logger.removeHandler(handler)
            _end_workers(self._train_loop)


def _end_workers(loop: Any) -> None:
    """Stop persistent data workers now: garbage collection would break their queue first and then wait for seconds."""
    for owner in (getattr(loop, "dataloader", None), getattr(loop, "dataloader_iterator", None)):
        iterator: Any = getattr(owner, "_iterator", None)
        if hasattr(iterator, "_shutdown_workers"):
            iterator._shutdown_workers()
            owner._iterator = None  # type: ignore[union-attr]  # the next pass starts new ones


def join_processes(launcher: str) -> None:
    """Join the process group of a distributed run: NCCL with CUDA, gloo on CPUs.

    Args:
        launcher: 'none', 'pytorch' or 'slurm'.

    Raises:
        ValueError: another launcher than 'none' or 'pytorch' without CUDA.
    """
    if launcher == "none" or is_distributed():
        return
    if torch.cuda.is_available():
        init_dist(launcher, backend="nccl")
    elif launcher == "pytorch":  # MMEngine's own initialisation needs CUDA
        torch.distributed.init_process_group("gloo")
    else:
        raise ValueError(f"launcher={launcher!r} without CUDA; on CPUs use 'none' or 'pytorch' (torchrun).")


def runner_config(
    work_dir: str | Path,
    checkpoints: CheckpointPolicy,
    *,
    title: str,
    seed: int,
    launcher: str = "none",
    hooks: Sequence[Mapping[str, Any]] = (),
    find_unused_parameters: bool = False,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """The config of MMEngine's runner that all runs of this package share.

    The run shows a progress bar instead of a log, seeds every iteration, writes checkpoints that are read without
    running code, and logs losses to MMEngine's visualizer (``vis_data/scalars.json`` unless ``settings`` has another).

    Args:
        work_dir: folder of MMEngine's log and of ``vis_data``.
        checkpoints: where and how often the run is saved, and whether it goes on from a checkpoint.
        title: shown before the progress bar.
        seed: of the run.
        launcher: 'none', 'pytorch' or 'slurm'.
        hooks: further hooks as config dicts.
        find_unused_parameters: of DistributedDataParallel.
        settings: what a user's config sets of the runner, keys of ``PASSED_ON``.

    Returns:
        Arguments of ``mmengine.runner.Runner`` without model, data, loops and optimizer.

    Raises:
        ValueError: a checkpoint must not be resumed from (see ``newest_checkpoint``).
    """
    join_processes(launcher)
    found, by_epoch = checkpoints.begin(), checkpoints.by_epoch
    own: list[dict[str, Any]] = [
        {"type": "IterationSeedHook", "seed": seed},
        {"type": "ProgressHook", "description": title},
        *([{"type": "SyncBuffersHook"}] if launcher != "none" else []),
        *checkpoints.hooks,
    ]
    config: dict[str, Any] = {
        "work_dir": str(work_dir),
        "launcher": launcher,
        "log_level": "ERROR",
        "default_scope": SCOPE,
        "experiment_name": f"{re.sub(r'[^A-Za-z0-9]+', '-', title)}-{next(_runs)}",
        "randomness": {"seed": seed},
        "find_unused_parameters": find_unused_parameters,
        "resume": found is not None,
        "load_from": None if found is None else str(found),
    }
    config |= {key: value for key, value in settings.items() if key in PASSED_ON}
    config["log_processor"] = {"type": "LogProcessor", "by_epoch": by_epoch, **settings.get("log_processor", {})}
    config["default_hooks"] = {"checkpoint": None, **_default_hooks(settings.get("default_hooks") or {}, by_epoch)}
    config["custom_hooks"] = [*own, *hooks, *settings.get("custom_hooks", ())]
    if launcher != "none" and not torch.cuda.is_available():
        config["model_wrapper_cfg"] = {
            "type": "MMDistributedDataParallel",
            "device_ids": None,
            "broadcast_buffers": False,
            "find_unused_parameters": find_unused_parameters,
        }
    return config


def _default_hooks(given: Mapping[str, Any], by_epoch: bool) -> dict[str, Any]:
    """A user's hooks. In a run of iterations the logger counts those: by epoch every validation would be at step 0."""
    hooks = dict(given)
    logger = hooks.get("logger", {"type": "LoggerHook"})
    if not by_epoch and isinstance(logger, Mapping) and logger.get("type") in ("LoggerHook", LoggerHook):
        hooks["logger"] = {"log_metric_by_epoch": False, **logger}
    return hooks


def build_runner(config: Mapping[str, Any], **live: Any) -> QuietRunner:
    """Build the runner of a config, by ``Runner.from_cfg`` or from objects that no config can hold.

    Args:
        config: as ``mmengine.runner.Runner.from_cfg`` takes it; ``filename`` names the copy kept in its work_dir.
        **live: objects in place of entries of the config: a model, a data loader, an optimizer wrapper.

    Returns:
        The runner; ``train()`` starts it.
    """
    plain = dict(config)
    name = plain.pop("filename", None)
    kept = Config(plain, cfg_text="# composed, not read from a file" if name else None, filename=name)
    if not live:
        runner: QuietRunner = QuietRunner.from_cfg(kept)
        return runner
    known = inspect.signature(Runner.__init__).parameters
    return QuietRunner(**{key: value for key, value in plain.items() if key in known}, **live, cfg=kept)
