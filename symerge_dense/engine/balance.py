"""Which tasks a step serves, and how heavy each one's loss weighs.

Cross-entropy, metres and cosines differ by orders of magnitude; summed as they are, the smallest one starves and its
adapted layer drifts. Dividing each by its value before the first step gives all of them the same start.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmengine.dataset import default_collate
from torch import Tensor
from torch.utils.data import Dataset

from symerge_dense.engine.student import Student

PROBE_IMAGES = 64
SMALLEST = 1e-6  # of a loss that an expert-identical start leaves at zero


def task_of(iteration: int, tasks: list[str], seed: int) -> str:
    """The task served by an iteration of the 'per_task' schedule: every round serves all, in an order of its own."""
    order = np.random.default_rng((seed, iteration // len(tasks))).permutation(len(tasks))
    return tasks[int(order[iteration % len(tasks)])]


@torch.no_grad()
def initial_scale(model: Student, dataset: Dataset[dict[str, Any]]) -> Tensor:
    """One over each task's loss at the current weights, (T,), on up to 64 images spread evenly over the pool.

    Every process looks at the same images, so all get the same scale.
    """
    count = len(dataset)  # type: ignore[arg-type]  # a map-style data set has a length
    indices = np.unique(np.linspace(0, count - 1, min(count, PROBE_IMAGES)).astype(int))
    total = torch.zeros(len(model.model.tasks), device=model.device)
    mode, model.active = model.training, list(model.model.tasks)
    model.train()
    batches = np.array_split(indices, max(1, len(indices) // model.options.batch_size))
    for chunk in batches:
        batch = model.data_preprocessor(default_collate([dataset[int(i)] for i in chunk]))
        losses = model(**batch, mode="loss")
        total += torch.stack([losses[f"distance_{task}"] for task in model.model.tasks]) / len(batches)
    model.train(mode)
    return 1.0 / total.clamp(min=SMALLEST)
