"""What every task can do with its predictions by default, on tasks that say nothing of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from symerge_dense.tasks.base import Array
from symerge_dense.tasks.predictions import Predictions, moments
from symerge_dense.tasks.segmentation import Segmentation
from symerge_dense.tasks.storage import PngStorage


class Plain(Predictions):
    """Two numbers of either sign, the first of which turns in a mirror."""

    name, channels = "plain", 2
    invalid_value = -512.0

    def flip(self, target: Array) -> Array:
        turned = target.copy()
        turned[..., 0] *= -1
        return turned

    def colorize(self, prediction: Tensor, limits: tuple[float, float] | None = None) -> Array:
        return np.zeros((*prediction.shape[-2:], 3), np.uint8)


class Hands(Segmentation):
    """Background, left hand, right hand: a mirror makes one of the other."""

    def flip(self, target: Array) -> Array:
        return np.array([0, 2, 1, *range(3, 256)])[target].astype(target.dtype)


def test_a_mirrored_output_is_turned_back_as_flip_says() -> None:
    output = torch.arange(8.0).view(1, 2, 2, 2)
    assert Plain().mirror_output(output).tolist() == [[[[-1, 0], [-3, -2]], [[5, 4], [7, 6]]]]
    half = Plain().mirror_output(output.half())
    assert half.dtype == torch.float16 and half[0, 0, 0, 0] == -1


def test_classes_that_change_sides_change_channels() -> None:
    task = Hands(3)
    output = torch.tensor([0.0, 5.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 1, 2) + torch.tensor([0.0, 0.25])
    turned = task.mirror_output(output)
    assert turned[0, :, 0].tolist() == [[0.25, 0.0], [1.25, 1.0], [5.25, 5.0]]
    decided = task.decide(output)[0].numpy()
    np.testing.assert_array_equal(task.decide(turned)[0].numpy(), task.flip(decided[:, ::-1]))


def test_an_unknown_range_is_stored_in_kittis_steps_and_black_predictions_become_grey() -> None:
    task = Plain()
    values = torch.tensor([[[-3.0, 0.25]], [[511.0, -512.0]]])
    np.testing.assert_array_equal(task.storage.decode(task.storage.encode(values)), values.permute(1, 2, 0).numpy())
    picture = task.colorize_prediction(torch.tensor([[[1.0, float("nan")]], [[1.0, 1.0]]]))
    assert picture.tolist() == [[[40, 40, 40], [0, 0, 0]]]
    assert task.legend().names == () and task.legend().colors == ()


def test_moments_by_hand() -> None:
    views = [torch.tensor([0.0, 2.0]).view(1, 2, 1, 1), torch.tensor([4.0, 2.0]).view(1, 2, 1, 1)]
    mean, variance = moments(views, [3, 1])
    assert mean.flatten().tolist() == [1, 2] and variance.tolist() == [[[3]]]  # 3/4 * 1 + 1/4 * 9
    assert moments([views[0].half()])[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("storage", "values", "stored"),
    [
        (PngStorage("uint8", invalid=255, class_map=True, marker=255.0), [0, 254, 255], [0, 254, 255]),
        (PngStorage("uint8", invalid=0, marker=-1.0), [0, 1, -1, 300], [1, 1, 0, 255]),
        (PngStorage("uint8", invalid=255, marker=-1.0), [255, 7, -1], [254, 7, 255]),
        (PngStorage("uint8", invalid=None, scale=0.5, offset=-1.0), [-1, 0.2, 9], [0, 2, 20]),
    ],
)
def test_only_what_has_no_label_gets_its_number(storage: PngStorage, values: list[float], stored: list[int]) -> None:
    assert storage.encode(torch.tensor([values])).tolist() == [stored]
