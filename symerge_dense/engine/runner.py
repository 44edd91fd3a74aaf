"""MMEngine's runner as this package uses it: a progress bar, a seed for every iteration, runs that can be resumed."""

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
from mmengine.dist import init_dist, is_distributed, is_main_process
from mmengine.hooks import LoggerHook
from mmengine.runner import Runner
from torch import nn

from symerge_dense.engine.checkpointing import checkpoints, newest_checkpoint
from symerge_dense.engine.hooks import Closing
from symerge_dense.registry import RUNNERS, SCOPE

PASSED_ON = ("env_cfg", "visualizer", "default_hooks", "custom_hooks", "log_level", "log_processor", "default_scope")
"""Keys of MMEngine's runner that a config of this package hands through to it."""
_runs = itertools.count()  # MMEngine keeps loggers and message hubs by name: every run needs its own


@RUNNERS.register_module()
class QuietRunner(Runner):
    """MMEngine's Runner, which closes its hooks, log file and data workers however training ends."""

    def train(self) -> nn.Module:
        """Train; the network is trained in place and returned."""
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


def runner_config(
    work_dir: str | Path,
    *,
    title: str,
    seed: int,
    launcher: str = "none",
    resume: bool = False,
    hooks: Sequence[Mapping[str, Any]] = (),
    save_every: int = 0,
    by_epoch: bool = True,
    checkpoints_in: str | Path | None = None,
    fingerprint: str = "",
    find_unused_parameters: bool = False,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """What all runs of this package have in common, as a config of MMEngine's runner.

    It shows a progress bar instead of a log, seeds every iteration, keeps checkpoints that can be read without running
    code, and writes the losses to MMEngine's visualizer (``vis_data/scalars.json`` unless ``settings`` name others).

    Args:
        work_dir: folder of MMEngine's log and of ``vis_data``.
        title: shown at the progress bar.
        seed: of the run.
        launcher: 'none', 'pytorch' or 'slurm'.
        resume: go on from the newest sound checkpoint; without it the checkpoints are removed.
        hooks: further hooks as config dicts.
        save_every: checkpoint interval in epochs or (``by_epoch=False``) iterations; 0 saves none.
        by_epoch: what ``save_every`` counts.
        checkpoints_in: folder of the checkpoints, ``work_dir`` unless given.
        fingerprint: of the run; one that differs from a found checkpoint's refuses to resume.
        find_unused_parameters: of DistributedDataParallel.
        settings: keys of the runner that a user's config sets: ``PASSED_ON``.

    Returns:
        Arguments of ``mmengine.runner.Runner`` without model, data, loops and optimizer.

    Raises:
        ValueError: a checkpoint must not be resumed from (see ``newest_checkpoint``).
    """
    join_processes(launcher)
    folder = Path(checkpoints_in or work_dir)
    found = newest_checkpoint(folder, fingerprint) if resume else None
    if not resume:
        discard(folder)
    own: list[dict[str, Any]] = [
        {"type": "IterationSeedHook", "seed": seed},
        {"type": "ProgressHook", "description": title},
    ]
    own += [{"type": "SyncBuffersHook"}] if launcher != "none" else []
    own += (
        [
            {
                "type": "SafeCheckpointHook",
                "folder": str(folder),
                "interval": save_every,
                "by_epoch": by_epoch,
                "fingerprint": fingerprint,
            }
        ]
        if save_every
        else []
    )
    config: dict[str, Any] = {
        "work_dir": str(work_dir),
        "launcher": launcher,
        "log_level": "ERROR",
        "default_scope": SCOPE,
        "experiment_name": f"{re.sub(r'[^A-Za-z0-9]+', '-', title)}-{next(_runs)}",
        "randomness": {"seed": seed},
        "find_unused_parameters": find_unused_parameters,
        "resume": found is not None,
    }
    config |= {key: value for key, value in settings.items() if key in PASSED_ON}
    config["log_processor"] = {"type": "LogProcessor", "by_epoch": by_epoch, **settings.get("log_processor", {})}
    config["default_hooks"] = {"checkpoint": None, **_default_hooks(settings.get("default_hooks") or {}, by_epoch)}
    config["custom_hooks"] = [*own, *hooks, *settings.get("custom_hooks", ())]
    if found is not None:
        config["load_from"] = str(found)
    if launcher != "none" and not torch.cuda.is_available():
        config["model_wrapper_cfg"] = {
            "type": "MMDistributedDataParallel",
            "device_ids": None,
            "broadcast_buffers": False,
            "find_unused_parameters": find_unused_parameters,
        }
    return config


def _default_hooks(given: Mapping[str, Any], by_epoch: bool) -> dict[str, Any]:
    """A user's hooks; in a run of iterations MMEngine's logger would put every validation at step 0, its only epoch."""
    hooks = dict(given)
    logger = hooks.get("logger", {"type": "LoggerHook"})
    if not by_epoch and isinstance(logger, Mapping) and logger.get("type") in ("LoggerHook", LoggerHook):
        hooks["logger"] = {"log_metric_by_epoch": False, **logger}
    return hooks


def build_runner(config: Mapping[str, Any], **live: Any) -> QuietRunner:
    """The runner of a config: by ``Runner.from_cfg``, or with objects that no config can hold.

    Args:
        config: as ``mmengine.runner.Runner.from_cfg`` takes it; ``filename`` names the copy kept in its work_dir.
        **live: a model, a data loader, an optimizer wrapper, in place of the config's entries.

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


def discard(folder: Path) -> None:
    """Remove the checkpoints of an unfinished run."""
    if is_main_process():
        for path in checkpoints(folder):
            path.unlink(missing_ok=True)
