"""What the adaptation minimises: for every task its own loss between the merged model's output and its target.

Where the options ask for it, and the task predicts a distribution, it is the entropy of the model's output instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import numpy as np
import torch
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor

from symerge_dense.adaptation.options import SyMergeOptions
from symerge_dense.tasks.base import DenseTask

PREFIX, VALID = "label_", "valid_"  # of a batch's keys, before the name of a task
EVEN: Mapping[str, Tensor] = MappingProxyType({})  # weights of pixels that are all alike
SMALLEST = 1e-6  # of a loss that an expert-identical start leaves at zero


def task_of(iteration: int, tasks: list[str], seed: int) -> str:
    """The task of an iteration of the 'per_task' schedule; every round has all tasks, in a random order.

    Args:
        iteration: its number, from 0.
        tasks: all tasks.
        seed: of the orders.
    """
    order = np.random.default_rng((seed, iteration // len(tasks))).permutation(len(tasks))
    return tasks[int(order[iteration % len(tasks)])]


def labels_in(batch: Mapping[str, Tensor], tasks: Iterable[str]) -> dict[str, Tensor]:
    """The cached labels {task: (N,C,h,w)} of a batch.

    Args:
        batch: of the data loader; labels are called ``label_<task>``.
        tasks: whose labels.

    Raises:
        ValueError: the batch has no label of a task.
    """
    wanted = list(tasks)
    if any(PREFIX + task not in batch for task in wanted):
        raise ValueError("the batch has no labels of experts; add dict(type='SyMergeHook') to custom_hooks.")
    return {task: batch[PREFIX + task] for task in wanted}


def valid_in(batch: Mapping[str, Tensor], tasks: Iterable[str]) -> dict[str, Tensor]:
    """Where the labels of a batch count, {task: bool (N,h,w) or (N,1,1)}; a task that is not in it: everywhere.

    Args:
        batch: of the data loader; the maps are called ``valid_<task>``.
        tasks: whose maps.
    """
    return {task: batch[VALID + task] for task in tasks if VALID + task in batch}


def own_images(batch: Mapping[str, Tensor], tasks: Iterable[str]) -> dict[str, Tensor]:
    """Which images of a batch have a label of a task, {task: bool (N,)}; a task that is not in it: all.

    Args:
        batch: of the data loader, see ``valid_in``.
        tasks: whose images.
    """
    return {task: known.flatten(1).any(1) for task, known in valid_in(batch, tasks).items()}


def task_losses(
    tasks: Mapping[str, DenseTask],
    outputs: Mapping[str, Tensor],
    labels: Mapping[str, Tensor],
    options: SyMergeOptions,
    weights: Mapping[str, Tensor] = EVEN,
    valid: Mapping[str, Tensor] = EVEN,
) -> dict[str, Tensor]:
    """Loss of each task between the merged output and the teacher's, both raw and at head resolution.

    Args:
        tasks: {task: its rules}.
        outputs: {task: (N,C,h,w)} of the merged model.
        labels: {task: (N,C,h,w)} of the experts or another teacher, for all tasks of ``outputs``.
        options: of the adaptation.
        weights: {task: (N,h,w)} of the pixels; a task without them weighs all alike.
        valid: {task: bool (N,h,w) or (N,1,1)}, where its label counts; a task that is not in it has labels everywhere.

    Returns:
        {task of ``outputs``: scalar}.
    """
    return {
        task: distance(
            tasks[task],
            output,
            labels[task].to(output.device, torch.float32),
            options,
            weights.get(task),
            valid.get(task),
        )
        for task, output in outputs.items()
    }


def distance(
    task: DenseTask,
    output: Tensor,
    expert_output: Tensor,
    options: SyMergeOptions,
    weight: Tensor | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    """Loss of one task, a scalar.

    Args:
        task: its rules.
        output: (N,C,h,w) of the merged model, raw.
        expert_output: float32 (N,C,h,w) of the expert or another teacher, raw.
        options: ``objective``, ``soft``, ``temperature``, ``filter`` and ``class_balance`` matter.
        weight: of every pixel, (N,h,w); None weighs all alike.
        valid: bool (N,h,w) or (N,1,1), the pixels that count; None takes all.
    """
    output = output.float()
    labelled = torch.ones_like(output[:, 0], dtype=torch.bool)
    if valid is not None:
        labelled &= valid.to(output.device)
    entropy = task.entropy(output) if options.objective == "entropy" else None
    if entropy is not None:
        return entropy.mean() if valid is None else (entropy * labelled).sum() / labelled.sum().clamp(min=1)
    if options.temperature != 1 and task.entropy(output[:1, :, :1, :1]) is not None:
        output, expert_output = output / options.temperature, expert_output / options.temperature
    target = task.self_label(expert_output, soft=options.soft)
    keep = labelled
    ours, theirs = task.confidence(output.detach()), task.confidence(expert_output)
    if options.filter == "confidence" and ours is not None and theirs is not None:
        agree = task.decide(output.detach()) == task.decide(expert_output)
        keep = labelled & (agree.view_as(labelled) | (theirs >= ours))
        if get_world_size() == 1 and not keep.any():
            return output.new_zeros(())  # nothing to learn from: no gradient, no step
    rarity = task.rarity(target, options.class_balance, labelled) if options.class_balance else None
    if rarity is not None:
        weight = rarity if weight is None else rarity * weight.to(rarity)
    if weight is None:
        return task.loss(output, target, valid=keep)
    weight = weight.to(output)
    loss = task.loss(output, target, valid=keep, weight=weight)
    return loss if rarity is None or get_world_size() == 1 else loss * _share(weight, keep)


def logarithms(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Logarithm of each loss, whose gradient on several processes is that of the logarithm of their mean loss.

    Args:
        losses: {task: scalar, not negative}, of this process's images.
    """
    means = torch.stack([loss.detach() for loss in losses.values()])
    all_reduce(means, "mean")
    means = means.clamp(min=SMALLEST)
    return {
        task: mean.log() + (loss - loss.detach()) / mean
        for (task, loss), mean in zip(losses.items(), means, strict=True)
    }


def _share(weight: Tensor, keep: Tensor) -> Tensor:
    """What the pixels of this process weigh, relative to the mean over processes.

    A process that has more of the rare classes has the same part in the sum of gradients as their pixels have in the
    weighted mean over the whole batch.
    """
    own = (weight * keep).sum()
    mean = own.clone()
    all_reduce(mean, "mean")
    return own / mean.clamp(min=torch.finfo(mean.dtype).tiny)
