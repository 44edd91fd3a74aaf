"""Score a saved model on a labelled split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import is_main_process
from rich.table import Table

from symerge_dense.evaluation.evaluate import evaluate
from symerge_dense.evaluation.scores import scores_to_json
from symerge_dense.models.checkpoint import load_model
from symerge_dense.pipeline import data
from symerge_dense.pipeline.config import RunConfig
from symerge_dense.pipeline.data_section import data_specs
from symerge_dense.progress import console, silent
from symerge_dense.registry import did_you_mean
from symerge_dense.report.table import UNDEFINED


def test(config: RunConfig, checkpoint: str | Path, split: str, quiet: bool = False) -> dict[str, Any]:
    """Score a checkpoint and print a table.

    Args:
        config: has the data sets and the protocol.
        checkpoint: an expert or a merged model.
        split: a labelled data set of the config.
        quiet: print nothing.

    Returns:
        {task: {metric: {value, higher_is_better}}}.

    Raises:
        ValueError: an unknown split, an unreadable checkpoint, or one with a task that the data do not serve.
    """
    if split not in (splits := data_specs(config.data)):
        raise ValueError(did_you_mean(split, splits, "split"))
    model, _ = load_model(checkpoint)
    device = torch.device(get_device())
    with silent(quiet):
        loader = data.loader(config, data.dataset(config, split, model.tasks))
        scores = scores_to_json(
            evaluate(
                model.to(device),
                loader,
                f"{Path(checkpoint).name} on {split}",
                device,
                config.evaluation.get("protocol", "default"),
            )
        )
    if not quiet and is_main_process():
        table = Table("task", "metric", "value", "better", title=f"{checkpoint} on {split}")
        for task, metrics in scores.items():
            for name, metric in metrics.items():
                value = UNDEFINED if metric["value"] is None else f"{metric['value']:.4g}"
                table.add_row(task, name, value, "higher" if metric["higher_is_better"] else "lower")
        console.print(table)
    return scores
