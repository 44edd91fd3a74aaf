"""Depth, albedo and shading against hand-computed numbers and loops over pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from symerge_dense.tasks.depth import Depth
from symerge_dense.tasks.intrinsic import Albedo, Shading
from symerge_dense.tasks.regression import Regression


def test_depth_by_hand() -> None:
    task = Depth()
    truth = torch.tensor([2.0, 4.0, 1.0, 0.0, float("nan"), float("inf"), -3.0]).view(1, 1, 1, 7)
    output = torch.tensor([2.4, 3.0, -0.5, 9.0, 9.0, 9.0, 9.0]).view(1, 1, 1, 7)
    summary = task.summarize(task.statistics(output, truth).sum(0))
    # errors 0.4, 1, 1.5; ratios 1.2, 1.333, infinite (a negative prediction is a miss)
    assert summary["abs"].value == pytest.approx(2.9 / 3)
    assert summary["rel"].value == pytest.approx((0.2 + 0.25 + 1.5) / 3)
    assert summary["rmse"].value == pytest.approx(math.sqrt((0.16 + 1 + 2.25) / 3))
    assert summary["delta1"].value == pytest.approx(100 / 3)
    assert float(task.loss(output, truth)) == pytest.approx(2.9 / 3)


def test_depth_statistics_equal_a_loop_over_pixels() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(-1, 5, (2, 1, 6, 7))
    output = truth + rng.normal(0, 0.5, truth.shape)
    expected = np.zeros((2, 5))
    for n, y, x in np.ndindex(2, 6, 7):
        p, g = np.float32(output[n, 0, y, x]).item(), np.float32(truth[n, 0, y, x]).item()
        if g > 0:
            ratio = max(p / g, g / p) if p > 0 else math.inf
            expected[n] += [1, abs(p - g), abs(p - g) / g, (p - g) ** 2, ratio < 1.25]
    rows = Depth().statistics(torch.tensor(output).float(), torch.tensor(truth).float())
    np.testing.assert_allclose(rows.numpy(), expected, rtol=1e-12)


def test_means_weigh_pixels_not_images() -> None:
    truth = torch.ones(2, 1, 1, 3)
    truth[1, 0, 0, :2] = 0
    output = truth + torch.tensor([1.0, 5.0]).view(2, 1, 1, 1)
    assert Depth().summarize(Depth().statistics(output, truth).sum(0))["abs"].value == pytest.approx((3 * 1 + 5) / 4)


class SquaredLogit(Regression):
    """A subclass whose loss is in another space and on another scale than its values."""

    name, channels = "squared_logit", 1

    def decide(self, output: Tensor) -> Tensor:
        return output.sigmoid()

    def pixel_loss(self, output: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(output, target, reduction="none")[:, 0] + 7


def test_the_metric_is_the_error_of_the_value_whatever_the_loss() -> None:
    task, truth = SquaredLogit(), torch.tensor([0.5, 0.25, -1.0]).view(1, 1, 1, 3)
    output = torch.tensor([0.0, 0.0, 9.0]).view(1, 1, 1, 3)  # decided: 0.5, 0.5
    assert task.summarize(task.statistics(output, truth).sum(0))["abs"].value == 0.125


def test_a_prediction_that_no_target_can_have_is_painted_with_the_end_of_the_scale() -> None:
    task = Depth()
    low, high = (np.array(task.legend().colors[end]) for end in (0, -1))
    nan = float("nan")
    picture = task.colorize_prediction(torch.tensor([[[-3.0, 0.0, 1.0, 2.0, 9.0, nan]]]), (1.0, 2.0))[0]
    np.testing.assert_array_equal(picture, [low, low, low, high, high, [0, 0, 0]])
    assert not task.colorize(torch.tensor([[[-3.0, 0.0]]])).any(), "as targets they have no label"
    np.testing.assert_array_equal(task.colorize_prediction(torch.full((1, 1, 1), -3.0)), [[low]])


def test_depth_is_stored_in_millimetres() -> None:
    storage = Depth().storage
    stored = storage.encode(torch.tensor([[[1.2344, 0.0, -1.0, 1e-5, 99.0]]]))
    assert stored.tolist() == [[1234, 0, 1, 1, 65535]], "a negative prediction is no 'no label'"
    assert storage.range == (0, 65.535) and Depth().unit == "m"


def test_zoom_brings_depth_nearer() -> None:
    target = np.array([[3.0, 0.0]], np.float32)
    np.testing.assert_allclose(Depth().zoom(target, 1.5), [[2.0, 0.0]])


def test_depth_pictures_share_a_range_on_request() -> None:
    task = Depth()
    near, far = torch.full((1, 2, 2), 1.0), torch.full((1, 2, 2), 9.0)
    assert (task.colorize(near) == task.colorize(far)).all()  # each is its own whole range
    assert (task.colorize(near, (1, 9)) != task.colorize(far, (1, 9))).any()
    assert task.limits(torch.tensor([[[2.0, 0.0, 5.0, float("nan")]]])) == (2.0, 5.0)
    assert task.limits(torch.zeros(1, 2, 2)) is None


def test_albedo_by_hand() -> None:
    task = Albedo()
    truth = torch.tensor([[0.5, 0.2, 0.1], [0.0, 1.0, 0.3], [-1.0, -1.0, -1.0]]).T.reshape(1, 3, 1, 3)
    output = torch.tensor([[0.6, 0.2, 0.4], [0.5, 1.5, -0.7], [9.0, 9.0, 9.0]]).T.reshape(1, 3, 1, 3)
    # metric on what is limited to 0..1: (0.1 + 0 + 0.3) / 3 and (0.5 + 0 + 0.3) / 3; loss on the raw output
    assert task.summarize(task.statistics(output, truth).sum(0))["abs"].value == pytest.approx((0.4 + 0.8) / 6)
    assert float(task.loss(output, truth)) == pytest.approx((0.4 + 2.0) / 6)


def test_shading_is_a_grey_picture_of_its_value() -> None:
    picture = Shading().colorize(torch.tensor([[[0.0, 0.5, 1.0, 2.0, -1.0]]]))
    np.testing.assert_array_equal(picture[0, :, 0], [40, 128, 255, 255, 0])  # black is kept for 'no label'
    assert (picture == picture[..., :1]).all()


def test_predicted_colours_are_painted_as_themselves_too() -> None:
    red = torch.tensor([[[0.8]], [[0.2]], [[0.4]]])
    np.testing.assert_array_equal(Albedo().colorize_prediction(red)[0, 0], [204, 51, 102])
    np.testing.assert_array_equal(Shading().colorize_prediction(red[:1])[0, 0], [204, 204, 204])


def test_a_label_that_is_not_finite_pulls_nowhere() -> None:
    output = torch.ones(1, 1, 1, 2, requires_grad=True)
    label = torch.tensor([float("nan"), 3.0]).view(1, 1, 1, 2)
    Depth().loss(output, label, valid=torch.ones(1, 1, 2, dtype=torch.bool)).backward()
    assert output.grad is not None and output.grad.flatten().tolist() == [0.0, -0.5]
