"""Training of the shared base and of experts, through MMEngine's runner."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from mmengine.dist import barrier, get_world_size, is_main_process
from mmengine.hooks import Hook
from torch.utils.data import DataLoader, Dataset, default_collate

from symerge_dense.datasets.samplers import EpochSampler
from symerge_dense.engine.checkpointing import CheckpointPolicy
from symerge_dense.engine.optim_wrapper import optim_wrapper
from symerge_dense.engine.processes import join_processes
from symerge_dense.engine.runner import build_runner, runner_config
from symerge_dense.experts.recipe import Recipe
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.models.weight_files import state_hash


def fit(
    model: MultiTaskModel,
    dataset: Dataset[Any],
    recipe: Recipe,
    work_dir: str | Path,
    *,
    title: str,
    seed: int,
    launcher: str = "none",
    resume: bool = True,
    hooks: Sequence[Hook] = (),
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> Path | None:
    """Train a network in place, and leave it in evaluation mode.

    Args:
        model: the network.
        dataset: gives samples with an ``image`` and a target for each of the model's tasks.
        recipe: the training options.
        work_dir: holds a folder of checkpoints while the run is unfinished; the folder is removed at the end.
        title: shown at the progress bar, such as 'expert depth'; names the folder of checkpoints.
        seed: of everything random.
        launcher: 'none', 'pytorch' or 'slurm'.
        resume: continue an interrupted run with the same settings; the result is that of an unbroken run.
        hooks: further MMEngine hooks.
        settings: keys of MMEngine's runner that are passed on, see ``engine.runner.PASSED_ON``.

    Returns:
        The checkpoint from which the run continued; None where it started anew.

    Raises:
        NonFiniteLoss: a loss is not finite; raised before the optimizer step.
        ValueError: the data set is empty, or ``work_dir`` holds an unfinished run with other settings.
    """
    join_processes(launcher)
    folder = Path(work_dir) / f"unfinished-{re.sub(r'[^A-Za-z0-9]+', '-', title)}"
    policy = CheckpointPolicy(folder, 1, True, _fingerprint(model, dataset, recipe, seed), resume)
    loader = _loader(dataset, recipe, seed)
    average = [{"type": "AverageHook", "decay": recipe.ema}] if recipe.ema else []
    config = runner_config(folder, policy, title=title, seed=seed, launcher=launcher, hooks=average, settings=settings)
    config |= {
        "param_scheduler": recipe.schedulers(len(loader)),
        "train_cfg": {"type": "TrainLoop", "max_epochs": recipe.epochs, "max_iters": recipe.iterations(len(loader))},
    }
    runner = build_runner(
        config,
        model=model,
        train_dataloader=loader,
        optim_wrapper=optim_wrapper(recipe.build_optimizer(model), recipe.amp),
    )
    for hook in hooks:
        runner.register_hook(hook)
    runner.train()
    model.eval()
    barrier()
    if is_main_process():
        _tidy(folder)
    return Path(config["load_from"]) if config["load_from"] else None


def _fingerprint(model: MultiTaskModel, dataset: Any, recipe: Recipe, seed: int) -> str:
    """Hash of everything that decides the result of the run."""
    later = {"layer_decay": 1.0, "ema": 0.0}  # options that earlier versions lacked count where they are used
    options = dataclasses.asdict(recipe).items()
    numbers = {key: value for key, value in options if key != "num_workers" and (key, value) not in later.items()}
    try:
        network = model.spec
    except ValueError:  # a head is an object without spec
        network = model.frame
    text = json.dumps([network, len(dataset), numbers, seed, get_world_size(), state_hash(model.state_dict())])
    return hashlib.sha256(text.encode()).hexdigest()


def _loader(dataset: Any, recipe: Recipe, seed: int) -> DataLoader[Any]:
    if len(dataset) == 0:
        raise ValueError("the data set has no images to train on; check its root and split.")
    sampler = EpochSampler(dataset, shuffle=True, seed=seed)
    return DataLoader(
        dataset,
        recipe.batch_size,
        sampler=sampler,
        num_workers=recipe.num_workers,
        collate_fn=default_collate,
        drop_last=len(sampler) > recipe.batch_size,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=recipe.num_workers > 0,
    )


def _tidy(folder: Path) -> None:
    """Remove the finished run's checkpoints and MMEngine's log, and the work folder if it is empty then."""
    shutil.rmtree(folder)
    if not any(folder.parent.iterdir()):
        folder.parent.rmdir()
