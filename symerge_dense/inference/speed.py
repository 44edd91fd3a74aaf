"""How fast one merged model is against the experts that it stands for, one after the other."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from symerge_dense.datasets.image_files import Pixels
from symerge_dense.inference.backend import TorchModel
from symerge_dense.inference.predictor import Predictor
from symerge_dense.progress import track

MOST_IMAGES = 64  # that are kept in memory


@dataclass(frozen=True)
class Speed:
    """One side of the comparison.

    Args:
        rate: frames a second, all tasks of a frame counted as one.
        parameters: of all its networks.
    """

    rate: float
    parameters: int


def compare_speed(
    merged: Predictor, experts: Mapping[str, Predictor], images: Sequence[Pixels], rounds: int = 3
) -> dict[str, Speed]:
    """Frames a second of a merged model, and of experts that predict the same images one after the other.

    Both resize, compute and decide as ``Predictor`` does; reading and writing files is left out. The two take turns,
    after one warm-up each, and the median of the rounds counts.

    Args:
        merged: the model that does all tasks in one pass.
        experts: {name: model of one task}.
        images: uint8 (H,W,3).
        rounds: of each side.

    Returns:
        {'merged': ..., 'experts': ...}.

    Raises:
        ValueError: there are no images, or the experts' tasks are not the merged model's.
    """
    tasks = [task for expert in experts.values() for task in expert.tasks]
    if sorted(tasks) != sorted(merged.tasks):
        raise ValueError(
            f"the merged model does {', '.join(merged.tasks)}, the experts {', '.join(tasks) or 'nothing'}; give one "
            "expert for each task, or name the tasks by --tasks."
        )
    if not images:
        raise ValueError("no image to measure with; give images that can be read.")
    sides = {"merged": [merged], "experts": list(experts.values())}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in track(range(rounds + 1), "measure"):
        for name, predictors in sides.items():
            spent = sum(_seconds(predictor, images) for predictor in predictors)
            seconds[name] += [spent] if turn else []
    return {
        name: Speed(len(images) / statistics.median(seconds[name]), sum(map(_parameters, predictors)))
        for name, predictors in sides.items()
    }


def _seconds(predictor: Predictor, images: Sequence[Pixels]) -> float:
    start = time.perf_counter()
    for _ in predictor.stream(images):
        pass
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _parameters(predictor: Predictor) -> int:
    backend = predictor.backend
    return sum(p.numel() for p in backend.model.parameters()) if isinstance(backend, TorchModel) else 0
