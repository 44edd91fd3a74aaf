"""One call from experts to a merged model: MMEngine's runner, the hook, and what is written at the end."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from mmengine.dist import get_world_size
from mmengine.optim import CosineAnnealingLR
from torch.utils.data import DataLoader, default_collate

from symerge_dense.datasets.sampling import PoolSampler
from symerge_dense.datasets.transforms import Augment
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.engine.expert_labels import LabelledPool
from symerge_dense.engine.hook import SyMergeHook
from symerge_dense.engine.options import SyMergeOptions
from symerge_dense.engine.student import Student
from symerge_dense.experts.checkpoint import state_hash
from symerge_dense.experts.hooks import quiet_runner
from symerge_dense.experts.model import MultiTaskModel
from symerge_dense.experts.optim import optim_wrapper

M = TypeVar("M", bound=Student)


def iterations(options: SyMergeOptions, tasks: int) -> int:
    """Optimizer steps of a run: one a round, or one a round and task."""
    return options.rounds * (tasks if options.schedule == "per_task" else 1)


def _loader(model: Student, pool: Unlabelled, labels: Path, seed: int) -> DataLoader[Any]:
    options, processes = model.options, get_world_size()
    if options.batch_size % processes:
        raise ValueError(f"adaptation.batch_size={options.batch_size} cannot be shared by {processes} processes; "
                         "use a multiple.")
    if options.batch_size // processes < 2 and options.statistics == "batch":
        raise ValueError(f"adaptation.batch_size={options.batch_size} leaves each of {processes} processes one image, "
                         "which has no batch statistics; use a larger batch, or adaptation.statistics='running'.")
    augment = Augment(**options.augment) if options.augment is not None else None
    online = options.labels == "online"
    dataset: Any = pool if online else LabelledPool(pool, labels, model.model.tasks, augment, seed)
    return DataLoader(dataset, options.batch_size // processes, sampler=PoolSampler(dataset, seed=seed),
                      collate_fn=default_collate, num_workers=options.num_workers,
                      persistent_workers=options.num_workers > 0, pin_memory=torch.cuda.is_available())


def _fingerprint(model: Student, experts: Mapping[str, MultiTaskModel]) -> str:
    """Of what a resumed run must share with the interrupted one."""
    hashes = [f"{task}:{state_hash(expert.state_dict())}" for task, expert in experts.items()]
    return hashlib.sha256(repr((type(model).__name__, model.options, hashes)).encode()).hexdigest()


def adapt(model: M, experts: Mapping[str, MultiTaskModel], pool: Unlabelled, folder: Path, *, seed: int = 0,
          launcher: str = "none", resume: bool = False, validation: dict[str, Any] | None = None,
          labels: Path | None = None, title: str = "SyMerge") -> M:
    """Optimise on ``pool`` what of ``model`` learns; it comes back folded, BatchNorm re-estimated.

    Args:
        model: base weights and experts' heads. experts: {task: expert model}, asked for task vectors and labels.
        folder: checkpoints and the loss curve go here. resume: go on from the newest checkpoint in it.
        labels: folder of the experts' cached labels, which runs may share; by default ``folder / 'labels'``.
        title: shown at the progress bar.
        validation: Runner arguments ``val_dataloader``, ``val_cfg``, ``val_evaluator`` and ``val_interval`` to watch
        labelled metrics on the way (nothing is learned from them).
    Raises NonFiniteLoss (a ValueError) when a loss is not finite; the last checkpoint before it is kept.
    """
    options, extra, labels = model.options, dict(validation or {}), labels or folder / "labels"
    steps = iterations(options, len(model.model.tasks))
    train_cfg = {"by_epoch": False, "max_iters": steps, "val_interval": extra.pop("val_interval", 10**9)}
    optimizer = torch.optim.Adam(model.parameter_groups())
    decay = {"type": CosineAnnealingLR, "T_max": steps, "eta_min": 0.0, "by_epoch": False}
    hook = SyMergeHook(experts, pool, folder, labels)
    runner = quiet_runner(
        model, folder / "checkpoints", title=title, seed=seed, launcher=launcher, resume=resume,
        train_dataloader=_loader(model, pool, labels, seed), train_cfg=train_cfg,
        param_scheduler=[decay] if options.lr_decay == "cosine" else None,
        optim_wrapper=optim_wrapper(optimizer, options.amp),
        hooks=[hook], fingerprint=_fingerprint(model, experts),
        save_every=options.save_every * steps // options.rounds, by_epoch=False,
        find_unused_parameters=options.schedule == "per_task", **extra)
    with hook.history:  # writes its rows also where the run stops by an exception
        runner.train()
    return model
