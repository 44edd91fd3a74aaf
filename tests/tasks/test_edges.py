"""Edges against hand-computed numbers."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from symerge_dense.tasks.edges import Edges


def row(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(1, 1, 1, -1)


def test_metrics_by_hand() -> None:
    task = Edges()
    # hits 2, false alarms 1, missed 3, one right silence, two invalid
    output = row(1.0, 2.0, 0.5, -1.0, -2.0, -0.1, -3.0, 9.0, -9.0)
    truth = row(1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 255.0, 255.0)
    summary = task.summarize(task.statistics(output, truth).sum(0))
    precision, recall = 2 / 3, 2 / 5
    assert summary["precision"].value == pytest.approx(100 * precision)
    assert summary["recall"].value == pytest.approx(100 * recall)
    assert summary["f1"].value == pytest.approx(200 * precision * recall / (precision + recall))


def test_nothing_found_is_a_score_of_zero() -> None:
    summary = Edges().summarize(Edges().statistics(row(-1.0, -1.0), row(1.0, 0.0)).sum(0))
    assert summary["f1"].value == 0 and summary["recall"].value == 0 and math.isnan(summary["precision"].value)


@pytest.mark.parametrize("weight", [1.0, 4.0])
def test_hard_loss_is_the_balanced_cross_entropy(weight: float) -> None:
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(2, 1, 5, 5, generator=generator)
    truth = (torch.rand(2, 1, 5, 5, generator=generator) > 0.7).float()
    expected = F.binary_cross_entropy_with_logits(output, truth, pos_weight=torch.tensor(weight), reduction="none")
    torch.testing.assert_close(Edges(weight).pixel_loss(output, truth), expected[:, 0])


def test_soft_loss_is_a_weighted_divergence_with_its_minimum_at_the_label() -> None:
    task, q, p = Edges(positive_weight=4.0), 0.3, 0.6
    divergence = q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))
    assert float(task.pixel_loss(row(p).logit(), row(q))) == pytest.approx((1 + 3 * q) * divergence, rel=1e-5)
    candidates = torch.linspace(0.05, 0.95, 181).view(1, 1, 1, -1)
    losses = task.pixel_loss(candidates.logit(), torch.full_like(candidates, q))
    assert float(candidates.flatten()[losses.argmin()]) == pytest.approx(q, abs=1e-6)


def test_confidence_entropy_and_labels_by_hand() -> None:
    task, output = Edges(), row(0.2, 0.75).logit()
    assert task.confidence(output).flatten().tolist() == pytest.approx([0.8, 0.75])
    assert task.entropy(output).flatten().tolist() == pytest.approx(
        [-p * math.log(p) - (1 - p) * math.log(1 - p) for p in (0.2, 0.75)]
    )
    assert task.self_label(output).flatten().tolist() == pytest.approx([0.2, 0.75])
    assert task.self_label(output, soft=False).flatten().tolist() == [0.0, 1.0]
    assert task.confidence(row(-800.0)).isfinite().all() and float(task.entropy(row(800.0))) == 0


def test_pictures_are_ink_on_paper() -> None:
    assert Edges().colorize(torch.tensor([[[0.0, 1.0, 255.0]]]))[0, :, 0].tolist() == [245, 40, 0]


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_senseless_weight_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="positive_weight"):
        Edges(weight)
