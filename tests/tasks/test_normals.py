"""Normals against angles computed one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from symerge_dense.tasks.normals import BINS, Normals, histogram_median


def tilted(degrees: list[float], length: float = 1.0) -> torch.Tensor:
    """(1,3,1,W) vectors in the x-z plane, turned away from (0,-1,0) by the given angles."""
    angle = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return length * torch.stack([angle.sin(), -angle.cos(), torch.zeros_like(angle)]).float().view(1, 3, 1, -1)


def test_by_hand() -> None:
    task, degrees = Normals(), [0.0, 11.2, 11.3, 22.4, 29.9, 30.1, 90.0, 180.0]
    summary = task.summarize(task.statistics(tilted(degrees, 7.0), tilted([0.0] * 8, 0.8)).sum(0))
    assert summary["mean"].value == pytest.approx(sum(degrees) / 8, abs=1e-4)
    assert summary["median"].value == pytest.approx((22.4 + 29.9) / 2, abs=0.0501)
    assert [summary[f"within_{t}"].value for t in ("11.25", "22.5", "30")] == [25.0, 50.0, 62.5]


def test_against_a_loop_over_pixels_and_numpy_median() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(2, 3, 9, 11))
    truth /= np.linalg.norm(truth, axis=1, keepdims=True)
    output = (truth + rng.normal(0, 0.4, truth.shape)) * rng.uniform(0.1, 3, (2, 1, 9, 11))
    truth[:, :, 2:4, 1:5] *= 0.3
    output, truth = output.astype(np.float32), truth.astype(np.float32)
    angles = []
    for n, y, x in np.ndindex(2, 9, 11):
        p, g = output[n, :, y, x].astype(float), truth[n, :, y, x].astype(float)
        if math.hypot(*g) >= 0.5:
            angles.append(math.degrees(math.acos(np.clip(p @ g / math.hypot(*p) / math.hypot(*g), -1, 1))))
    task = Normals()
    summary = task.summarize(task.statistics(torch.tensor(output), torch.tensor(truth)).sum(0))
    assert len(angles) == 2 * (99 - 8)
    assert summary["mean"].value == pytest.approx(np.mean(angles), abs=1e-9)
    assert summary["median"].value == pytest.approx(np.median(angles), abs=0.05 + 1e-9)
    for limit in (11.25, 22.5, 30):
        assert summary[f"within_{limit:g}"].value == pytest.approx(100 * np.mean(np.array(angles) < limit))


@pytest.mark.parametrize("number", [1, 2, 3, 4, 11, 500])
@pytest.mark.parametrize("spread", [0.3, 20.0, 180.0])
def test_the_median_is_within_half_a_bin_however_sparse(number: int, spread: float) -> None:
    angles = np.random.default_rng(number).uniform(0, spread, number)
    counts = np.histogram(angles, BINS, (0, 180))[0]
    assert histogram_median(torch.tensor(counts).double()) == pytest.approx(np.median(angles), abs=0.05 + 1e-9)


def test_two_middles_far_apart() -> None:
    counts = torch.zeros(BINS, dtype=torch.float64)
    counts[100] = counts[1700] = 2
    assert histogram_median(counts) == pytest.approx((10.05 + 170.05) / 2)
    assert math.isnan(histogram_median(torch.zeros(BINS)))


def test_a_perfect_prediction_in_float32_measures_nothing() -> None:
    truth = torch.nn.functional.normalize(torch.randn(2, 3, 20, 20, generator=torch.Generator().manual_seed(0)), dim=1)
    summary = Normals().summarize(Normals().statistics(3 * truth, truth).sum(0))
    assert summary["mean"].value < 1e-4 and summary["median"].value <= 0.0501 and summary["within_11.25"].value == 100


def test_a_zero_prediction_is_ninety_degrees_off_and_a_broken_one_shows() -> None:
    task, truth = Normals(), tilted([0.0, 40.0])
    assert task.summarize(task.statistics(torch.zeros_like(truth), truth).sum(0))["mean"].value == pytest.approx(90)
    broken = task.summarize(task.statistics(truth * float("nan"), truth).sum(0))
    assert math.isnan(broken["mean"].value) and broken["within_30"].value == 0


def test_loss_by_hand_and_its_gradient_at_zero() -> None:
    task = Normals()
    losses = task.pixel_loss(tilted([0.0, 60.0, 90.0, 180.0], 0.2), tilted([0.0] * 4, 0.9)).flatten()
    torch.testing.assert_close(losses, torch.tensor([0.0, 0.5, 1.0, 2.0]), atol=1e-5, rtol=0)
    output = torch.zeros(1, 3, 1, 1, requires_grad=True)
    task.loss(output, tilted([0.0])).backward()
    assert output.grad is not None and float(output.grad.norm()) == pytest.approx(1000, rel=1e-3)


def test_flip_mirrors_x_only() -> None:
    np.testing.assert_array_equal(Normals().flip(np.array([[[0.6, -0.8, 0.1]]])), [[[-0.6, -0.8, 0.1]]])


def test_self_labels_are_unit_vectors() -> None:
    label = Normals().self_label(tilted([10.0, 70.0], 5.0))
    torch.testing.assert_close(label, tilted([10.0, 70.0]), atol=1e-6, rtol=0)


def test_customary_colours() -> None:
    wall, floor, right = torch.tensor([0.0, -1, 0]), torch.tensor([0.0, 0, 1]), torch.tensor([1.0, 0, 0])
    picture = Normals().colorize(torch.stack([wall, floor, right], dim=-1).view(3, 1, 3))
    assert picture[0].tolist() == [[128, 128, 255], [128, 255, 128], [255, 128, 128]]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_renormalized_vectors_are_unit_or_zero(dtype: type) -> None:
    rng = np.random.default_rng(0)
    stored = rng.normal(size=(7, 9, 3)) * rng.uniform(0.2, 2, (7, 9, 1))
    stored[0, 0], stored[1, 1], stored[2, 2] = 0, (0.1, 0.3, 0.2), (np.nan, 1, 0)
    stored[3, 3], stored[4, 4], stored[5, 5] = (np.inf, 0, 0), (0, 0.5, 0), (0.3, -0.4, 0)
    target = stored.astype(dtype)
    before = target.copy()
    result = Normals().renormalize(target)
    assert result.dtype == dtype and result.shape == target.shape
    np.testing.assert_array_equal(target, before)
    for y, x in np.ndindex(7, 9):
        vector = target[y, x].astype(float)
        length = math.sqrt(sum(vector**2))
        expected = vector / length if 0.5 <= length < math.inf else np.zeros(3)
        np.testing.assert_allclose(result[y, x], expected, atol=np.finfo(dtype).eps)
    np.testing.assert_allclose(result[4, 4], [0, 1, 0])
    valid = Normals().valid(torch.from_numpy(np.moveaxis(target, -1, 0)[None].astype(np.float32)))[0].numpy()
    np.testing.assert_array_equal(result.any(-1), valid)
    np.testing.assert_allclose(Normals().renormalize(result), result, atol=2 * np.finfo(dtype).eps)
