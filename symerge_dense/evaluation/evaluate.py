"""Measure a multi-task model on a data set."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any, cast

import torch
from mmengine.evaluator import Evaluator
from torch.utils.data import DataLoader

from symerge_dense.evaluation.metric import DenseMetric
from symerge_dense.evaluation.scores import Scores
from symerge_dense.models.modes import evaluating
from symerge_dense.progress import track
from symerge_dense.tasks.base import DenseTask
from symerge_dense.tasks.metric import Metric


def evaluate(
    model: Any,
    loader: DataLoader[dict[str, Any]],
    description: str,
    device: torch.device | str | None = None,
    protocol: str = "default",
) -> Scores:
    """Scores of every task of a model on a whole data set.

    The model runs in evaluation mode and without gradients; afterwards every part of it has its former mode. With
    several processes, each measures its share and all get the same scores; the parts of a metric (mIoU's classes) are
    known to the main process, which writes the record.

    Args:
        model: a module with ``tasks`` (name -> DenseTask). Called with images (N,3,H,W) in 0..255 and
            ``mode='predict'``, it returns one ``{task: raw output (C,H,W)}`` per image.
        loader: gives batches of the data set.
        description: text of the progress bar.
        device: where the images go; None: where the model is.
        protocol: name of published conventions (``symerge_dense.evaluation.protocols``). Units are the same under all
            of them; metrics may differ. Under 'mtan' and 'auto-lambda', depth and normals depend on the batches.

    Raises:
        ValueError: the protocol is unknown or does not cover a task (raised before anything runs), or a batch lacks
            the target of a task.
    """
    tasks: dict[str, DenseTask] = model.tasks
    if device is None:
        device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    metric = DenseMetric(tasks, protocol)
    evaluator = Evaluator(metric)
    with evaluating(model), torch.no_grad():
        for batch in track(loader, description):
            evaluator.process(model(batch["image"].to(device), mode="predict"), batch)
    flat: dict[str, float] = evaluator.evaluate(len(cast(Sized, loader.dataset)))
    return {
        task: {
            name: Metric(flat[f"{task}/{name}"], better, metric.parts.get(f"{task}/{name}"))
            for name, better in rule.metrics.items()
        }
        for task, rule in metric.measures.items()
    }
