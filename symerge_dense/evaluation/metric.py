"""The metrics of all tasks of a multi-task model, for MMEngine: a thin shell around one ``Measure`` per task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from symerge_dense.evaluation.protocols import Measure, measure
from symerge_dense.models.multi_task import build_task
from symerge_dense.progress import say
from symerge_dense.registry import METRICS
from symerge_dense.tasks.base import DenseTask


@METRICS.register_module()
class DenseMetric(BaseMetric):
    """Metrics of every task over a data set, named ``<task>/<metric>``.

    In a config: ``val_evaluator=dict(type='DenseMetric')``. Keeps one row of statistics per image and task, no more and
    no less: on several processes MMEngine cuts the gathered list to the length of the data set, which drops exactly the
    images that a sampler padded with.

    Args:
        tasks: {task name: task, or the arguments that build it}; None takes the tasks of the data set, which MMEngine
            hands over in its ``metainfo``.
        protocol: a name of ``symerge_dense.evaluation.protocols``.
        prefix: stands before every name, ``<prefix>/<task>/<metric>``, where one evaluator has several protocols.
        collect_device: of MMEngine's ``BaseMetric``.
        collect_dir: of MMEngine's ``BaseMetric``.

    Raises:
        ValueError: an unknown protocol, a task that it does not cover, or no task at all.
    """

    default_prefix = ""  # None makes MMEngine warn: the names already say which task they belong to

    def __init__(
        self,
        tasks: Mapping[str, DenseTask | Mapping[str, Any]] | None = None,
        protocol: str = "default",
        prefix: str | None = None,
        collect_device: str = "gpu",
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.protocol = protocol
        self.tasks: dict[str, DenseTask] = {}
        self.measures: dict[str, Measure] = {}
        self.parts: dict[
            str, Mapping[str, float | None]
        ] = {}  # of the last data set, on the main process; MMEngine takes floats
        self._follow_data = tasks is None
        if tasks is not None:
            self._serve(tasks)

    def _serve(self, tasks: Any) -> None:
        if not isinstance(tasks, Mapping) or not tasks:
            raise ValueError(
                f"DenseMetric has tasks={tasks!r}; list them in the data set's tasks, or give the metric "
                "tasks=dict(depth=dict(type='depth'), ...)."
            )
        self.tasks = {name: build_task(name, task) for name, task in tasks.items()}
        self.measures = {name: measure(task, self.protocol) for name, task in self.tasks.items()}

    @property
    def dataset_meta(self) -> dict[str, Any] | None:
        """The ``metainfo`` of the data set; setting it says which tasks to measure, unless they were given."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, metainfo: dict[str, Any] | None) -> None:
        self._dataset_meta = metainfo
        if self._follow_data:
            self._serve((metainfo or {}).get("tasks"))

    def process(self, data_batch: Mapping[str, Any], data_samples: Sequence[Mapping[str, Tensor]]) -> None:
        """Measure one batch.

        Args:
            data_batch: the ground truth of every task as collated: a tensor of all images, or a list of one per image.
            data_samples: one ``{task: raw output (C,H,W)}`` per image, at the size of the ground truth.

        Raises:
            ValueError: either of them lacks a task, or their sizes differ.
        """
        if not self.tasks:
            self._serve(None)
        rows = {name: self._rows(name, data_batch, data_samples) for name in self.tasks}
        self.results.extend(dict(zip(rows, image, strict=True)) for image in zip(*rows.values(), strict=True))

    def _rows(self, name: str, data_batch: Mapping[str, Any], data_samples: Sequence[Mapping[str, Tensor]]) -> Any:
        """Statistics of one task, one sparse row (K,) per image."""
        _require(
            name,
            data_batch,
            "the data set serves no target for it; it serves",
            "evaluate on a data set that does, and name the task there",
        )
        for sample in data_samples:
            _require(name, sample, "the model gives no output for it; it gives", "give the model a head for it")
        output = torch.stack([sample[name] for sample in data_samples]).detach()
        truth = data_batch[name]  # MMEngine's default collation leaves a list
        target = (truth if isinstance(truth, Tensor) else torch.stack(list(truth))).to(output.device)
        self.tasks[name].check(output, target)
        # most cells of a confusion matrix or histogram are empty, and there is one per image
        return [row.to_sparse() for row in self.measures[name].statistics(output, target).cpu()]

    def compute_metrics(self, results: list[dict[str, Tensor]]) -> dict[str, float]:
        """``<task>/<metric>`` -> value of the whole data set.

        What a reader must know about them is printed, once per run and not once per model.

        Args:
            results: {task: row of statistics} of every image.

        Raises:
            ValueError: no image was measured.
        """
        if not results:
            raise ValueError(f"{_listed(self.tasks)}: no image was evaluated; the data set or its split is empty.")
        found: dict[str, float] = {}
        for name, rule in self.measures.items():
            total = results[0][name].to_dense()
            for rows in results[1:]:
                total += rows[name]
            for remark in rule.remarks(total):
                say(f"{name}: {remark}", once=True)
            for metric, value in rule.summarize(total).items():
                found[f"{name}/{metric}"] = value.value
                if value.parts is not None:
                    self.parts[f"{name}/{metric}"] = value.parts
        return found


def _listed(tasks: Mapping[str, Any]) -> str:
    return f"{'task' if len(tasks) == 1 else 'tasks'} {', '.join(map(repr, tasks)) or 'none'}"


def _require(name: str, given: Mapping[str, Any], what: str, remedy: str) -> None:
    if name not in given:
        known = sorted(set(given) - {"image", "index"})
        raise ValueError(f"task {name!r}: {what} {', '.join(known) or 'nothing'}; {remedy}.")
