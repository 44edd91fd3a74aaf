"""The base of tasks that predict a probability, by hand; and that edges are one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from symerge_dense.tasks.probability import Probability


class Saliency(Probability):
    """Its whole definition."""

    name, channels = "saliency", 1


class Pair(Probability):
    """Two maps."""

    name, channels = "pair", 2


def pixels(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(1, 1, 1, -1)


def test_metrics_by_hand() -> None:
    task, logit3 = Saliency(), math.log(3)  # sigmoid(log 3) is 0.75
    truth = pixels(1.0, 0.5, 1.0, 0.0, -1.0, float("nan"))
    output = pixels(logit3, 0.0, -logit3, logit3, 9.0, 9.0)
    summary = task.summarize(task.statistics(output, truth).sum(0))
    assert summary["abs"].value == pytest.approx((0.25 + 0 + 0.75 + 0.75) / 4)
    assert summary["f1"].value == pytest.approx(100 * 2 / (2 + 1 + 1))
    assert [metric.higher_is_better for metric in summary.values()] == [False, True]


def test_the_loss_is_cross_entropy_less_the_labels_own_entropy() -> None:
    output, truth = torch.randn(2, 2, 3, 4), torch.rand(2, 2, 3, 4)
    expected = F.binary_cross_entropy_with_logits(output, truth) - F.binary_cross_entropy(truth, truth)
    assert float(Pair().loss(output, truth)) == pytest.approx(float(expected), rel=1e-5)
    hard = (truth > 0.5).float()
    weighted = F.binary_cross_entropy_with_logits(output, hard, pos_weight=torch.tensor(4.0))
    assert float(Pair(positive_weight=4).loss(output, hard)) == pytest.approx(float(weighted), rel=1e-5)


def test_only_shares_are_labels() -> None:
    target = pixels(0.0, 1.0, 1 + 1e-4, 1.1, 255.0, -1.0, math.nan, math.inf)  # rounding of a resize is no error
    assert Saliency().valid(target).flatten().tolist() == [True] * 3 + [False] * 5
    output = torch.zeros_like(target).requires_grad_()
    Saliency().loss(output, target).backward()
    assert output.grad is not None and output.grad.flatten().bool().tolist() == [True] * 3 + [False] * 5
    assert Saliency().statistics(output.detach(), target)[0, 0] == 3


def test_bytes_that_nobody_divided_are_refused_with_the_remedy() -> None:
    large = np.zeros((480, 640), np.float32)
    large[100:200, 100:200] = 255
    said = Saliency().implausible(large)
    assert said is not None and "0..255: values must be in 0..1" in said and "scale=1/255" in said


def test_valid_asks_no_device_for_an_answer() -> None:
    assert Saliency().valid(torch.empty(2, 1, 3, 4, device="meta")).shape == (2, 3, 4)


@pytest.mark.parametrize("weight", [0.0, -1.0, math.inf, math.nan])
def test_weights_that_cannot_be_are_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="must be a positive number; 1 weighs all pixels alike"):
        Saliency(weight)


def test_views_average_their_probabilities() -> None:
    mean, variance = Saliency().average([pixels(math.log(3)), pixels(-math.log(3))], weights=[3, 1])
    assert float(mean.sigmoid()) == pytest.approx(0.75 * 0.75 + 0.25 * 0.25)
    assert float(variance) == pytest.approx(0.75 * 0.125**2 + 0.25 * 0.375**2)
    assert math.isfinite(float(Saliency().average([pixels(500.0)])[0]))


def test_pictures_and_files_have_the_range_0_to_1() -> None:
    task = Saliency()
    colors = np.array(task.legend().colors)
    picture = task.colorize(torch.tensor([[[0.0, 1.0, -1.0]]]))
    np.testing.assert_array_equal(picture[0], [colors[0], colors[-1], [0, 0, 0]])
    stored = task.storage.encode(torch.tensor([[[0.0, 0.5, 1.0, -1.0, math.nan]]]))
    assert stored.tolist() == [[0, 32767, 65534, 65535, 65535]]
    np.testing.assert_array_equal(task.storage.decode(stored), np.float32([[0, 0.5, 1, -1, -1]]))
