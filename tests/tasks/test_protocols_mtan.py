"""How MTAN's family measures a pixel, and MTAN averages, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from symerge_dense.evaluation.protocols import measure
from symerge_dense.tasks.depth import Depth
from symerge_dense.tasks.metric import Metric
from symerge_dense.tasks.normals import Normals
from symerge_dense.tasks.protocols import BatchMeans, MTANTask
from symerge_dense.tasks.segmentation import Segmentation

NAN = float("nan")


def gathered(task: MTANTask, *batches: tuple[Tensor, Tensor]) -> Tensor:
    rows = torch.cat([measure(task, "mtan").statistics(output, target) for output, target in batches])
    assert len(rows) == sum(len(output) for output, _ in batches) and rows.dtype == torch.float64
    return rows.sum(0)


def measured(task: MTANTask, *batches: tuple[Tensor, Tensor]) -> dict[str, Metric]:
    summary = measure(task, "mtan").summarize(gathered(task, *batches))
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
    assert task.mtan_remarks(total) == ["mIoU is NaN by the published rule: neither truth nor prediction has c"]
    truth[..., 3] = 0  # now c was predicted: 0 of 1
    assert values(task, (output, truth)) == pytest.approx([100 * (1 / 3 + 1 / 2 + 0) / 3, 50])
    assert task.mtan_remarks(task.mtan_statistics(output, truth).sum(0)) == []


@pytest.mark.parametrize("task", [Depth(), Normals()])
def test_a_batch_without_labels_poisons_the_mean_and_is_remarked(task: MTANTask) -> None:
    output = torch.ones(1, task.channels, 2, 2)
    full, empty = (output, output), (output, torch.zeros_like(output))
    assert all(math.isfinite(value) for value in values(task, full))
    assert all(math.isnan(value) for value in values(task, full, empty))
    assert "without labelled pixel" in measure(task, "mtan").remarks(gathered(task, full, empty))[0]
    assert measure(task, "mtan").remarks(gathered(task, full)) == []


def test_a_zero_normal_is_ninety_degrees_off_and_a_broken_one_shows() -> None:
    truth = vectors(at(0), at(0))
    assert values(Normals(), (torch.zeros_like(truth), truth))[:2] == pytest.approx([90, 90])
    mean, median, *_ = values(Normals(), (truth * NAN, truth))
    assert math.isnan(mean) and math.isnan(median)


def test_dataset_totals_have_the_same_pixels_and_no_batches() -> None:
    first = pixels([3.0, 10.0], [5.0, 99.0]), pixels([2.0, 8.0], [-1.0, 0.0])
    second = pixels([3.0, 1.0]), pixels([4.0, 0.0])
    task = Depth()
    total = torch.cat([task.mtan_statistics(*batch) for batch in (first, second)]).sum(0)
    assert task.mtan_summarize(total)["abs"].value == pytest.approx((1 + 2 + 6 + 1) / 4)
    assert task.mtan_summarize(total)["rel"].value == pytest.approx((1 / 2 + 2 / 8 - 6 + 1 / 4) / 4)
    normals, truth = Normals(), vectors((0.5, -0.5, 0.0), (0.0, -0.5, 0.0), (0.0, -0.1, 0.0))
    total = normals.mtan_statistics(vectors(at(90), at(0), at(0)), truth).sum(0)
    expected = [math.degrees(math.acos(cosine)) for cosine in (0.5, 0.1)]
    assert total[:2].tolist() == pytest.approx([2, sum(expected)], abs=1e-4)
    assert normals.mtan_summarize(total)["median"].value == pytest.approx(sum(expected) / 2, abs=0.005)


@pytest.mark.parametrize("task", [Depth(), Normals()])
def test_a_batch_is_what_its_totals_say(task: MTANTask) -> None:
    assert isinstance(task, BatchMeans)
    generator = torch.Generator().manual_seed(0)
    output, target = torch.rand(2, 3, task.channels, 6, 7, generator=generator).unbind()
    derived = BatchMeans.mtan_batch(task, output, target)
    assert task.mtan_batch(output, target) == pytest.approx(derived, abs=0.005)
