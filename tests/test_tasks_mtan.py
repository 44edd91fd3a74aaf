"""MTAN's conventions, by hand and against plain numpy written from the published definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from symerge_dense.tasks.base import Metric
from symerge_dense.tasks.depth import Depth
from symerge_dense.tasks.mtan import MTANTask
from symerge_dense.tasks.normals import Normals
from symerge_dense.tasks.segmentation import Segmentation

NAN = float("nan")


def measured(task: MTANTask, *batches: tuple[Tensor, Tensor]) -> dict[str, Metric]:
    rows = torch.cat([task.mtan_statistics(output, target) for output, target in batches])
    assert len(rows) == sum(len(output) for output, _ in batches) and rows.dtype == torch.float64
    summary = task.mtan_summarize(rows.sum(0))
    assert [(name, metric.higher_is_better) for name, metric in summary.items()] == list(task.metrics.items())
    return summary


def values(task: MTANTask, *batches: tuple[Tensor, Tensor]) -> list[float]:
    return [metric.value for metric in measured(task, *batches).values()]


def pixels(*images: list[float]) -> Tensor:
    """(N,1,1,W)."""
    return torch.tensor(images).view(len(images), 1, 1, -1)


def vectors(*entries: tuple[float, ...]) -> Tensor:
    """(1,3,1,W)."""
    return torch.tensor(entries).T.reshape(1, 3, 1, -1)


def at(degrees: float) -> tuple[float, ...]:
    return math.sin(math.radians(degrees)), -math.cos(math.radians(degrees)), 0.0


def test_depth_by_hand() -> None:
    # batch 1 has three labelled pixels: |e| 1, 2, 4, relative 1/2, 2/8, 4/1; batch 2 has one: |e| 1, relative 1/4
    first = pixels([3.0, 10.0], [5.0, 99.0]), pixels([2.0, 8.0], [1.0, 0.0])
    second = pixels([3.0, 1.0]), pixels([4.0, 0.0])
    abs_, rel, rmse, delta1 = values(Depth(), first, second)
    assert abs_ == pytest.approx((7 / 3 + 1) / 2)
    assert rel == pytest.approx(((0.5 + 0.25 + 4) / 3 + 0.25) / 2)
    assert rmse == pytest.approx((math.sqrt(21 / 3) + 1) / 2)
    assert delta1 == 0  # 10 / 8 is 1.25 and not below
    task = Depth()  # its own convention: every pixel weighs the same
    total = sum(task.statistics(*batch).sum(0) for batch in (first, second))
    assert task.summarize(torch.as_tensor(total))["abs"].value == pytest.approx(8 / 4)


def test_depth_counts_whatever_is_not_zero() -> None:
    abs_, rel, *_ = values(Depth(), (pixels([1.0, 1.0, 1.0]), pixels([-1.0, 2.0, 0.0])))
    assert (abs_, rel) == (1.5, (-2 + 0.5) / 2)


def test_normals_by_hand() -> None:
    truth = vectors(*[at(0)] * 4)
    first = vectors(*(tuple(7 * x for x in at(angle)) for angle in (10.0, 20.0, 28.0, 90.0))), truth
    second = vectors(at(40.0), at(5.0)), vectors(at(0), (0.0, 0.0, 0.0))
    mean, median, *within = values(Normals(), first, second)
    assert mean == pytest.approx((148 / 4 + 40) / 2, abs=1e-4)
    assert median == pytest.approx(((20 + 28) / 2 + 40) / 2, abs=1e-4)  # not a histogram's
    assert within == [25 / 2, 50 / 2, 75 / 2]


def test_normals_masked_by_the_sum_of_components_and_the_target_as_it_is() -> None:
    truth = vectors((0.5, -0.5, 0.0), (0.0, -0.5, 0.0), (0.0, -0.1, 0.0))  # sum 0; short; shorter than our limit
    mean, median, *within = values(Normals(), (vectors(at(90), at(0), at(0)), truth))
    angles = [math.degrees(math.acos(0.5)), math.degrees(math.acos(0.1))]
    assert mean == pytest.approx(sum(angles) / 2, abs=1e-5) and median == pytest.approx(sum(angles) / 2, abs=1e-5)
    assert within == [0, 0, 0]
    own = Normals().statistics(vectors(at(90), at(0), at(0)), truth)
    assert own[0, 0] == 2 and own[0, 1] == pytest.approx(45, abs=1e-4)


def test_the_limits_are_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    prediction, truth = vectors((1.0, 0.0, 0.0)).double(), vectors((0.75, 0.0, 0.0)).double()
    angle = float(truth.max().acos().rad2deg())  # no limit of the task's own is the exact angle of a float vector
    monkeypatch.setattr("symerge_dense.tasks.normals.THRESHOLDS", (angle, math.nextafter(angle, 90), 90.0))
    assert Normals().mtan_batch(prediction, truth)[2:] == [0, 100, 100]


def test_segmentation_by_hand() -> None:
    task = Segmentation(3, class_names=["a", "b", "c"])
    truth, predicted = torch.tensor([[[0, 0, 1, 255]]]), torch.tensor([[[0, 1, 1, 2]]])
    output = torch.nn.functional.one_hot(predicted, 3).movedim(-1, 1).float()
    poisoned, accuracy = values(task, (output, truth))
    assert math.isnan(poisoned) and accuracy == pytest.approx(100 * 2 / 3)
    total = task.mtan_statistics(output, truth).sum(0)
    assert task.summarize(total)["mIoU"].value == pytest.approx(50)
    assert task.mtan_remarks(total) == ["mIoU is NaN under protocol 'mtan': neither truth nor prediction has c"]
    truth[..., 3] = 0  # now c was predicted: 0 of 1
    assert values(task, (output, truth)) == pytest.approx([100 * (1 / 3 + 1 / 2 + 0) / 3, 50])
    assert task.mtan_remarks(task.mtan_statistics(output, truth).sum(0)) == []


@pytest.mark.parametrize("size", [1, 2, 5])
def test_random_batches_against_the_published_code_in_words(size: int) -> None:
    rng = np.random.default_rng(size)
    depth, true_depth = rng.uniform(0.5, 9, (2, 6, 1, 5, 7))
    true_depth[rng.random(true_depth.shape) < 0.2] = 0
    output, truth = rng.normal(size=(2, 6, 3, 5, 7))
    truth /= np.linalg.norm(truth, axis=1, keepdims=True)
    truth[:, :, :2, :3] = 0
    rows: dict[str, list[list[float]]] = {"depth": [], "normals": []}
    for start in range(0, 6, size):
        batch = slice(start, start + size)
        known = true_depth[batch].sum(1, keepdims=True) != 0
        p, g = depth[batch][known], true_depth[batch][known]
        rows["depth"].append([np.abs(p - g).sum() / known.sum(), (np.abs(p - g) / g).sum() / known.sum()])
        unit = output[batch] / np.linalg.norm(output[batch], axis=1, keepdims=True)
        cosine = (unit * truth[batch]).sum(1)[truth[batch].sum(1) != 0]
        error = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        rows["normals"].append([error.mean(), np.median(error), *(100 * (error < t).mean() for t in (11.25, 22.5, 30))])
    for task, prediction, target, kept in ((Depth(), depth, true_depth, 2), (Normals(), output, truth, 5)):
        batches = zip(torch.tensor(prediction).split(size), torch.tensor(target).split(size), strict=True)
        ours = values(task, *batches)[:kept]
        assert ours == pytest.approx(np.mean(rows[task.name], axis=0).tolist(), rel=1e-12)


@pytest.mark.parametrize("task", [Depth(), Normals()])
def test_a_batch_without_labels_poisons_the_mean_and_is_remarked(task: MTANTask) -> None:
    output = torch.ones(1, task.channels, 2, 2)
    full, empty = (output, output), (output, torch.zeros_like(output))
    assert all(math.isfinite(value) for value in values(task, full))
    assert all(math.isnan(value) for value in values(task, full, empty))
    total = torch.cat([task.mtan_statistics(*batch) for batch in (full, empty)]).sum(0)
    assert "without labelled pixel" in task.mtan_remarks(total)[0]
    assert task.mtan_remarks(task.mtan_statistics(*full).sum(0)) == []


def test_a_zero_normal_is_ninety_degrees_off_and_a_broken_one_shows() -> None:
    truth = vectors(at(0), at(0))
    assert values(Normals(), (torch.zeros_like(truth), truth))[:2] == pytest.approx([90, 90])
    mean, median, *_ = values(Normals(), (truth * NAN, truth))
    assert math.isnan(mean) and math.isnan(median)
