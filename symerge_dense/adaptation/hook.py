"""SyMergeHook: where the method meets MMEngine's runner.

| when | stage | done by |
|---|---|---|
| before_run | attach the teacher, make room for averages | Teacher.attach, adaptation.averaging |
| before_train | attach experts: task vectors | Student.attach |
| | expert labels: cached once, or computed in every step | adaptation.label_cache, adaptation.expert_labels |
| | fix BatchNorm's statistics, scale the losses, as the options say | finalize, initial_scale |
| | save memory or time, as the options say | adaptation.acceleration |
| before_train_iter | choose the tasks of the step, and what is mixed | task_of, CutMix, Student.before_step |
| after_train_iter | project coefficients, average, log | Student.after_step, adaptation.averaging, history |
| | tell the teacher of the new weights | Teacher.after_step |
| before_val, after_val | fold, re-estimate BatchNorm unless it is fixed; undo both | adaptation.finalize |
| before_save_checkpoint | keep coefficients, adapted layers, averages, statistics | Student.trainable_state_dict |
| after_load_checkpoint | complete a slim checkpoint | |
| after_train | fold, re-estimate BatchNorm unless it is fixed: the model is merged | |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import default_collate
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import Tensor

from symerge_dense.adaptation.acceleration import accelerate, check_acceleration, restore
from symerge_dense.adaptation.averaging import average_of
from symerge_dense.adaptation.cutmix import CutMix
from symerge_dense.adaptation.expert_labels import CachedLabels, MarkedImages, OnlineLabels, labelled_images
from symerge_dense.adaptation.finalize import finalize, finalized, image_batches
from symerge_dense.adaptation.history import History
from symerge_dense.adaptation.label_cache import write_labels
from symerge_dense.adaptation.objective import SMALLEST, task_of
from symerge_dense.adaptation.strong_views import StrongViews
from symerge_dense.adaptation.student import Student
from symerge_dense.adaptation.uncertainty import variance_layers
from symerge_dense.datasets.transforms import Augment
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.engine.sharpness import SharpnessAware
from symerge_dense.models.checkpoint import save_model
from symerge_dense.models.modes import left_alone
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.models.plugins import plugins_of
from symerge_dense.models.views import Views, check_views
from symerge_dense.registry import HOOKS

PROBE_IMAGES = 64


@torch.no_grad()
def initial_scale(model: Student, dataset: Unlabelled) -> Tensor:
    """One over each task's loss at the current weights, (T,), on up to 64 images spread evenly over those it labels.

    Every process uses the same images, so all get the same scale.

    Args:
        model: the student.
        dataset: the pool with labels attached.
    """
    labelled = np.stack([dataset.labelled_by(task) for task in model.model.tasks], axis=1)
    own = [np.flatnonzero(column) for column in labelled.T]
    spread = [images[np.linspace(0, len(images) - 1, min(len(images), PROBE_IMAGES)).astype(int)] for images in own]
    indices = np.unique(np.concatenate(spread))
    total = torch.zeros(len(model.model.tasks), device=model.device)
    model.active = list(model.model.tasks)
    batches = np.array_split(indices, max(1, len(indices) // model.options.batch_size))
    shares = torch.from_numpy(np.stack([labelled[chunk].mean(0) for chunk in batches])).to(total)  # (batches,T)
    with left_alone([model]):
        model.train()
        for chunk, share in zip(batches, shares, strict=True):
            batch = model.data_preprocessor(default_collate([dataset[int(i)] for i in chunk]))
            losses = model(**batch, mode="loss")
            total += torch.stack([losses[f"distance_{task}"] for task in model.model.tasks]) * share / shares.sum(0)
    return 1.0 / total.clamp(min=SMALLEST)


# -- the hook ---------------------------------------------------------------------------------------------------------
@HOOKS.register_module()
class SyMergeHook(Hook):
    """Trains a Student with the labels of its experts; the table at the top of this file lists the stages.

    In a config: ``custom_hooks=[dict(type='SyMergeHook')]`` beside ``model=dict(type='SyMergeModel', ...)`` and a
    ``train_dataloader`` over an ``Unlabelled`` set. The experts are the model's.

    Args:
        labels: folder of the experts' cached labels, which runs may share; None is ``labels`` in the runner's work_dir.
        history: file of the loss curve, one JSON line per iteration; None is ``history.jsonl`` in the work_dir.
        merged: ``.safetensors`` file in the work_dir for the merged model, written at the end; None writes none.
    """

    priority = "ABOVE_NORMAL"

    def __init__(self, labels: str | None = None, history: str | None = None, merged: str | None = None) -> None:
        if merged is not None and Path(merged).suffix != ".safetensors":
            raise ValueError(f"SyMergeHook(merged={merged!r}): a merged model is a .safetensors file.")
        self._labels, self._history_file, self._merged = labels, history, merged
        self._validation = ExitStack()
        self.pool: Unlabelled | None = None
        self.history: History | None = None

    def before_run(self, runner: Any) -> None:
        """Make room for averages and for what the teacher remembers: a checkpoint that is resumed from has them."""
        model = unwrap(runner)
        model.teacher.attach(model)
        if model.options.averaging != "none" and model.average is None and not model.folded:
            model.average = average_of(model, model.options)

    def before_train(self, runner: Any) -> None:
        """Attach experts, prepare labels, scale losses.

        Raises:
            ValueError: the training data are no ``Unlabelled`` set, the model has no expert for a task, or it asks for
                sharpness-aware steps and the optimizer wrapper takes plain ones, or for a compiler that is missing.
        """
        model, folder = unwrap(runner), Path(runner.work_dir)
        if model.sharpness and not isinstance(runner.optim_wrapper, SharpnessAware):
            raise ValueError(
                f"sharpness={model.sharpness:g}, but {type(runner.optim_wrapper).__name__} takes plain steps; set "
                "optim_wrapper=dict(constructor='ParameterGroupsConstructor', ...), or sharpness=0."
            )
        if self._merged is not None:
            plugins_of(model.model.spec)  # a network that no file can describe is refused before the work
        check_acceleration(model.model.backbone, model.options)
        self.history = history = History(Path(self._history_file or folder / "history.jsonl"))
        experts = self._attach(runner, model)
        if model.options.labels == "cached":
            self._cache(model, experts, Path(self._labels or folder / "labels"), runner.seed)
        else:
            model.labeller = self._online(model, experts)
        if runner.iter == 0:
            self._start(model, runner)
        accelerate(model.model.backbone, model.options)
        if get_rank() == 0:
            history.cut(runner.iter)

    def _attach(self, runner: Any, model: Student) -> dict[str, MultiTaskModel]:
        """The experts, whose task vectors the model has from now on; the pool is known."""
        self.pool = _pool_of(runner)
        self.pool.check_tasks(list(model.model.tasks))
        model.teacher.check_pool(self.pool, list(model.model.tasks))
        height, width = self.pool.image(0).shape[-2:]
        model.teacher.check_size(model.model.backbone, (height, width))
        experts = {task: model.expert_of(task).eval() for task in model.model.tasks}
        model.scratch = Path(runner.work_dir)
        model.attach(experts)
        return experts

    def _cache(self, model: Student, experts: Mapping[str, MultiTaskModel], folder: Path, seed: int) -> None:
        assert self.pool is not None, "_attach comes first"
        height, width = self.pool.image(0).shape[-2:]
        size, options = model.model.backbone.padded_size(height, width), model.options
        strong = StrongViews(options.strong, size) if options.strong is not None else None
        if strong is not None:
            strong.check(model.model.tasks)
        folder = write_labels(experts, self.pool, folder, model.options.batch_size, Views.of(model.options.views))
        for expert in experts.values():
            expert.cpu()  # nobody asks them again: an accelerator's memory is for the task vectors
        model.experts = {}
        augment = Augment(**model.options.augment) if model.options.augment is not None else None
        valid, cut = labelled_images(self.pool, model.model.tasks), options.cutmix > 0
        clean = options.teacher != "experts"  # it looks at images itself
        layers = {**model.model.tasks, **variance_layers(model.model.tasks, options)}
        self.pool.attach(CachedLabels(folder, layers, augment, seed, size, valid, strong, cut, clean))

    def _online(self, model: Student, experts: Mapping[str, MultiTaskModel]) -> OnlineLabels:
        assert self.pool is not None, "_attach comes first"
        views = Views.of(model.options.views)
        if views is not None:
            height, width = self.pool.image(0).shape[-2:]
            check_views(views, model.model.backbone, model.model.tasks, (height, width))
        if valid := labelled_images(self.pool, model.model.tasks):
            self.pool.attach(MarkedImages(valid))
        return OnlineLabels(experts, views)

    def _start(self, model: Student, runner: Any) -> None:
        """Done once, at the start of a run: a resumed run finds the results in its checkpoint."""
        if model.options.statistics == "running":
            finalize(model, self._images(model))
            model.unfold()
            model.statistics_fixed.fill_(True)
        if model.options.balance == "initial":
            model.loss_scale.mul_(initial_scale(model, runner.train_dataloader.dataset))

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Choose the tasks of the step: all, or the one whose turn it is."""
        model = unwrap(runner)
        if model.options.schedule == "per_task":
            model.active = [task_of(runner.iter, list(model.model.tasks), runner.seed)]
        model.progress = runner.iter / runner.max_iters
        if model.options.cutmix:
            model.mix = CutMix(model.options.cutmix, (runner.seed, runner.iter, get_rank()))
        model.before_step(runner.iter, runner.max_iters)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Let the model finish its step, and log."""
        model = unwrap(runner)
        model.after_step()
        model.mix = None
        if model.average is not None:
            model.average.after_step(runner.iter, runner.max_iters)
        model.teacher.after_step(model, runner.iter)
        values = {key: value for key, value in (outputs or {}).items() if key.startswith(("loss_", "distance_"))}
        if get_rank() == 0:
            assert self.history is not None, "before_train comes first"
            self.history.add(runner.iter, values | model.log_scalars() | model.teacher.log_scalars())

    def before_val(self, runner: Any) -> None:
        """Evaluate the merged model in its final form."""
        model = unwrap(runner)
        if self.pool is None:  # a checkpoint is looked at without training
            self._attach(runner, model)
        model.active = list(model.model.tasks)  # 'per_task' left it at one
        self._validation.enter_context(finalized(model, self._images(model)))

    def after_val(self, runner: Any) -> None:
        """Go on adapting as if nothing had happened."""
        self._validation.close()

    def before_test(self, runner: Any) -> None:
        """Evaluate the merged model in its final form."""
        self.before_val(runner)

    def after_test(self, runner: Any) -> None:
        """Leave the model as it was."""
        self.after_val(runner)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Save what a step can change, not the frozen network."""
        self.close()
        kept = unwrap(runner).trainable_state_dict()
        checkpoint["state_dict"] = {name: checkpoint["state_dict"][name] for name in kept}

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Complete a slim checkpoint with the frozen network of this run."""
        checkpoint["state_dict"] = {**unwrap(runner).state_dict(), **checkpoint["state_dict"]}

    def after_train(self, runner: Any) -> None:
        """Leave the merged model behind: folded, BatchNorm re-estimated."""
        self.close()
        model = unwrap(runner)
        restore(model.model.backbone)
        finalize(model, self._images(model))
        model.average = None  # it has taken its place
        if self._merged is not None and get_rank() == 0:
            save_model(Path(runner.work_dir) / self._merged, model.model)

    def close(self) -> None:
        """Write the last rows, which tell why a run stopped; called however training ends."""
        if self.history is not None:
            self.history.flush()

    def _images(self, model: Student) -> Iterator[Tensor]:
        options = model.options
        assert self.pool is not None, "_attach comes first"
        return image_batches(self.pool, options.recalibration_images, options.batch_size, model.device)


def unwrap(runner: Any) -> Student:
    """The runner's model, without a DDP wrapper.

    Args:
        runner: MMEngine's.

    Raises:
        ValueError: the model is no Student.
    """
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    if not isinstance(model, Student):
        raise ValueError(
            f"SyMergeHook works on a model that learns from experts, not on {type(model).__name__}; use "
            "model=dict(type='SyMergeModel', base=..., experts={task: checkpoint})."
        )
    return model


def _pool_of(runner: Any) -> Unlabelled:
    data = runner.train_dataloader.dataset
    if not isinstance(data, Unlabelled):
        raise ValueError(
            f"SyMergeHook learns from unlabelled images, not from {type(data).__name__}; use "
            "train_dataloader=dict(dataset=dict(type='Unlabelled', dataset=dict(...)), ...)."
        )
    return data
