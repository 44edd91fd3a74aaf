"""The base of tasks that predict vectors, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from symerge_dense.tasks.vector import Vector


class Flow(Vector):
    """Optical flow in pixels."""

    name, channels, in_pixels = "flow", 2, True


def vectors(*entries: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(entries).T.reshape(1, -1, 1, len(entries))


def test_metrics_and_loss_by_hand() -> None:
    nan = math.nan
    truth = vectors((0.0, 0.0), (-2.0, 1.0), (nan, 1.0), (math.inf, 0.0))
    output = vectors((3.0, 4.0), (-2.0, 1.0), (9.0, 9.0), (9.0, 9.0))
    summary = Flow().summarize(Flow().statistics(output, truth).sum(0))
    assert {name: metric.value for name, metric in summary.items()} == {"epe": 2.5, "abs": 1.75}
    assert float(Flow().loss(output, truth)) == 1.75
    assert Flow().valid(truth).tolist() == [[[True, True, False, False]]]


def test_a_mirror_turns_the_named_components_and_a_zoom_stretches_pixels() -> None:
    target = np.array([[[3.0, 1.0], [math.nan, 0.0]]], np.float32)
    np.testing.assert_array_equal(Flow().flip(target), np.float32([[[-3, 1], [math.nan, 0]]]))
    np.testing.assert_array_equal(Flow().zoom(target, 2.0), np.float32([[[6, 2], [math.nan, 0]]]))
    output = torch.arange(4.0).view(1, 2, 1, 2)
    assert Flow().mirror_output(output).tolist() == [[[[-1, 0]], [[3, 2]]]]

    class Coordinates(Vector):
        name, channels, components, mirrored = "coordinates", 3, ("right", "up", "depth"), ("right",)
        invalid_value = 0.0

    task = Coordinates()
    assert task.zoom(target, 2.0) is not target and np.array_equal(task.zoom(target, 2.0), target, equal_nan=True)
    assert task.valid(vectors((0.0, 0.0, 0.0), (0.0, 0.0, 2.0))).tolist() == [[[False, True]]]
    assert task.legend().names == ("+right", "-right", "+up", "-up")


def test_a_marker_is_kept_by_mirror_and_zoom() -> None:
    class Marked(Flow):
        invalid_value = -1.0

    target = np.array([[[-1.0, -1.0], [-1.0, 2.0]]], np.float32)
    np.testing.assert_array_equal(Marked().flip(target), [[[-1, -1], [1, 2]]])
    np.testing.assert_array_equal(Marked().zoom(target, 3.0), [[[-1, -1], [-3, 6]]])


def test_components_must_be_named() -> None:
    class Unknown(Flow):
        mirrored = ("horizontal",)

    class Many(Flow):
        channels = 5

    with pytest.raises(ValueError, match=r"mirrored: unknown component 'horizontal'.*x.*y"):
        Unknown()
    with pytest.raises(ValueError, match=r"3 components .* for 5 channels; give `components` one name per channel"):
        Many()


def test_directions_have_hues_and_zero_is_white() -> None:
    task = Flow()
    picture = task.colorize(torch.tensor([[[0.0, 2.0, -2.0, math.nan]], [[0.0, 0.0, 0.0, 0.0]]]))[0]
    assert picture[0].tolist() == [255, 255, 255] and picture[3].tolist() == [0, 0, 0]
    assert picture[1].tolist() == list(task.legend().colors[0]) and picture[2].tolist() == list(task.legend().colors[1])
    assert len(set(task.legend().colors)) == 4


def test_files_have_kittis_range_and_step() -> None:
    storage = Flow().storage
    stored = storage.encode(torch.tensor([[[0.0, 1.5, math.nan]], [[-512.0, 511.0, 0.0]]]))
    assert stored.tolist() == [[[32768, 0], [32864, 65472], [0, 0]]]
    np.testing.assert_array_equal(storage.decode(stored)[0, :2], np.float32([[0, -512], [1.5, 511]]))
    assert np.isnan(storage.decode(stored)[0, 2]).all()
