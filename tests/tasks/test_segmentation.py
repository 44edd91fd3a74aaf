"""Segmentation against hand-computed numbers and a loop over pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from symerge_dense.tasks.segmentation import Segmentation


def one_hot_logits(classes: torch.Tensor, channels: int) -> torch.Tensor:
    return 5.0 * F.one_hot(classes, channels).movedim(-1, 1).float()


def test_hand_computed_case_with_an_absent_class() -> None:
    task = Segmentation(4, class_names=["a", "b", "c", "d"])
    truth = torch.tensor([[[0, 0, 1, 1], [1, 255, 255, 0]]])
    predicted = torch.tensor([[[0, 1, 1, 1], [2, 0, 3, 0]]])
    total = task.statistics(one_hot_logits(predicted, 4), truth).sum(0)
    summary = task.summarize(total)
    # IoU: a 2/3, b 2/4, c 0/1 (predicted only), d absent: its one prediction lies on an invalid pixel
    assert summary["mIoU"].value == pytest.approx(100 * (2 / 3 + 1 / 2 + 0) / 3)
    assert summary["pixel_accuracy"].value == pytest.approx(100 * 4 / 6)
    assert task.absent_classes(total) == ["d"]
    assert "d" in task.remarks(total)[0] and Segmentation().remarks(torch.ones(169)) == []


def test_statistics_equal_a_loop_over_pixels() -> None:
    generator = torch.Generator().manual_seed(3)
    task = Segmentation(5)
    output = torch.randn(2, 5, 7, 9, generator=generator)
    truth = torch.randint(0, 6, (2, 7, 9), generator=generator)
    truth[truth == 5] = 255
    expected = np.zeros((2, 5, 5))
    for n, y, x in np.ndindex(2, 7, 9):
        if truth[n, y, x] != 255:
            expected[n, truth[n, y, x], output[n, :, y, x].argmax()] += 1
    np.testing.assert_array_equal(task.statistics(output, truth).view(2, 5, 5).numpy(), expected)


@pytest.mark.parametrize("wrong", [-1, 13, 254])
def test_a_label_out_of_range_is_named(wrong: int) -> None:
    task, output, truth = Segmentation(), torch.zeros(1, 13, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64)
    truth[0, 1, 1] = wrong
    for use in (task.statistics, task.loss):
        with pytest.raises(ValueError, match=rf"\[{wrong}\] are outside 0..12 and not 255"):
            use(output, truth)


def test_soft_loss_has_the_gradient_of_soft_cross_entropy_and_its_value_less_the_entropy() -> None:
    generator = torch.Generator().manual_seed(0)
    task = Segmentation(6)
    output = torch.randn(2, 6, 4, 4, generator=generator, requires_grad=True)
    label = task.self_label(torch.randn(2, 6, 4, 4, generator=generator))
    (ours,) = torch.autograd.grad(task.pixel_loss(output, label).sum(), output)
    reference = F.cross_entropy(output, label, reduction="none")
    (theirs,) = torch.autograd.grad(reference.sum(), output)
    torch.testing.assert_close(ours, theirs)
    entropy = -(label * label.log()).sum(1)
    torch.testing.assert_close(task.pixel_loss(output, label), reference - entropy, atol=1e-5, rtol=1e-5)


def test_hard_loss_is_cross_entropy_and_takes_small_integers() -> None:
    task, output = Segmentation(3), torch.tensor([2.0, 0.0, 0.0]).view(1, 3, 1, 1)
    expected = math.log(math.exp(2) + 2) - 2
    for dtype in (torch.int64, torch.uint8):
        assert float(task.pixel_loss(output, torch.zeros(1, 1, 1, dtype=dtype))) == pytest.approx(expected, abs=1e-6)


def test_a_label_of_certainty_stays_finite() -> None:
    task, output = Segmentation(3), torch.tensor([500.0, 0.0, -500.0]).view(1, 3, 1, 1)
    label = task.self_label(output).half()
    assert float(task.pixel_loss(output, label)) == pytest.approx(0, abs=1e-6)
    assert float(task.pixel_loss(-output, label)) == pytest.approx(1000)


def test_confidence_and_entropy_by_hand() -> None:
    task = Segmentation(2)
    output = torch.tensor([math.log(3.0), 0.0]).view(1, 2, 1, 1)
    assert float(task.confidence(output)) == pytest.approx(0.75)
    assert float(task.entropy(output)) == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))


@pytest.mark.parametrize("classes", [2, 13, 40, 255])
def test_colours_are_distinct_and_never_black(classes: int) -> None:
    ids = torch.arange(classes).view(1, -1)
    colors = {tuple(color) for color in Segmentation(classes).colorize(ids)[0].tolist()}
    assert len(colors) == classes and (0, 0, 0) not in colors


def test_wrong_arguments_are_refused() -> None:
    for arguments in ({"classes": 1}, {"classes": 256}, {"class_names": ["a"]}, {"classes": 2, "palette": [(1, 2, 3)]}):
        with pytest.raises(ValueError, match="classes"):
            Segmentation(**arguments)


def test_miou_is_the_mean_of_its_parts() -> None:
    """Class 0: 2 of 3 pixels; class 1: 1 of 2; class 2 is nowhere."""
    task = Segmentation(3, class_names=["wall", "floor", "wall"])
    output = torch.tensor([[9.0, 9, 0, 0], [0.0, 0, 9, 9], [0.0, 0, 0, 0]]).view(1, 3, 1, 4)
    total = task.statistics(output, torch.tensor([[[0, 0, 0, 1]]]))[0]
    for measured in (task.summarize(total), task.mtan_summarize(total)):
        assert measured["mIoU"].parts == pytest.approx({"0 wall": 200 / 3, "1 floor": 50.0, "2 wall": None})
        assert measured["pixel_accuracy"].parts is None
    assert task.summarize(total)["mIoU"].value == pytest.approx((200 / 3 + 50) / 2)
    assert list(Segmentation(13).summarize(torch.ones(169))["mIoU"].parts or {})[:2] == ["bed", "books"]


def test_black_is_no_class_s_colour() -> None:
    task = Segmentation(3, palette=[(0, 0, 0), (0, 10, 0), (0, 0, 255)])
    picture = task.colorize(torch.tensor([[0, 1, 2, 255]]))[0]
    assert picture.tolist() == [[40, 40, 40], [30, 40, 30], [0, 0, 255], [0, 0, 0]]
    assert task.legend().colors == ((40, 40, 40), (30, 40, 30), (0, 0, 255)) and len(task.legend().names) == 3


@pytest.mark.parametrize("color", [(0, 0, 256), (-1, 0, 0), (0, 0)])
def test_a_palette_has_colours(color: tuple[int, ...]) -> None:
    with pytest.raises(
        ValueError, match=r"palette .* must have colours \(red, green, blue\) of whole numbers from 0 to"
    ):
        Segmentation(2, palette=[(1, 2, 3), color])


@pytest.mark.parametrize("soft", [True, False])
def test_pixels_of_rare_classes_weigh_more(soft: bool) -> None:
    """Class 0 has 3 of 4 pixels, class 1 has one, class 2 none. With exponent 1 both classes weigh the same in all."""
    task, ids = Segmentation(3), torch.tensor([[[0, 0, 0, 1]]])
    label = torch.nn.functional.one_hot(ids, 3).permute(0, 3, 1, 2).float() if soft else ids
    weight = task.rarity(label, 1.0, torch.ones_like(ids, dtype=torch.bool))
    assert weight.shape == (1, 1, 4)
    expected = torch.tensor([1 / 0.751] * 3 + [1 / 0.251])
    torch.testing.assert_close(weight.flatten(), expected / expected.mean())
    assert weight[..., :3].sum().item() == pytest.approx(weight[..., 3].item(), rel=0.01)
    torch.testing.assert_close(task.rarity(label, 0.0, ids >= 0), torch.ones(1, 1, 4))


def test_a_pixel_between_two_classes_weighs_between_them() -> None:
    label = torch.tensor([[1.0, 1.0, 0.0, 0.5], [0.0, 0.0, 1.0, 0.5]]).view(1, 2, 1, 4)
    weight = Segmentation(2).rarity(label, 0.5, torch.ones(1, 1, 4, dtype=torch.bool)).flatten()
    assert weight[0] == weight[1] < weight[3] < weight[2] and weight.mean().item() == pytest.approx(1.0)
    torch.testing.assert_close(weight[3], (weight[0] + weight[2]) / 2)


def test_pixels_without_a_label_do_not_count_as_a_class() -> None:
    """An image that the expert does not label has a label of zeros, which looks like every class at once."""
    label = torch.tensor([[[1.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]]]).view(1, 2, 1, 3)
    both = torch.cat([label, torch.full_like(label, 0.5)])
    valid = torch.tensor([True, False]).view(2, 1, 1).expand(2, 1, 3)
    alone = Segmentation(2).rarity(label, 0.5, valid[:1])
    torch.testing.assert_close(Segmentation(2).rarity(both, 0.5, valid)[:1], alone)
