"""Inverse depth against hand-computed numbers and loops over pixels, by its own rules and by MTAN's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from symerge_dense.evaluation.protocols import measure
from symerge_dense.tasks.inverse_depth import InverseDepth

NAN, INF = float("nan"), float("inf")


def pixels(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(1, 1, 1, -1)


def test_by_hand() -> None:
    task = InverseDepth()
    truth, output = pixels(0.2, 0.4, 0.1, 0.0, NAN, INF, -3.0), pixels(0.25, 0.3, -0.05, 9.0, 9.0, 9.0, 9.0)
    summary = task.summarize(task.statistics(output, truth).sum(0))
    assert [(name, metric.higher_is_better) for name, metric in summary.items()] == [("abs", False), ("rel", False)]
    assert summary["abs"].value == pytest.approx((0.05 + 0.1 + 0.15) / 3)
    assert summary["rel"].value == pytest.approx((0.25 + 0.25 + 1.5) / 3)
    assert float(task.loss(output, truth)) == pytest.approx(0.1)
    assert task.headline == "abs"


def test_statistics_equal_a_loop_over_pixels() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(-0.1, 0.5, (3, 1, 6, 7)).astype(np.float32)
    output = (truth + rng.normal(0, 0.1, truth.shape)).astype(np.float32)
    expected = np.zeros((3, 3))
    for n, y, x in np.ndindex(3, 6, 7):
        p, g = output[n, 0, y, x].item(), truth[n, 0, y, x].item()
        if g > 0:
            expected[n] += [1, abs(p - g), abs(p - g) / g]
    rows = InverseDepth().statistics(torch.tensor(output), torch.tensor(truth))
    np.testing.assert_allclose(rows.numpy(), expected, rtol=1e-12)
    means = [metric.value for metric in InverseDepth().summarize(rows.sum(0)).values()]
    assert means == pytest.approx(list(expected.sum(0)[1:] / expected[:, 0].sum()))


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_mtan_protocol_is_the_mean_of_batch_means(size: int) -> None:
    rng = np.random.default_rng(size)
    output, truth = rng.uniform(0.01, 0.5, (2, 6, 1, 5, 7))
    truth[rng.random(truth.shape) < 0.2 + 0.1 * np.arange(6)[:, None, None, None]] = 0
    truth[0, 0, 0, 0] = -0.25  # counts: only 0 is no measurement
    expected = []
    for start in range(0, 6, size):
        pairs = [
            (p, g)
            for p, g in zip(output[start : start + size].flat, truth[start : start + size].flat, strict=True)
            if g != 0
        ]
        expected.append(
            [sum(abs(p - g) for p, g in pairs) / len(pairs), sum(abs(p - g) / g for p, g in pairs) / len(pairs)]
        )
    mtan = measure(InverseDepth(), "mtan")
    batches = zip(torch.tensor(output).split(size), torch.tensor(truth).split(size), strict=True)
    rows = torch.cat([mtan.statistics(*batch) for batch in batches])
    assert rows.shape == (6, 3)
    ours = [metric.value for metric in mtan.summarize(rows.sum(0)).values()]
    assert ours == pytest.approx(np.mean(expected, axis=0).tolist(), rel=1e-12)


def test_a_batch_without_measurement_poisons_the_mtan_mean_and_is_remarked() -> None:
    mtan = measure(InverseDepth(), "mtan")
    total = mtan.statistics(pixels(0.1, 0.2), pixels(0.0, 0.0)).sum(0)
    assert all(math.isnan(metric.value) for metric in mtan.summarize(total).values())
    assert "without labelled pixel" in mtan.remarks(total)[0]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_zoom_multiplies(dtype: type) -> None:
    target = np.array([[0.25, 0.0]], dtype)
    zoomed = InverseDepth().zoom(target, 1.5)
    assert zoomed.dtype == dtype and zoomed.tolist() == [[0.375, 0.0]]


def test_the_picture_spans_what_is_measured() -> None:
    task, target = InverseDepth(), torch.tensor([[[0.0, 0.1, 0.5, NAN]]])
    assert task.limits(target) == pytest.approx((0.1, 0.5))
    picture = task.colorize(target)
    assert (picture[0, 0] == 0).all() and (picture[0, 3] == 0).all()
    assert (picture[0, 1] != picture[0, 2]).any()
