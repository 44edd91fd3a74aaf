"""Four published ways to measure NYUv2, each written out here in numpy from its description, against ours.

The data set has 11 images in batches of 4, 4 and 3, so that an average over batches, images and pixels differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from symerge_dense.evaluation.evaluate import evaluate
from symerge_dense.evaluation.protocols import over_pixels
from symerge_dense.tasks.base import DenseTask
from symerge_dense.tasks.depth import Depth
from symerge_dense.tasks.normals import Normals
from symerge_dense.tasks.segmentation import Segmentation

Array = NDArray[Any]
Pairs = list[tuple[Array, Array]]  # (prediction, truth) of each batch
IMAGES, BATCH, SIZE, CLASSES = 11, 4, (6, 8), 5
LIMITS = (11.25, 22.5, 30.0)


# -- the data ----------------------------------------------------------------------------------------------------------
class Recorded(nn.Module):
    """Gives the outputs that were recorded for image n, which is n everywhere."""

    def __init__(self, tasks: list[DenseTask], outputs: dict[str, Tensor]) -> None:
        super().__init__()
        self.tasks, self.outputs = {task.name: task for task in tasks}, outputs

    def forward(self, image: Tensor, mode: str) -> list[dict[str, Tensor]]:
        return [{name: output[int(one[0, 0, 0])] for name, output in self.outputs.items()} for one in image]


def recording(seed: int = 0) -> tuple[dict[str, Array], dict[str, Array]]:
    """(outputs, truths) float32; labels are scarce in some images, so that batches hold unequal numbers of them."""
    rng = np.random.default_rng(seed)
    normals = rng.normal(size=(IMAGES, 3, *SIZE))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    truths = {
        "segmentation": rng.integers(0, CLASSES, (IMAGES, *SIZE)),
        "depth": rng.uniform(0.7, 9, (IMAGES, 1, *SIZE)),
        "normals": normals,
    }
    spread = rng.uniform(0.1, 1, (IMAGES, 1, 1, 1))
    outputs = {
        "segmentation": rng.normal(size=(IMAGES, CLASSES, *SIZE)),
        "depth": truths["depth"] + spread * rng.normal(size=(IMAGES, 1, *SIZE)),
        "normals": 3 * (normals + spread * rng.normal(size=normals.shape)),
    }
    missing = rng.random((IMAGES, *SIZE)) < np.linspace(0, 0.9, IMAGES)[:, None, None]
    truths["segmentation"][missing] = 255
    truths["depth"][:, 0][missing] = 0
    truths["normals"].transpose(1, 0, 2, 3)[:, missing] = 0
    truths["normals"][:, :, 0, 0] *= 0.2  # too short for our own rules, which the published ones do not mind
    truths["normals"][:, :, 0, 1] = 0.6, -0.6, 0.0  # a sum of 0
    truths["depth"], truths["normals"] = (truths[name].astype(np.float32) for name in ("depth", "normals"))
    return {name: output.astype(np.float32) for name, output in outputs.items()}, truths


def ours(protocol: str, outputs: dict[str, Array], truths: dict[str, Array]) -> dict[str, dict[str, float]]:
    truth = {name: torch.from_numpy(array) for name, array in truths.items()}
    truth["image"] = torch.arange(IMAGES).view(-1, 1, 1, 1).expand(-1, 3, *SIZE).float()
    samples: Any = [{name: whole[index] for name, whole in truth.items()} for index in range(IMAGES)]
    model = Recorded([Segmentation(CLASSES), Depth(), Normals()], {n: torch.from_numpy(o) for n, o in outputs.items()})
    scores = evaluate(model, DataLoader(samples, BATCH), "recording", "cpu", protocol)
    return {task: {name: metric.value for name, metric in metrics.items()} for task, metrics in scores.items()}


# -- the published ways ------------------------------------------------------------------------------------------------
def pairs(outputs: dict[str, Array], truths: dict[str, Array], task: str) -> Pairs:
    return [
        (outputs[task][start : start + BATCH], truths[task][start : start + BATCH]) for start in range(0, IMAGES, BATCH)
    ]


def segmentation(batches: Pairs) -> list[float]:
    """mIoU as a plain mean over classes, and accuracy, from one confusion matrix (percent)."""
    matrix = np.zeros((CLASSES, CLASSES))
    for output, truth in batches:
        for guess, label in zip(output.argmax(1).ravel(), truth.ravel(), strict=True):
            if 0 <= label < CLASSES:
                matrix[label, guess] += 1
    with np.errstate(invalid="ignore"):
        iou = np.diag(matrix) / (matrix.sum(0) + matrix.sum(1) - np.diag(matrix))
    return [100 * iou.mean(), 100 * np.trace(matrix) / matrix.sum()]


def depth_errors(output: Array, truth: Array) -> tuple[Array, Array]:
    known = truth.sum(1) != 0
    p, g = output[:, 0][known].astype(float), truth[:, 0][known].astype(float)
    return np.abs(p - g), np.abs(p - g) / g


def angles(output: Array, truth: Array) -> Array:
    known = truth[:, 0] + truth[:, 1] + truth[:, 2] != 0
    p, g = (np.moveaxis(array, 1, -1)[known].astype(float) for array in (output, truth))
    return np.degrees(np.arccos(np.clip((p * g).sum(-1) / np.linalg.norm(p, axis=-1), -1, 1)))


def within(angle: Array) -> list[float]:
    return [100 * float((angle < limit).mean()) for limit in LIMITS]


def mean(values: Any) -> float:
    """0 / 0 is NaN without numpy's warning."""
    return float(np.mean(values)) if len(values) else math.nan


def mtan(depth: Pairs, normals: Pairs) -> tuple[list[float], list[float]]:
    """Sums over batches of batch results, divided by the number of batches."""
    first = np.zeros(2)
    for batch in depth:
        first += [mean(errors) for errors in depth_errors(*batch)]
    second = np.zeros(5)
    for batch in normals:
        angle = angles(*batch)
        second += [mean(angle), np.median(angle), *within(angle)] if len(angle) else math.nan
    return list(first / len(depth)), list(second / len(normals))


def libmtl_depth(depth: Pairs) -> list[float]:
    """Batch means, each times its number of labelled pixels."""
    total, number = np.zeros(2), 0
    for batch in depth:
        errors = depth_errors(*batch)
        total += len(errors[0]) * np.array([mean(error) for error in errors])
        number += len(errors[0])
    return list(total / number)


def libmtl(depth: Pairs, normals: Pairs) -> tuple[list[float], list[float]]:
    """All angles of the data set in one array."""
    angle = np.concatenate([angles(*batch) for batch in normals])
    return libmtl_depth(depth), [angle.mean(), np.median(angle), *within(angle)]


def fusion_bench(depth: Pairs, normals: Pairs) -> tuple[list[float], list[float]]:
    """As LibMTL, but of an even number of angles the lower middle one is the median."""
    angle = np.concatenate([angles(*batch) for batch in normals])
    middle = float(torch.median(torch.from_numpy(angle)))
    return libmtl_depth(depth), [angle.mean(), middle, *within(angle)]


def auto_lambda(depth: Pairs, normals: Pairs) -> tuple[list[float], list[float]]:
    """A running mean; a batch counts for its share of a full one. One metric per task."""
    means = [0.0, 0.0]
    for seen, (first, second) in enumerate(zip(depth, normals, strict=True)):
        old = seen / (seen + len(first[0]) / BATCH)
        for index, value in enumerate((mean(depth_errors(*first)[0]), mean(angles(*second)))):
            means[index] = old * means[index] + (1 - old) * value
    return means[:1], means[1:]


COLUMNS: dict[str, tuple[str, Callable[[Pairs, Pairs], tuple[list[float], list[float]]]]] = {
    "MTAN": ("mtan", mtan),
    "LibMTL": ("libmtl", libmtl),
    "FusionBench": ("libmtl", fusion_bench),
    "auto-lambda": ("auto-lambda", auto_lambda),
}


# -- both --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_published_numbers(column: str, seed: int) -> None:
    protocol, published = COLUMNS[column]
    outputs, truths = recording(seed)
    depth, normals = published(pairs(outputs, truths, "depth"), pairs(outputs, truths, "normals"))
    found = ours(protocol, outputs, truths)
    classes = segmentation(pairs(outputs, truths, "segmentation"))
    assert list(found["segmentation"].values()) == pytest.approx(classes[: len(found["segmentation"])], rel=1e-9)
    assert list(found["depth"].values())[: len(depth)] == pytest.approx(depth, rel=1e-9)
    mine = found["normals"]
    if "median" in mine and protocol == "libmtl":
        angle = np.sort(np.concatenate([angles(*batch) for batch in pairs(outputs, truths, "normals")]))
        gap = angle[len(angle) // 2] - angle[(len(angle) - 1) // 2] if column == "FusionBench" else 0
        assert abs(mine.pop("median") - normals.pop(1)) <= 0.005 + gap / 2 + 1e-9
    assert list(mine.values()) == pytest.approx(normals, rel=1e-9)
    assert len(mine) == len(normals)


def test_the_three_averages_are_not_the_same() -> None:
    outputs, truths = recording()
    found = [ours(protocol, outputs, truths) for protocol in ("default", "mtan", "libmtl", "auto-lambda")]
    for values in (
        [round(scores["depth"]["abs"], 9) for scores in found[1:]],
        [round(scores["normals"]["mean"], 9) for scores in found],
    ):
        assert len(set(values)) == len(values)


@pytest.mark.parametrize("protocol", ["mtan", "libmtl", "auto-lambda"])
def test_a_batch_without_labels(protocol: str) -> None:
    """A mean over batches is NaN, as published; a mean over pixels is that of the other batches."""
    outputs, truths = recording()
    truths["depth"][BATCH : 2 * BATCH], truths["normals"][BATCH : 2 * BATCH] = 0, 0
    found = ours(protocol, outputs, truths)
    batches = [pairs(outputs, truths, task) for task in ("depth", "normals")]
    if protocol == "libmtl":
        depth, normals = libmtl(*([batch for batch in task if batch[1].any()] for task in batches))
        assert list(found["depth"].values())[:2] == pytest.approx(depth)
        assert list(found["normals"].values()) == pytest.approx(normals, abs=0.005)
    else:
        published = (mtan if protocol == "mtan" else auto_lambda)(*batches)
        assert all(math.isnan(value) for values in published for value in values)
        assert all(math.isnan(value) for task in ("depth", "normals") for value in found[task].values())


@pytest.mark.parametrize("protocol", ["mtan", "libmtl", "auto-lambda"])
def test_an_absent_class_leaves_no_miou(protocol: str) -> None:
    outputs, truths = recording()
    truths["segmentation"][truths["segmentation"] == 3] = 2
    outputs["segmentation"][:, 3] = -100
    published = segmentation(pairs(outputs, truths, "segmentation"))
    found = ours(protocol, outputs, truths)["segmentation"]
    assert math.isnan(published[0]) and math.isnan(found["mIoU"])
    assert found.get("pixel_accuracy", published[1]) == pytest.approx(published[1])


@pytest.mark.parametrize("number", [1, 2, 999, 20000])
@pytest.mark.parametrize("spread", [0.5, 15.0, 170.0])
def test_the_median_over_pixels_is_within_half_a_hundredth_degree(number: int, spread: float) -> None:
    angle = np.random.default_rng(number).uniform(0, spread, number)
    output = np.stack([np.sin(np.radians(angle)), -np.cos(np.radians(angle)), np.zeros(number)])[None, :, None]
    truth = np.broadcast_to(np.array([0.0, -1.0, 0.0])[None, :, None, None], output.shape).copy()
    rule = over_pixels(Normals())
    total = rule.statistics(torch.from_numpy(output), torch.from_numpy(truth)).sum(0)
    assert rule.summarize(total)["median"].value == pytest.approx(np.median(angle), abs=0.005 + 1e-6)
