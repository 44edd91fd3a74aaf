"""The pictures of a run: predictions, coefficients and loss curves."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from symerge_dense.datasets.base import DenseDataset
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.fileio import atomic_write
from symerge_dense.models.modes import evaluating
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.report.figures.curves import draw_curves
from symerge_dense.report.figures.heatmap import draw_heatmap
from symerge_dense.report.figures.panels import draw_panels

SINGLE = "panels"  # folder of the single pictures
SHADES = 16  # of a colour scale, in a record


class Panels:
    """Collects the predictions of several models for a few evenly spaced images of a data set.

    The first column, the truth or, without labels, the experts, gives the range of the colours.

    Args:
        data: a labelled set, or unlabelled images.
        tasks: {task name: task}.
        count: number of images.
    """

    def __init__(self, data: DenseDataset | Unlabelled, tasks: Mapping[str, Any], count: int) -> None:
        indices = np.unique(np.linspace(0, len(data) - 1, count + 2).astype(int)[1:-1])
        self.samples = [data[int(index)] for index in indices]
        self.tasks = tasks
        self.columns: dict[str, dict[str, list[Any]]] = {}
        if not isinstance(data, Unlabelled):
            self.add_column("truth", {name: [sample[name] for sample in self.samples] for name in tasks})

    def add_column(self, title: str, predictions: dict[str, list[Any]]) -> None:
        """Add predictions or truths to a column.

        Args:
            title: of the column, which may exist already.
            predictions: {task name: one decided prediction per image}.
        """
        self.columns.setdefault(title, {}).update(predictions)

    @torch.no_grad()
    def predict(self, title: str, model: MultiTaskModel) -> None:
        """Add the predictions of a model, for the tasks it has, to a column.

        Args:
            title: of the column, which may exist already.
            model: asked in evaluation mode.
        """
        device = next(model.parameters()).device
        images = torch.stack([sample["image"] for sample in self.samples]).to(device)
        with evaluating(model):
            outputs = model(images, mode="predict")
        for name, task in model.tasks.items():
            self.add_column(title, {name: [task.decide(output[name][None])[0].cpu() for output in outputs]})

    def draw(self, folder: Path) -> list[dict[str, Any]]:
        """Write panels.png: per image and task, every column, coloured over the range of the first; and each picture.

        Args:
            folder: of the run. The single pictures go into its folder panels/, at their own size.

        Returns:
            The single pictures as the record lists them: ``{'image': path, 'tasks': {task: {column: path}},
            'legends': {task: fields of its Legend}}`` of every image, with paths from ``folder``.
        """
        rows = self._rows()
        draw_panels(folder / "panels.png", rows)
        return [
            {
                "image": _save(folder, f"{number}_image", row["image"]),
                "tasks": {
                    name: {
                        title: _save(folder, f"{number}_{place}_{column}", row[name][title])
                        for column, title in enumerate(self.columns)
                    }
                    for place, name in enumerate(self.tasks)
                },
                "legends": {name: _legend(self.tasks[name], self._reference(name, number)) for name in self.tasks},
            }
            for number, row in enumerate(rows)
        ]

    def _rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for i, sample in enumerate(self.samples):
            image = sample["image"].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()
            cells = {
                name: {
                    title: self._colour(name, column[name][i], self._reference(name, i), title != "truth")
                    for title, column in self.columns.items()
                }
                for name in self.tasks
            }
            rows.append({"image": image, **cells})
        return rows

    def _reference(self, name: str, image: int) -> Any:
        """What the range of the colours is taken from: the first column, of one image."""
        return next(iter(self.columns.values()))[name][image]

    def _colour(self, name: str, values: Any, reference: Any, predicted: bool) -> np.ndarray:
        """A picture over the range of the first column; black means a pixel without label, which no prediction has."""
        task = self.tasks[name]
        paint = task.colorize_prediction if predicted else task.colorize
        return np.asarray(paint(values, limits=task.limits(reference)))


def _legend(task: Any, reference: Any) -> dict[str, Any]:
    """What the colours of a picture mean, as plain data; of a scale some of its colours."""
    found = dataclasses.asdict(task.legend(task.limits(reference)))
    return found if found["names"] else {**found, "colors": found["colors"][:: max(1, len(found["colors"]) // SHADES)]}


def _save(folder: Path, name: str, picture: np.ndarray) -> str:
    """Write one picture; names of tasks may hold what no file's name may, so that files go by numbers."""
    path = f"{SINGLE}/{name}.png"
    with atomic_write(folder / path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")
    return path


def draw_learning(
    folder: Path, coefficients: dict[str, list[float]], tasks: list[str], history: list[dict[str, Any]]
) -> None:
    """Write coefficients.png, a heat map, and curves.png, the losses.

    Args:
        folder: of the files.
        coefficients: {group of tensors: one coefficient per task}.
        tasks: names, in the order of the coefficients.
        history: rows of the run's curve; empty writes no curves.
    """
    draw_heatmap(folder / "coefficients.png", coefficients, tasks)
    if history:
        draw_curves(folder / "curves.png", history)
