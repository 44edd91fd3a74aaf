"""The contracts of a task's predictions: several views, files, pictures. Each takes a ``DenseTask``."""

from __future__ import annotations

import numpy as np
import torch

from symerge_dense.datasets.base import to_tensor
from symerge_dense.tasks.base import DenseTask
from symerge_dense.tasks.colors import DARKEST
from symerge_dense.testing.contract import expect
from symerge_dense.testing.metrics import MEASURING
from symerge_dense.testing.tasks import IMAGES, LEARNING, SIZE, example_outputs, example_truths, stored


def check_average_of_equal_views(task: DenseTask) -> None:
    """The average of equal views is the view, with no variance; different views have one."""
    output = example_outputs(task)
    mean, variance = task.average([output, output.clone(), output], weights=[1, 2, 0])
    expect(
        mean.shape == output.shape and variance.shape == (IMAGES, *SIZE),
        f"average gives {tuple(mean.shape)} and {tuple(variance.shape)}; give a raw output (N, C, h, w) and (N, h, w).",
    )
    same = torch.allclose(task.self_label(mean), task.self_label(output), atol=1e-4, rtol=1e-4)
    expect(
        same and torch.allclose(task.decide(mean), task.decide(output), atol=1e-4, rtol=1e-4),
        "three equal views average to another prediction; return a RAW output: the logarithm or logit of a mean "
        "probability, not the probability.",
    )
    expect(bool((variance >= 0).all() and variance.max() < 1e-6), "equal views have a variance.")
    other = task.average([output, -output.roll(1, dims=-1)])[1]
    expect(float(other.mean()) > 1e-6, "different views have no variance.")


def check_average_of_other_views(task: DenseTask) -> None:
    """A view without weight has no effect, and views or weights that do not fit are refused."""
    first, second = example_outputs(task), example_outputs(task, seed=1)
    mean, _ = task.average([first, second], weights=[0, 3])
    expect(torch.allclose(task.decide(mean), task.decide(second), atol=1e-4), "a view of weight 0 has an effect.")
    for views, weights in (([], None), ([first, second[:1]], None), ([first], [1, 2]), ([first], [0]), ([first], [-1])):
        try:
            task.average(views, weights)
        except ValueError:
            continue
        expect(False, f"{len(views)} views with weights {weights} are averaged; let `moments` check them.")


def check_mirror(task: DenseTask) -> None:
    """Mirrored twice is the output itself, and once is what ``flip`` makes of its label."""
    output = example_outputs(task)
    once = task.mirror_output(output)
    expect(torch.equal(task.mirror_output(once), output), "mirror_output twice is not the identity.")
    labels, mirrored = (task.self_label(raw, soft=False) for raw in (output, once))
    for label, found in zip(labels, mirrored, strict=True):
        expect(
            np.allclose(stored(found), task.flip(stored(label.flip(-1)).copy()), atol=1e-5),
            "mirror_output and flip disagree; where the raw output is no value that flip could change, override "
            "mirror_output.",
        )


def check_rescale(task: DenseTask) -> None:
    """The output of an enlarged image, whose values are what ``zoom`` makes of them, comes back as the plain one."""
    plain, scale = example_outputs(task), 2.0
    label = task.self_label(plain, soft=False)
    zoomed = torch.stack([to_tensor(task.zoom(stored(one).copy(), scale)) for one in label])
    unchanged = torch.equal(zoomed, label)
    if not unchanged and not torch.equal(label, plain):
        return  # no raw output of the enlarged image can be made without knowing the task
    back = task.rescale_output(plain if unchanged else zoomed, scale, plain)
    expect(
        back.shape == plain.shape and torch.allclose(back, plain, atol=1e-4, rtol=1e-4),
        "rescale_output does not undo what zoom does to the values; override it where the raw output is no value "
        "that zoom could change.",
    )


def check_storage(task: DenseTask) -> None:
    """A PNG file keeps decided values within half a step, and what has no label."""
    truth = example_truths(task, example_outputs(task))
    storage = task.storage
    numbers = storage.encode(truth[0])
    expect(
        numbers.dtype == storage.dtype and numbers.shape[:2] == SIZE,
        f"{numbers.dtype} {numbers.shape} is stored instead of {storage.dtype} of {SIZE}.",
    )
    back, valid = to_tensor(storage.decode(numbers)), task.valid(truth[:1])[0]
    told = f"storage is {storage}; override it with a range that holds the task's values"
    expect(
        back.shape == truth[0].shape and back.dtype == truth[0].dtype,
        f"a target {truth.dtype} {tuple(truth[0].shape)} comes back as {back.dtype} {tuple(back.shape)}: {told}.",
    )
    expect(torch.equal(task.valid(back[None])[0], valid), f"other pixels have a label afterwards: {told} and invalid.")
    lost = float((back - truth[0])[..., valid].abs().max())
    limit = 0.0 if task.class_map else storage.scale * 0.501
    expect(lost <= limit, f"values come back {lost:.3g} off, half a step is {limit:.3g}: {told}.")


def check_pictures_of_targets(task: DenseTask) -> None:
    """In a picture of a target black is where there is no label, and nowhere else."""
    truth = example_truths(task, example_outputs(task))
    valid = task.valid(truth)[0].numpy()
    for limits in (None, task.limits(truth[0])):
        picture = task.colorize(truth[0], limits=limits)
        found = f"{picture.dtype} {picture.shape}"
        expect(found == f"uint8 {(*SIZE, 3)}", f"colorize gives {found}; give uint8 (H, W, 3) RGB.")
        black = (picture == 0).all(-1)
        expect(black[~valid].all(), "pixels without label are not black; end colorize with `keep_black`.")
        expect(not black[valid].any(), "pixels with a label are black; end colorize with `keep_black`.")
    blank = torch.full_like(truth[0], task.invalid_value)
    expect(task.limits(blank) is None, "limits of a target without any label must be None.")
    expect(not task.colorize(blank).any(), "a target without any label is not black all over.")


def check_pictures_of_predictions(task: DenseTask) -> None:
    """A picture of a prediction is black nowhere, whatever was predicted."""
    output = example_outputs(task)
    for raw in (output, -output, 0 * output, 40 * output - 20):
        picture = task.colorize_prediction(task.decide(raw)[0])
        expect(
            picture.shape == (*SIZE, 3) and picture.dtype == np.uint8 and picture.max(-1).min() >= DARKEST,
            "colorize_prediction paints a prediction as 'no label'; end it with `keep_black(picture, finite)`.",
        )


def check_legend(task: DenseTask) -> None:
    """The legend has a colour per name, or a scale from low to high, or nothing."""
    for limits in (None, (1.0, 2.0)):
        legend = task.legend(limits)
        bright = all(len(color) == 3 and 0 <= min(color) <= max(color) <= 255 for color in legend.colors)
        expect(bright, f"legend has colours {legend.colors[:3]} ...; give (red, green, blue), 0..255.")
        expect(all(any(color) for color in legend.colors), "a colour of the legend is black, which means 'no label'.")
        if legend.names:
            expect(len(legend.names) == len(legend.colors), "legend must have as many colours as names.")
        elif legend.colors and limits:
            scaled = legend.low is not None and legend.high is not None and legend.low < legend.high
            expect(scaled, f"legend has a scale from {legend.low} to {legend.high}; low must be below high.")


TASK_CHECKS = (
    *LEARNING,
    *MEASURING,
    check_average_of_equal_views,
    check_average_of_other_views,
    check_mirror,
    check_rescale,
    check_storage,
    check_pictures_of_targets,
    check_pictures_of_predictions,
    check_legend,
)
"""All contracts of a task."""
