"""What every registered task must satisfy; a new task is tested here without a line being added."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from symerge_dense.datasets.base import to_tensor
from symerge_dense.registry import TASKS
from symerge_dense.tasks.base import DenseTask
from symerge_dense.tasks.colors import DARKEST
from symerge_dense.tasks.metric import Metric
from symerge_dense.tasks.probability import Probability
from symerge_dense.tasks.vector import Vector

SIZE = (6, 8)
HOLE = (..., slice(1, 4), slice(2, 5))


class Saliency(Probability):
    """What a user writes."""

    name, channels = "saliency", 1


class Masks(Probability):
    """Several masks."""

    name, channels = "masks", 3


class Flow(Vector):
    """Optical flow."""

    name, unit, channels, in_pixels = "flow", "px", 2, True


@pytest.fixture(params=[*TASKS, Saliency, Masks, Flow])
def task(request: pytest.FixtureRequest) -> DenseTask:
    built: DenseTask = (TASKS[request.param] if isinstance(request.param, str) else request.param)()
    return built


def outputs(task: DenseTask, images: int = 3, seed: int = 0) -> Tensor:
    """Raw outputs in 0.1..0.9, which every task so far could have produced."""
    generator = torch.Generator().manual_seed(seed)
    return 0.1 + 0.8 * torch.rand(images, task.channels, *SIZE, generator=generator)


def truths(task: DenseTask, output: Tensor, hole: bool = True) -> Tensor:
    """Ground truth that ``output`` predicts perfectly (a hard label has the layout of ground truth), with a hole."""
    truth = task.self_label(output, soft=False).clone()
    if hole:
        truth[HOLE] = task.invalid_value
    return truth


def test_there_are_the_six_tasks_that_the_package_documents() -> None:
    assert {"segmentation", "depth", "normals", "edges", "albedo", "shading"} <= set(TASKS)


def test_attributes(task: DenseTask) -> None:
    assert task.channels >= 1
    assert task.headline in task.metrics
    assert task.interpolation in ("nearest", "masked")


def test_valid_is_false_exactly_in_the_hole(task: DenseTask) -> None:
    valid = task.valid(truths(task, outputs(task)))
    expected = torch.ones(3, *SIZE, dtype=torch.bool)
    expected[HOLE] = False
    assert valid.dtype == torch.bool and torch.equal(valid, expected)


@pytest.mark.parametrize("soft", [True, False])
def test_pixel_loss_of_self_labels_in_both_precisions(task: DenseTask, soft: bool) -> None:
    output = outputs(task)
    label = task.self_label(outputs(task, seed=1), soft=soft)
    losses = task.pixel_loss(output, label)
    assert losses.shape == (3, *SIZE) and losses.dtype == torch.float32
    assert (losses >= 0).all() and losses.sum() > 0
    if label.is_floating_point():
        torch.testing.assert_close(task.pixel_loss(output, label.half()), losses, atol=2e-3, rtol=2e-3)
    assert task.pixel_loss(output.half(), label).dtype == torch.float32


@pytest.mark.parametrize("half", [True, False])
def test_soft_label_of_the_output_itself_costs_nothing(task: DenseTask, half: bool) -> None:
    output = outputs(task)
    label = task.self_label(output)
    loss = task.loss(output, label.half() if half else label, valid=torch.ones(3, *SIZE, dtype=torch.bool))
    assert abs(float(loss)) < (5e-4 if half else 1e-6)


def test_self_label_carries_no_gradient(task: DenseTask) -> None:
    output = outputs(task).requires_grad_()
    assert not task.self_label(output).requires_grad
    assert not task.self_label(output, soft=False).requires_grad


def test_gradient_is_finite_and_zero_in_the_hole(task: DenseTask) -> None:
    output = outputs(task).requires_grad_()
    task.loss(output, truths(task, outputs(task, seed=1))).backward()
    assert output.grad is not None and output.grad.isfinite().all()
    assert output.grad[HOLE].abs().sum() == 0 and output.grad.abs().sum() > 0


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), None])
def test_without_any_label_loss_and_gradient_are_zero(task: DenseTask, poison: float | None) -> None:
    output = outputs(task).requires_grad_()
    truth = truths(task, outputs(task, seed=1))
    truth[:] = poison if poison is not None and truth.is_floating_point() else task.invalid_value
    assert not task.valid(truth).any()
    loss = task.loss(output, truth)
    loss.backward()
    assert float(loss.detach()) == 0 and output.grad is not None and torch.equal(output.grad, torch.zeros_like(output))


def test_loss_is_the_mean_over_valid_pixels(task: DenseTask) -> None:
    output, truth = outputs(task), truths(task, outputs(task, seed=1))
    expected = task.pixel_loss(output, truth)[task.valid(truth)].mean()
    torch.testing.assert_close(task.loss(output, truth), expected)


def test_loss_names_shapes_that_do_not_fit(task: DenseTask) -> None:
    output, truth = outputs(task), truths(task, outputs(task))
    with pytest.raises(ValueError, match="does not fit output"):
        task.loss(output[..., :-1], truth)
    with pytest.raises(ValueError, match=f"channels={task.channels}"):
        task.loss(torch.cat([output, output], dim=1), truth)


def test_statistics_are_additive_and_per_image(task: DenseTask) -> None:
    output, truth = outputs(task), truths(task, outputs(task, seed=1))
    rows = task.statistics(output, truth)
    assert rows.dtype == torch.float64 and rows.ndim == 2 and len(rows) == 3
    singles = torch.cat([task.statistics(output[i : i + 1], truth[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(rows, singles, rtol=1e-6, atol=1e-9)
    stacked = task.statistics(torch.cat(list(output), dim=-1)[None], torch.cat(list(truth), dim=-1)[None])
    torch.testing.assert_close(rows.sum(0), stacked[0], rtol=1e-7, atol=1e-7)


def test_statistics_ignore_what_is_invalid(task: DenseTask) -> None:
    output, truth = outputs(task), truths(task, outputs(task, seed=1))
    other = output.clone()
    other[HOLE] = outputs(task, seed=2)[HOLE]
    assert torch.equal(task.statistics(output, truth), task.statistics(other, truth))


def test_summary_has_the_declared_metrics_in_order(task: DenseTask) -> None:
    summary = task.summarize(task.statistics(outputs(task), truths(task, outputs(task, seed=1))).sum(0))
    assert list(summary) == list(task.metrics)
    assert all(isinstance(metric, Metric) and np.isfinite(metric.value) for metric in summary.values())
    assert {name: metric.higher_is_better for name, metric in summary.items()} == task.metrics


def test_a_perfect_prediction_is_the_best(task: DenseTask) -> None:
    output = outputs(task)
    truth = truths(task, output)
    best = task.summarize(task.statistics(output, truth).sum(0))
    for seed in range(1, 4):
        other = task.summarize(task.statistics(outputs(task, seed=seed) - 0.3, truth).sum(0))
        for name, metric in best.items():
            lead = metric.value - other[name].value
            assert (lead if metric.higher_is_better else -lead) >= 0, name
        assert other[task.headline].value != best[task.headline].value


def test_without_any_label_every_metric_is_nan(task: DenseTask) -> None:
    truth = truths(task, outputs(task))
    truth[:] = task.invalid_value
    summary = task.summarize(task.statistics(outputs(task), truth).sum(0))
    assert all(np.isnan(metric.value) for metric in summary.values())


def test_confidence_and_entropy(task: DenseTask) -> None:
    output = outputs(task)
    confidence, entropy = task.confidence(output), task.entropy(output)
    assert (confidence is None) == (entropy is None)
    if confidence is not None and entropy is not None:
        assert confidence.shape == entropy.shape == (3, *SIZE)
        assert (confidence > 0).all() and (confidence <= 1).all() and (entropy > 0).all()
        sure = task.entropy(1000 * output)
        assert sure is not None and float(sure.mean()) < 0.2 * float(entropy.mean())


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_geometry_keeps_dtype_and_invalid_pixels_and_undoes_itself(task: DenseTask, dtype: type) -> None:
    truth = truths(task, outputs(task))[0].numpy()
    stored = np.moveaxis(truth.astype(dtype), 0, -1) if truth.ndim == 3 else truth
    original = stored.copy()
    flipped, zoomed = task.flip(stored), task.zoom(stored, 1.5)
    assert flipped.dtype == zoomed.dtype == stored.dtype and flipped.shape == zoomed.shape == stored.shape
    np.testing.assert_array_equal(task.flip(flipped), original)
    np.testing.assert_array_equal(stored, original)
    hole = (slice(1, 4), slice(2, 5))
    np.testing.assert_array_equal(flipped[hole], original[hole])
    np.testing.assert_array_equal(zoomed[hole], original[hole])


def test_pictures_are_rgb_and_black_exactly_where_invalid(task: DenseTask) -> None:
    output = outputs(task)
    truth = truths(task, output)
    for picture in (task.colorize(truth[0]), task.colorize(truth[0], limits=task.limits(truth[0]))):
        assert picture.shape == (*SIZE, 3) and picture.dtype == np.uint8
        np.testing.assert_array_equal((picture == 0).all(-1), ~task.valid(truth)[0].numpy())
    decided = task.colorize(task.decide(output)[0])
    assert decided.shape == (*SIZE, 3) and decided.dtype == np.uint8 and decided.any()


def test_a_picture_without_any_label_is_black(task: DenseTask) -> None:
    truth = truths(task, outputs(task))
    truth[:] = task.invalid_value
    assert not task.colorize(truth[0]).any()


def test_the_average_of_equal_views_is_the_view(task: DenseTask) -> None:
    output = outputs(task)
    mean, variance = task.average([output, output.clone(), output], weights=[1, 2, 0])
    assert mean.shape == output.shape and variance.shape == (3, *SIZE)
    torch.testing.assert_close(task.decide(mean), task.decide(output))
    torch.testing.assert_close(task.self_label(mean), task.self_label(output))
    assert (variance >= 0).all() and float(variance.max()) < 1e-6
    assert float(task.average([output, 1 - outputs(task, seed=1)])[1].mean()) > 1e-4


def test_views_weigh_as_asked_and_unfit_ones_are_refused(task: DenseTask) -> None:
    first, second = outputs(task), outputs(task, seed=1)
    torch.testing.assert_close(task.decide(task.average([first, second], weights=[0, 3])[0]), task.decide(second))
    for views, weights in (([], None), ([first, second[:1]], None), ([first], [1, 2]), ([first], [0]), ([first], [-1])):
        with pytest.raises(ValueError, match="give"):
            task.average(views, weights)


def test_mirrored_twice_is_the_output_and_once_is_what_flip_says(task: DenseTask) -> None:
    output = outputs(task)
    assert torch.equal(task.mirror_output(task.mirror_output(output)), output)
    once = task.mirror_output(output)
    for image, mirrored in zip(task.self_label(output, soft=False), task.self_label(once, soft=False), strict=True):
        turned = image.flip(-1).numpy()
        expected = task.flip(turned) if task.class_map else np.moveaxis(task.flip(np.moveaxis(turned, 0, -1)), -1, 0)
        np.testing.assert_allclose(mirrored.numpy(), expected, atol=1e-6)


def test_storage_keeps_values_within_half_a_step_and_what_is_invalid(task: DenseTask) -> None:
    truth = truths(task, outputs(task))
    storage = task.storage
    stored = storage.encode(truth[0])
    assert stored.dtype == storage.dtype and stored.shape[:2] == SIZE
    back = to_tensor(storage.decode(stored))
    assert back.dtype == truth[0].dtype and torch.equal(task.valid(back[None]), task.valid(truth[:1]))
    valid = task.valid(truth[:1])[0]
    assert float((back - truth[0])[..., valid].abs().max()) <= storage.scale / 2 * 1.001 * (not task.class_map)


def test_a_prediction_is_stored_and_painted_as_valid_whatever_its_value(task: DenseTask) -> None:
    for output in (0.0 * outputs(task), -outputs(task), 40 * outputs(task) - 20):
        decided = task.decide(output)[0]
        picture = task.colorize_prediction(decided)
        assert picture.shape == (*SIZE, 3) and picture.dtype == np.uint8
        assert picture.max(-1).min() >= DARKEST
        everywhere = torch.ones(SIZE, dtype=torch.bool)
        stored = to_tensor(task.storage.decode(task.storage.encode(decided, everywhere)))
        if (task.name, float(output.abs().sum())) != ("normals", 0.0):  # a vector without direction has no label
            assert task.valid(stored[None]).all()


def test_the_legend_has_a_colour_per_name_or_a_scale(task: DenseTask) -> None:
    legend = task.legend((1.0, 2.0))
    if legend.names:
        assert len(legend.names) == len(legend.colors) and legend.low is legend.high is None
    elif legend.colors:
        assert len(legend.colors) > 1 and legend.low is not None and legend.high is not None
        assert legend.low < legend.high
    assert all(len(color) == 3 and DARKEST <= max(color) <= 255 and min(color) >= 0 for color in legend.colors)
