"""MMEngine's runner as this package uses it: a progress bar, a seed for every iteration, resumable runs."""

from __future__ import annotations

import copy
import inspect
import itertools
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import mmengine.device.utils
import torch
from mmengine.config import Config
from mmengine.dist import master_only
from mmengine.hooks import LoggerHook
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from torch import nn

from symerge_dense.engine.checkpointing import CheckpointPolicy
from symerge_dense.engine.freed_memory import keep_freed_memory
from symerge_dense.engine.hooks import Closing
from symerge_dense.engine.log_files import close_files, end_by_errors
from symerge_dense.engine.processes import join_processes
from symerge_dense.fileio import write_text, writing
from symerge_dense.registry import (
    DATA_SAMPLERS,
    DATASETS,
    HOOKS,
    LOOPS,
    METRICS,
    MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    OPTIM_WRAPPERS,
    RUNNERS,
    SCOPE,
    VISUALIZERS,
    Registry,
)

PASSED_ON = ("env_cfg", "visualizer", "default_hooks", "custom_hooks", "log_level", "log_processor", "default_scope")
"""Keys of a config that are passed on to MMEngine's runner."""
BUILT = (MODELS, HOOKS, DATASETS, DATA_SAMPLERS, METRICS, LOOPS, OPTIM_WRAPPERS, OPTIM_WRAPPER_CONSTRUCTORS)
"""What MMEngine's runner builds of this package."""
_runs = itertools.count()  # MMEngine keeps loggers and message hubs by name, so every run needs a new name


@RUNNERS.register_module()
class QuietRunner(Runner):
    """MMEngine's Runner that always closes its hooks, log file and data workers, however training ends.

    A disk that takes no more ends it by an error that names the file or the folder.

    Args:
        *args: as MMEngine's.
        **named: as MMEngine's.
    """

    def __init__(self, *args: Any, **named: Any) -> None:
        with writing(named["work_dir"] if "work_dir" in named else args[1]):  # MMEngine's own files
            super().__init__(*args, **named)

    def build_logger(self, *args: Any, **named: Any) -> MMLogger:
        """Build MMEngine's logger, whose file ends the run where it cannot be written.

        Args:
            *args: as MMEngine's.
            **named: as MMEngine's.
        """
        logger = super().build_logger(*args, **named)
        end_by_errors(logger)
        return logger

    @master_only
    def dump_config(self) -> None:
        """Write the config to the folder of the run, whole or not at all."""
        name = Path(self.cfg.filename or f"{self.timestamp}.py").name
        write_text(Path(self.work_dir) / name, self.cfg.pretty_text)

    def train(self) -> nn.Module:
        """Train the model in place and return it."""
        try:
            with writing(self.work_dir):
                return super().train()
        finally:
            for hook in self.hooks:
                if isinstance(hook, Closing):
                    hook.close()
            close_files(self.logger)
            _end_workers(self._train_loop)


def _end_workers(loop: Any) -> None:
    """Stop persistent data workers now: garbage collection would break their queue first and then wait for seconds."""
    for owner in (getattr(loop, "dataloader", None), getattr(loop, "dataloader_iterator", None)):
        iterator: Any = getattr(owner, "_iterator", None)
        if hasattr(iterator, "_shutdown_workers"):
            iterator._shutdown_workers()
            owner._iterator = None  # type: ignore[union-attr]  # the next pass starts new ones


@contextmanager
def working_on(device: str | None) -> Iterator[None]:
    """Let MMEngine, and with it this package, work on a device inside the block.

    Args:
        device: 'cpu' or an accelerator such as 'cuda'; None takes the one that is there.

    Raises:
        ValueError: there is no such device.
    """
    found = mmengine.device.utils.DEVICE
    if device is not None and device not in ("cpu", found):
        raise ValueError(f"device={device!r}: this machine has {found}; give {found!r}, 'cpu', or None.")
    mmengine.device.utils.DEVICE = device or found
    try:
        yield
    finally:
        mmengine.device.utils.DEVICE = found


def check_settings(settings: Mapping[str, Any]) -> None:
    """Check what is passed on to MMEngine's runner.

    Args:
        settings: {key of ``PASSED_ON``, or 'val_interval': value}.

    Raises:
        ValueError: a value of another kind, or a hook or visualizer that nobody registered.
    """
    every, level = settings.get("val_interval"), settings.get("log_level", "ERROR")
    if every is not None and (not isinstance(every, int) or isinstance(every, bool) or every < 1):
        raise ValueError(f"val_interval={every!r}; give a number of rounds from 1, or None.")
    if not isinstance(level, int) and not isinstance(getattr(logging, str(level), None), int):
        raise ValueError(f"log_level={level!r}; give DEBUG, INFO, WARNING, ERROR or CRITICAL.")
    for key in ("default_hooks", "env_cfg", "log_processor"):
        if not isinstance(settings.get(key, {}), Mapping | None):
            raise ValueError(f"{key}={settings[key]!r}; it must be a dict.")
    custom, scope = settings.get("custom_hooks", []), settings.get("default_scope")
    if not isinstance(custom, list | tuple):
        raise ValueError(f"custom_hooks={custom!r}; it must be a list of dicts with 'type'.")
    named = [("custom_hooks", hook) for hook in custom]
    named += [(f"default_hooks.{key}", hook) for key, hook in (settings.get("default_hooks") or {}).items() if hook]
    for where, hook in named:
        _check_registered(hook, HOOKS, where, scope)
    if settings.get("visualizer") is not None:
        _check_registered(settings["visualizer"], VISUALIZERS, "visualizer", scope)


def _check_registered(spec: Any, registry: Registry[Any], where: str, scope: str | None) -> None:
    kind = spec.get("type") if isinstance(spec, Mapping) else None
    if isinstance(kind, str):
        try:
            registry.get(kind if scope is None or "." in kind or kind in registry else f"{scope}.{kind}")
        except ValueError as error:
            raise ValueError(f"{where}.type: {error}") from error
    elif not callable(kind):
        raise ValueError(f"{where} is {spec!r}; give a dict whose type is a {registry.kind}, by name or class.")


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
    settings = copy.deepcopy(dict(settings))  # MMEngine writes into them, and the next run gets them too
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
        # newer versions of PyTorch announce another name, which older ones do not know
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        config["model_wrapper_cfg"] = {
            "type": "MMDistributedDataParallel",
            "device_ids": None,
            "broadcast_buffers": False,
            "find_unused_parameters": find_unused_parameters,
        }
    return config


def _default_hooks(given: Mapping[str, Any], by_epoch: bool) -> dict[str, Any]:
    """A user's hooks. In a run of iterations the logger counts those: by epoch every validation would be at step 0."""
    hooks = {"timer": {"type": "SteadyTimerHook"}, **given}
    logger = hooks.get("logger", {"type": "LoggerHook"})
    if not by_epoch and isinstance(logger, Mapping) and logger.get("type") in ("LoggerHook", LoggerHook):
        hooks["logger"] = {"log_metric_by_epoch": False, **logger}
    return hooks


def _with_scope(value: Any) -> Any:
    """A runner's config in which the types of this package say so: MMEngine looks for the others in its own scope."""
    if isinstance(value, list | tuple):
        return type(value)(_with_scope(item) for item in value)
    if not isinstance(value, Mapping):
        return value
    found = {key: _with_scope(item) for key, item in value.items()}
    for key in ("type", "constructor"):
        if isinstance(kind := found.get(key), str) and any(kind in registry for registry in BUILT):
            found[key] = f"{SCOPE}.{kind}"
    return found


def build_runner(config: Mapping[str, Any], **live: Any) -> QuietRunner:
    """Build the runner of a config, by ``Runner.from_cfg`` or from objects that no config can hold.

    Args:
        config: as ``mmengine.runner.Runner.from_cfg`` takes it; ``filename`` names the copy kept in its work_dir.
        **live: objects in place of entries of the config: a model, a data loader, an optimizer wrapper.

    Returns:
        The runner; ``train()`` starts it.
    """
    keep_freed_memory()
    plain = dict(config) if config.get("default_scope", SCOPE) == SCOPE else _with_scope(dict(config))
    name = plain.pop("filename", None)
    kept = Config(plain, cfg_text="# composed, not read from a file" if name else None, filename=name)
    if not live:
        runner: QuietRunner = QuietRunner.from_cfg(kept)
        return runner
    known = inspect.signature(Runner.__init__).parameters
    return QuietRunner(**{key: value for key, value in plain.items() if key in known}, **live, cfg=kept)
