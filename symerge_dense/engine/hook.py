"""SyMergeHook: where the method meets MMEngine's runner.

| when | stage | done by |
|---|---|---|
| before_train | attach experts: task vectors | Student.attach |
| | expert labels: cached once, or asked online | engine.expert_labels |
| | bring the losses to one scale | engine.balance |
| before_train_iter | choose the tasks of the step | engine.balance.task_of, Student.before_step |
| after_train_iter | project coefficients, log | Student.after_step, engine.history |
| before_val, after_val | fold and re-estimate BatchNorm; undo both | engine.folding |
| before_save_checkpoint | keep coefficients, adapted layers, statistics | Student.slim_state |
| after_load_checkpoint | complete a slim checkpoint | |
| after_train | fold, re-estimate BatchNorm: the model is merged | |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import Tensor

from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.engine.balance import initial_scale, task_of
from symerge_dense.engine.expert_labels import OnlineLabels, write_labels
from symerge_dense.engine.folding import deliver, folded, image_batches
from symerge_dense.engine.history import History
from symerge_dense.engine.student import Student
from symerge_dense.experts.model import MultiTaskModel


class SyMergeHook(Hook):
    """Lets a Student learn from the experts; see the module's stage table.

    Args:
        experts: {task: model}, in the order of the model's tasks. pool: unlabelled images. folder: the run's folder;
        the curve goes to ``folder/history.jsonl``. labels: folder of the experts' cached labels.
    """

    priority = "ABOVE_NORMAL"

    def __init__(self, experts: Mapping[str, MultiTaskModel], pool: Unlabelled, folder: Path, labels: Path) -> None:
        self.experts, self.pool, self.labels = experts, pool, labels
        self.history = History(folder / "history.jsonl")
        self._validation = ExitStack()

    def before_train(self, runner: Any) -> None:
        """Attach experts, prepare labels, scale losses."""
        model = unwrap(runner)
        experts = {task: self.experts[task].eval() for task in model.model.tasks}
        model.attach(experts)
        if model.options.labels == "cached":
            write_labels(experts, self.pool, self.labels, model.options.batch_size)
            for expert in experts.values():
                expert.cpu()  # nobody asks them again: an accelerator's memory is for the task vectors
            self.experts = {}
        else:
            model.labeller = OnlineLabels(experts)
        if runner.iter == 0:
            self._start(model, runner)
        if get_rank() == 0:
            self.history.cut(runner.iter)

    def _start(self, model: Student, runner: Any) -> None:
        """What an unbroken run does once: a resumed one finds it in its checkpoint."""
        if model.options.statistics == "running":
            deliver(model, self._images(model))
            model.unfold()
        if model.options.balance == "initial":
            model.loss_scale.mul_(initial_scale(model, runner.train_dataloader.dataset))

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """All tasks, or the one whose turn it is."""
        model = unwrap(runner)
        if model.options.schedule == "per_task":
            model.active = [task_of(runner.iter, list(model.model.tasks), runner.seed)]
        model.before_step(runner.iter, runner.max_iters)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """What the model does after a step; log."""
        model = unwrap(runner)
        model.after_step()
        values = {key: value for key, value in (outputs or {}).items() if key.startswith(("loss_", "distance_"))}
        if get_rank() == 0:
            self.history.add(runner.iter, values | model.watched())

    def before_val(self, runner: Any) -> None:
        """Evaluate the merged model as it will be delivered."""
        model = unwrap(runner)
        model.active = list(model.model.tasks)  # 'per_task' left it at one
        self._validation.enter_context(folded(model, self._images(model)))

    def after_val(self, runner: Any) -> None:
        """Go on adapting as if nothing had happened."""
        self._validation.close()

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Save what a step can change, not the frozen network."""
        self.history.flush()
        kept = unwrap(runner).slim_state()
        checkpoint["state_dict"] = {name: checkpoint["state_dict"][name] for name in kept}

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Complete a slim checkpoint with the frozen network of this run."""
        checkpoint["state_dict"] = {**unwrap(runner).state_dict(), **checkpoint["state_dict"]}

    def after_train(self, runner: Any) -> None:
        """Leave the merged model behind: folded, BatchNorm re-estimated."""
        self.history.flush()
        model = unwrap(runner)
        deliver(model, self._images(model))

    def _images(self, model: Student) -> Iterator[Tensor]:
        options = model.options
        return image_batches(self.pool, options.recalibration_images, options.batch_size, model.device)


def unwrap(runner: Any) -> Student:
    """The runner's model without a DDP wrapper."""
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    assert isinstance(model, Student)
    return model
