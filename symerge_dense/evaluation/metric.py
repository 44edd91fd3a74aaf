"""The metric of any dense task, for MMEngine: a thin shell around a ``Measure`` of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from symerge_dense.evaluation.protocols import measure
from symerge_dense.progress import say
from symerge_dense.registry import TASKS
from symerge_dense.tasks.base import DenseTask


class TaskMetric(BaseMetric):
    """Metrics of one task over a data set, named ``<task>/<metric>``.

    Gathers one row of statistics per image, no more and no less: on several processes MMEngine cuts the gathered list
    to the length of the data set, which drops exactly the images that a sampler padded with.
    """

    def __init__(
        self,
        task: DenseTask | dict[str, Any],
        protocol: str = "default",
        collect_device: str = "gpu",
        collect_dir: str | None = None,
    ) -> None:
        """``task`` is a task or ``{'type': class or registered name, **arguments}``.

        ``protocol`` is a name of ``symerge_dense.evaluation.protocols``; the rest is ``BaseMetric``'s. Raises
        ValueError for another protocol and for a task that it does not cover.
        """
        self.task: DenseTask = TASKS.build(task)
        self.measure = measure(self.task, protocol)
        super().__init__(collect_device=collect_device, prefix=self.task.name, collect_dir=collect_dir)

    def process(self, data_batch: Mapping[str, Any], data_samples: Sequence[Mapping[str, Tensor]]) -> None:
        """Measure one batch.

        ``data_batch`` holds the ground truth as collated, ``data_samples`` one ``{task: raw output (C,H,W)}`` per
        image, at the size of the ground truth. Raises ValueError where either lacks the task or the sizes differ.
        """
        name = self.task.name
        _require(
            name,
            data_batch,
            "the data set serves no target for it; it serves",
            "evaluate on a data set that does, and name the task there",
        )
        for sample in data_samples:
            _require(name, sample, "the model gives no output for it; it gives", "give the model a head for it")
        output = torch.stack([sample[name] for sample in data_samples]).detach()
        target = data_batch[name].to(output.device)
        self.task.check(output, target)
        # most cells of a confusion matrix or histogram are empty, and there is one per image
        self.results.extend(row.to_sparse() for row in self.measure.statistics(output, target).cpu())

    def compute_metrics(self, results: list[Tensor]) -> dict[str, float]:
        """Metric name -> value of the whole data set. Raises ValueError where no image was measured.

        What a reader must know about them is printed, once per run and not once per model.
        """
        if not results:
            raise ValueError(f"task {self.task.name!r}: no image was evaluated; the data set or its split is empty.")
        total = results[0].to_dense()
        for row in results[1:]:
            total += row
        for remark in self.measure.remarks(total):
            say(f"{self.task.name}: {remark}", once=True)
        return {name: metric.value for name, metric in self.measure.summarize(total).items()}


def _require(name: str, given: Mapping[str, Any], what: str, remedy: str) -> None:
    if name not in given:
        known = sorted(set(given) - {"image", "index"})
        raise ValueError(f"task {name!r}: {what} {', '.join(known) or 'nothing'}; {remedy}.")
