"""From experts to a merged model through MMEngine: the config of the run and its runner."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from mmengine.dist import get_world_size
from torch.utils.data import DataLoader, default_collate

from symerge_dense.adaptation.hook import unwrap
from symerge_dense.adaptation.options import NO_NUMBER, SyMergeOptions, make_options
from symerge_dense.adaptation.student import Student
from symerge_dense.datasets.samplers import PoolSampler
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.engine.checkpointing import CheckpointPolicy
from symerge_dense.engine.optim_wrapper import wrapper_type
from symerge_dense.engine.runner import build_runner, runner_config
from symerge_dense.models.checkpoint import state_hash
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.registry import DATASETS, imported

CONFIG_NAME = "adaptation.py"  # the MMEngine config of an adaptation, in the folder of its run


def iterations(options: SyMergeOptions, tasks: int) -> int:
    """Optimizer steps of a run: one per round, or one per round and task.

    Args:
        options: of the adaptation.
        tasks: number of tasks.
    """
    return options.rounds * (tasks if options.schedule == "per_task" else 1)


def adapt(
    model: Student | Mapping[str, Any],
    experts: Mapping[str, MultiTaskModel],
    pool: Unlabelled | Mapping[str, Any],
    folder: Path,
    *,
    seed: int = 0,
    launcher: str = "none",
    resume: bool = False,
    validation: Mapping[str, Any] | None = None,
    labels: Path | None = None,
    title: str = "SyMerge",
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> Student:
    """Train the learnable parts of a student on unlabelled images, then fold it and re-estimate BatchNorm.

    If model and pool are config dicts, the run is ``Runner.from_cfg`` of a plain MMEngine config, which is kept as
    ``folder/adaptation.py`` and can be run again by any tool of MMEngine. Objects are used in place.

    Args:
        model: a student with base weights and experts' heads, or the dict that builds one (``SyMergeModel``).
        experts: {task: expert}; they give task vectors and labels.
        pool: the unlabelled images, or the dict that builds the ``Unlabelled`` set.
        folder: of checkpoints, the loss curve and MMEngine's log.
        seed: of everything random.
        launcher: 'none', 'pytorch' or 'slurm'.
        resume: continue from the newest checkpoint in ``folder``.
        validation: runner arguments ``val_dataloader``, ``val_evaluator`` and ``val_interval`` (in rounds) to log
            labelled metrics on the way; nothing is learned from them.
        labels: folder of the experts' cached labels, which runs may share; by default ``folder / 'labels'``.
        title: shown at the progress bar.
        settings: keys of MMEngine's runner that are passed on, see ``engine.runner.PASSED_ON``.

    Returns:
        The student; its ``model`` is the merged network.

    Raises:
        NonFiniteLoss: a loss is not finite (a ValueError); the last checkpoint before it is kept.
        ValueError: the batch cannot be split among the processes, or a checkpoint belongs to another run.
    """
    options = model.options if isinstance(model, Student) else make_options(**model["options"])
    kind = type(model).__name__ if isinstance(model, Student) else str(model["type"])
    steps = iterations(options, len(experts))
    policy = CheckpointPolicy(
        folder / "checkpoints",
        options.save_every * steps // options.rounds,
        by_epoch=False,
        fingerprint=_fingerprint(kind, options, experts),
        resume=resume,
    )
    hook = {"type": "SyMergeHook", "labels": str(labels or folder / "labels"), "history": str(folder / "history.jsonl")}
    config = runner_config(
        folder,
        policy,
        title=title,
        seed=seed,
        launcher=launcher,
        hooks=[hook],
        find_unused_parameters=options.schedule == "per_task",
        settings=settings,
    )
    watched = dict(validation or {})
    config |= _schedule(options, steps, watched.pop("val_interval", None))
    loading = data_loading(options)
    if isinstance(model, Student) or isinstance(pool, Unlabelled):
        if isinstance(model, Student):
            model.experts = dict(experts)
        runner = build_runner(config, model=model, train_dataloader=_loader(pool, loading, seed), **watched)
    else:
        sampler = {"type": "PoolSampler", "seed": seed}
        data = {**loading, "dataset": dict(pool), "sampler": sampler, "collate_fn": {"type": "default_collate"}}
        described = {"filename": CONFIG_NAME, "model": dict(model), "train_dataloader": data}
        runner = build_runner({**config, **watched, **described, **_custom_imports()})
    runner.train()
    return unwrap(runner)


def _schedule(options: SyMergeOptions, steps: int, val_interval: int | None) -> dict[str, Any]:
    """Loop, optimizer and learning-rate schedule; ``val_interval`` is in rounds, None never validates."""
    rounds = val_interval or 10**9
    schedule: dict[str, Any] = {
        "train_cfg": {"by_epoch": False, "max_iters": steps, "val_interval": rounds * steps // options.rounds},
        "optim_wrapper": {
            "type": wrapper_type(options.amp),
            "constructor": "ParameterGroupsConstructor",
            "optimizer": {"type": "Adam"},
        },
    }
    if schedulers := learning_rates(options, steps):
        schedule["param_scheduler"] = schedulers
    return schedule


def learning_rates(options: SyMergeOptions, steps: int) -> list[dict[str, Any]]:
    """MMEngine's schedulers of the learning rates: a rise over the first steps, then the fall to 0 at the last.

    Args:
        options: of the adaptation.
        steps: of the run.
    """
    rise, found = int(options.warmup * steps), []
    if rise:  # 1, 2, ... of rise + 1 parts, and all at step ``rise``
        found.append({"type": "LinearLR", "start_factor": 1 / (rise + 1), "end": rise + 1, "by_epoch": False})
    begin = {"begin": rise} if rise else {}
    if options.lr_decay == "cosine":
        found.append({"type": "CosineAnnealingLR", "T_max": steps - rise, "eta_min": 0.0, "by_epoch": False, **begin})
    if options.lr_decay == "linear":
        fall = {"start_factor": 1.0, "end_factor": 0.0, "end": steps + 1}
        found.append({"type": "LinearLR", **fall, "by_epoch": False, **begin})
    return found


def data_loading(options: SyMergeOptions) -> dict[str, Any]:
    """Arguments of the pool's data loader in one of the processes.

    Args:
        options: of the adaptation.

    Raises:
        ValueError: the processes cannot share the batch.
    """
    processes = get_world_size()
    if options.batch_size % processes:
        raise ValueError(
            f"adaptation.batch_size={options.batch_size} cannot be shared by {processes} processes; use a multiple."
        )
    if options.batch_size // processes < 2 and options.statistics == "batch":
        raise ValueError(
            f"adaptation.batch_size={options.batch_size} leaves each of {processes} processes one image, "
            "which has no batch statistics; use a larger batch, or adaptation.statistics='running'."
        )
    return {
        "batch_size": options.batch_size // processes,
        "num_workers": options.num_workers,
        "persistent_workers": options.num_workers > 0,
        "pin_memory": torch.cuda.is_available(),
    }


def _loader(pool: Unlabelled | Mapping[str, Any], loading: Mapping[str, Any], seed: int) -> DataLoader[Any]:
    dataset = pool.fresh() if isinstance(pool, Unlabelled) else DATASETS.build({"type": "Unlabelled", **pool})
    return DataLoader(dataset, sampler=PoolSampler(dataset, seed=seed), collate_fn=default_collate, **loading)


def _fingerprint(kind: str, options: SyMergeOptions, experts: Mapping[str, MultiTaskModel]) -> str:
    """Hash of everything that a resumed run must share with the interrupted one: what its result depends on."""
    defaults = vars(SyMergeOptions())
    options = dataclasses.replace(options, **{name: defaults[name] for name in NO_NUMBER})
    hashes = [f"{task}:{state_hash(expert.state_dict())}" for task, expert in experts.items()]
    return hashlib.sha256(repr((kind, options, hashes)).encode()).hexdigest()


def _custom_imports() -> dict[str, Any]:
    """Plug-ins that were imported, as MMEngine's configs name them: by their modules, without ':head'."""
    modules = list(dict.fromkeys(name.partition(":")[0] for name in imported))
    return {"custom_imports": {"imports": modules}} if modules else {}
