"""Depth as depth papers measure it, by hand and against a loop over pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from symerge_dense.evaluation.protocols import measure
from symerge_dense.tasks.depth import Depth
from symerge_dense.tasks.normals import Normals
from symerge_dense.tasks.protocols import eigen_crop
from symerge_dense.tasks.segmentation import Segmentation


def values(output: Tensor, target: Tensor) -> dict[str, float]:
    task = Depth()
    total = task.eigen_statistics(output, target).sum(0)
    return {name: metric.value for name, metric in task.eigen_summarize(total).items()}


def frame(value: float, size: tuple[int, int] = (48, 64), images: int = 1) -> Tensor:
    return torch.full((images, 1, *size), value)


def test_the_crop_of_a_whole_frame_and_its_share_of_others() -> None:
    assert eigen_crop((480, 640)) == (slice(45, 471), slice(41, 601))
    assert eigen_crop((960, 1280)) == (slice(90, 942), slice(82, 1202))
    assert eigen_crop((288, 384)) == (slice(27, 283), slice(25, 361))  # 27, 282.6, 24.6, 360.6


def test_only_the_crop_counts() -> None:
    output, target = torch.ones(1, 1, 480, 640), torch.ones(1, 1, 480, 640)
    output[..., :45, :], output[..., 471:, :], output[..., :41], output[..., 601:] = 9.0, 9.0, 9.0, 9.0
    assert values(output, target)["abs"] == 0
    for row, column in ((45, 41), (470, 600)):
        changed = output.clone()
        changed[..., row, column] = 3.0
        assert values(changed, target)["abs"] == pytest.approx(2 / (426 * 560))


def test_by_hand() -> None:
    found = values(frame(3.0), frame(2.0))
    assert found == pytest.approx(
        {
            "abs": 1,
            "rel": 0.5,
            "rmse": 1,
            "rmse_log": math.log(1.5),
            "log10": math.log10(1.5),
            "delta1": 0,
            "delta2": 100,
            "delta3": 100,
        }
    )
    assert list(found) == list(Depth.eigen_metrics)
    assert [Depth.eigen_metrics[f"delta{power}"] for power in (1, 2, 3)] == [True] * 3
    assert not any(Depth.eigen_metrics[name] for name in ("abs", "rel", "rmse", "rmse_log", "log10"))


def test_predictions_are_clamped_to_the_range_of_nyuv2_and_truth_beyond_it_is_left_out() -> None:
    assert values(frame(50.0), frame(8.0))["abs"] == 2
    assert values(frame(math.inf), frame(8.0))["abs"] == 2
    assert values(frame(-4.0), frame(2.0))["abs"] == pytest.approx(2 - 1e-3)
    assert math.isnan(values(frame(9.0), frame(50.0))["abs"]) and math.isnan(values(frame(9.0), frame(1e-4))["abs"])
    assert values(frame(9.0), frame(10.0))["abs"] == 1
    assert values(frame(-4.0), frame(2.0))["rmse_log"] == pytest.approx(math.log(2000))
    assert math.isnan(values(frame(math.nan), frame(2.0))["abs"]), "a broken prediction shows"


def test_random_frames_equal_a_loop_over_pixels_whatever_the_batch() -> None:
    rng, size = np.random.default_rng(0), (24, 32)
    truth = rng.uniform(0.5, 12, (3, *size)).astype(np.float32)
    guess = (truth * rng.uniform(0.4, 2.2, truth.shape)).astype(np.float32)
    truth[rng.random(truth.shape) < 0.2] = 0
    truth[0, 10, 10] = np.nan
    errors = []
    for image, row, column in np.ndindex(*truth.shape):
        inside = 45 / 480 <= (row + 0.5) / 24 < 471 / 480 and 41 / 640 <= (column + 0.5) / 32 < 601 / 640
        if inside and 1e-3 <= truth[image, row, column] <= 10:
            g, p = float(truth[image, row, column]), min(float(guess[image, row, column]), 10)
            ratio = max(p / g, g / p)
            errors.append(
                [
                    abs(p - g),
                    abs(p - g) / g,
                    (p - g) ** 2,
                    math.log(p / g) ** 2,
                    abs(math.log10(p) - math.log10(g)),
                    ratio < 1.25,
                    ratio < 1.25**2,
                    ratio < 1.25**3,
                ]
            )
    means = np.mean(errors, axis=0)
    expected = [*means[:2], *np.sqrt(means[2:4]), means[4], *(100 * means[5:])]
    task = Depth()
    output, target = torch.tensor(guess)[:, None], torch.tensor(truth)[:, None]
    for batch in (1, 2, 3):
        rows = [task.eigen_statistics(*pair) for pair in zip(output.split(batch), target.split(batch), strict=True)]
        found = task.eigen_summarize(torch.cat(rows).sum(0))
        assert [metric.value for metric in found.values()] == pytest.approx(expected, rel=1e-9)


def test_frames_without_labels_have_no_metrics_and_no_effect() -> None:
    assert all(math.isnan(value) for value in values(frame(2.0), frame(0.0)).values())
    both = values(frame(3.0, images=2), torch.cat([frame(2.0), frame(0.0)]))
    assert both == pytest.approx(values(frame(3.0), frame(2.0)))


def test_other_tasks_keep_their_own_rules() -> None:
    for task in (Normals(), Segmentation(40)):
        found = measure(task, "eigen")
        assert found.metrics == task.metrics and found.statistics == task.statistics
    assert measure(Depth(), "eigen").metrics == Depth.eigen_metrics
