"""The contracts of a task's losses, labels and geometry. Each takes a ``DenseTask``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from symerge_dense.tasks.base import Array, DenseTask
from symerge_dense.tasks.metric import Metric
from symerge_dense.testing.contract import expect

IMAGES, SIZE = 3, (6, 8)
HOLE = (..., slice(1, 4), slice(2, 5))  # pixels without label
SHARP = 40.0  # a factor that makes a task which predicts probabilities sure of them


def example_outputs(task: DenseTask, seed: int = 0) -> Tensor:
    """Raw outputs (3,C,6,8) that the task could have given: -0.4..0.4 where it takes both signs, else 0.1..0.9.

    Args:
        task: to be tested.
        seed: of the values.
    """
    generator = torch.Generator().manual_seed(seed)
    positive = 0.1 + 0.8 * torch.rand(IMAGES, task.channels, *SIZE, generator=generator)
    signed = positive - 0.5
    return signed if bool(task.valid(task.self_label(signed, soft=False)).all()) else positive


def example_truths(task: DenseTask, output: Tensor, hole: bool = True) -> Tensor:
    """Ground truth that ``output`` predicts perfectly: what is decided has the layout of targets.

    Args:
        task: to be tested.
        output: raw outputs.
        hole: whether the pixels of ``HOLE`` have no label.
    """
    truth = task.decide(output.detach()).clone()
    if hole:
        truth[HOLE] = task.invalid_value
    return truth


def stored(target: Tensor) -> Array:
    """A sample's target in the layout of a data set: (H,W) for class numbers, else (H,W,C).

    Args:
        target: (H,W) or (C,H,W).
    """
    array: Array = target.numpy()
    return np.moveaxis(array, 0, -1) if target.ndim == 3 else array


def measured(task: DenseTask, output: Tensor, truth: Tensor) -> dict[str, Metric]:
    """The metrics of a prediction.

    Args:
        task: to be tested.
        output: raw outputs.
        truth: ground truth.
    """
    return task.summarize(task.statistics(output, truth).sum(0))


def everywhere() -> Tensor:
    """A mask of all pixels."""
    return torch.ones(IMAGES, *SIZE, dtype=torch.bool)


# -- what it is -------------------------------------------------------------------------------------------------------
def check_attributes(task: DenseTask) -> None:
    """The attributes fit together: name, channels, metrics, headline, interpolation."""
    expect(isinstance(task.name, str) and task.name.isidentifier(), f"name is {task.name!r}; give a plain word.")
    expect(isinstance(task.channels, int) and task.channels >= 1, f"channels is {task.channels!r}; give it, >= 1.")
    expect(task.headline in task.metrics, f"headline {task.headline!r} is none of metrics {list(task.metrics)}.")
    unknown = set(task.delta_metrics or ()) - set(task.metrics)
    expect(not unknown, f"delta_metrics has {sorted(unknown)}, which metrics {list(task.metrics)} lacks.")
    found = task.interpolation
    expect(found in ("nearest", "masked"), f"interpolation is {found!r}; choose 'nearest' or 'masked'.")
    expect(not (task.class_map and found == "masked"), "class numbers cannot be mixed: interpolation = 'nearest'.")


def check_valid(task: DenseTask) -> None:
    """``valid`` is False exactly where the target holds ``invalid_value``."""
    valid = task.valid(example_truths(task, example_outputs(task)))
    expected = everywhere()
    expected[HOLE] = False
    expect(
        valid.dtype == torch.bool and valid.shape == expected.shape,
        f"valid gives {valid.dtype} {tuple(valid.shape)}; give bool (N, H, W).",
    )
    expect(
        valid[~expected].logical_not().all(),
        f"pixels of invalid_value={task.invalid_value} are valid; `valid` and `invalid_value` must fit together.",
    )
    expect(
        valid[expected].all(),
        "decisions of ordinary raw outputs, taken as ground truth, are not valid; `valid` must allow all that "
        "`decide` gives.",
    )


# -- losses and labels ------------------------------------------------------------------------------------------------
def check_self_label_space(task: DenseTask) -> None:
    """A self-label lives in the space of targets: their layout, type and range."""
    output = example_outputs(task)
    hard, soft, decided = task.self_label(output, soft=False), task.self_label(output), task.decide(output)
    kind = "integer (N, h, w)" if task.class_map else f"float (N, {task.channels}, h, w)"
    shape = (IMAGES, *SIZE) if task.class_map else (IMAGES, task.channels, *SIZE)
    expect(
        hard.shape == shape and hard.is_floating_point() != task.class_map,
        f"self_label(soft=False) gives {hard.dtype} {tuple(hard.shape)}, targets are {kind}.",
    )
    expect(
        decided.shape == hard.shape and bool((hard - decided).abs().max() < 1e-4),
        "self_label(soft=False) is not what decide makes of the same output; where `decide` puts the raw output "
        "through a function, such as a sigmoid, let self_label return `self.decide(expert_output.detach())`.",
    )
    if task.entropy(output) is None:
        expect(torch.equal(soft, hard), "without a distribution a soft label is the hard one: ignore `soft`.")
        return
    sharp = task.self_label(SHARP * output)
    for label in (soft, sharp):
        expect(bool(((label >= 0) & (label <= 1)).all()), "soft labels leave 0..1; return probabilities, not logits.")
    if task.class_map:
        expect(bool((soft.sum(1) - 1).abs().max() < 1e-4), "soft labels do not sum to 1 over the classes; use softmax.")
        expect(torch.equal(soft.argmax(1), hard), "the likeliest class of the soft label is not the hard label.")


def check_losses_of_self_labels(task: DenseTask) -> None:
    """``pixel_loss`` takes self-labels, in float32 and float16, and gives finite float32 losses >= 0."""
    output = example_outputs(task)
    for soft in (True, False):
        label = task.self_label(example_outputs(task, seed=1), soft=soft)
        losses = task.pixel_loss(output, label)
        expect(
            losses.shape == (IMAGES, *SIZE) and losses.dtype == torch.float32,
            f"pixel_loss gives {losses.dtype} {tuple(losses.shape)}; give float32 (N, h, w): mean over channels.",
        )
        expect(
            bool((losses >= 0).all() and losses.isfinite().all() and losses.sum() > 0),
            f"losses of another network's label lie in {float(losses.min()):.3g}..{float(losses.max()):.3g}; they "
            "must be finite, >= 0, and not all 0.",
        )
        if label.is_floating_point():
            half = task.pixel_loss(output, label.half())
            expect(
                torch.allclose(half, losses, atol=2e-3, rtol=2e-3),
                "the label does not survive float16, in which labels are kept; choose a unit with values of 0.001 to "
                "1000, and compute losses in float32: `target.float()`.",
            )
        found = task.pixel_loss(output.half(), label).dtype
        expect(found == torch.float32, f"a float16 output has {found} losses; begin with `output.float()`.")


def check_own_label_costs_nothing(task: DenseTask) -> None:
    """The soft label of an output costs that output nothing: an expert agrees with itself."""
    output = example_outputs(task)
    label = task.self_label(output)
    for kept, limit in ((label, 1e-6), (label.half(), 5e-4)):
        loss = float(task.loss(output, kept, valid=everywhere()))
        expect(
            abs(loss) < limit,
            f"the loss is {loss:.3g} instead of 0; self_label and pixel_loss must speak of the same space (a raw logit "
            "is no label of a cross-entropy), and the cross-entropy of a soft label needs the label's own entropy "
            "subtracted.",
        )


def check_labels_carry_no_gradient(task: DenseTask) -> None:
    """A self-label carries no gradient."""
    output = example_outputs(task).requires_grad_()
    for soft in (True, False):
        expect(not task.self_label(output, soft=soft).requires_grad, "begin self_label with `expert_output.detach()`.")


def check_gradient(task: DenseTask) -> None:
    """The gradient of the loss is finite, and 0 where there is no label."""
    output = example_outputs(task).requires_grad_()
    task.loss(output, example_truths(task, example_outputs(task, seed=1))).backward()
    gradient = output.grad
    expect(gradient is not None, "the loss does not depend on the output.")
    if gradient is not None:
        expect(gradient.isfinite().all(), "the gradient is not finite; replace invalid targets before computing.")
        expect(not gradient[HOLE].any(), "pixels without label have a gradient; let `valid` say which they are.")
        expect(gradient.any(), "the gradient is 0 everywhere, so that nothing can be learned.")


def check_without_labels(task: DenseTask) -> None:
    """Without any label the loss and its gradient are 0 and every metric is NaN, also where targets are not finite."""
    poisons = [task.invalid_value] if task.class_map else [task.invalid_value, float("nan"), float("inf")]
    for poison in poisons:
        output = example_outputs(task).requires_grad_()
        truth = torch.full_like(example_truths(task, output.detach()), poison)
        expect(not task.valid(truth).any(), f"targets of {poison} are valid; only finite ones can be.")
        loss = task.loss(output, truth)
        loss.backward()
        clean = float(loss.detach()) == 0 and output.grad is not None and not output.grad.any()
        expect(clean, f"targets of {poison} reach the loss; `pixel_loss` must be finite there: replace them first.")
        values = {name: metric.value for name, metric in measured(task, output.detach(), truth).items()}
        expect(
            all(np.isnan(value) for value in values.values()),
            f"metrics without any label are {values}; they must be NaN: divide by the number of valid pixels.",
        )


def check_loss_is_a_mean(task: DenseTask) -> None:
    """The loss is the mean of ``pixel_loss`` over valid pixels, and refuses shapes that do not fit."""
    output, truth = example_outputs(task), example_truths(task, example_outputs(task, seed=1))
    mean = task.pixel_loss(output, truth)[task.valid(truth)].mean()
    expect(torch.allclose(task.loss(output, truth), mean), "loss() is another number; override `pixel_loss` instead.")
    for wrong in (output[..., :-1], torch.cat([output, output], dim=1)):
        try:
            task.loss(wrong, truth)
        except ValueError:
            continue
        expect(False, f"an output {tuple(wrong.shape)} passes for {task.channels} channels; call `self.check` in loss.")


def check_confidence_and_entropy(task: DenseTask) -> None:
    """Confidence and entropy are both there or both None; a sure prediction has little entropy."""
    output = example_outputs(task)
    confidence, entropy = task.confidence(output), task.entropy(output)
    expect((confidence is None) == (entropy is None), "only one of confidence and entropy is there.")
    if confidence is None or entropy is None:
        return
    for name, values in {"confidence": confidence, "entropy": entropy}.items():
        found = tuple(values.shape)
        expect(found == (IMAGES, *SIZE), f"{name} has shape {found}; give (N, h, w), one number per pixel.")
    expect(bool(((confidence > 0) & (confidence <= 1)).all()), "confidence leaves (0, 1].")
    expect(bool((entropy > 0).all()), "the entropy of an unsure prediction is not positive.")
    sure = task.entropy(1000 * output)
    expect(sure is not None and float(sure.mean()) < 0.2 * float(entropy.mean()), "a sure prediction has much entropy.")


# -- geometry ---------------------------------------------------------------------------------------------------------
def check_geometry(task: DenseTask) -> None:
    """``flip`` and ``zoom`` keep type, shape, their input, and what is invalid; two flips change nothing."""
    truth = example_truths(task, example_outputs(task))[0]
    hole = HOLE[1:]
    for kind in ("float16", "float32"):
        given = stored(truth) if task.class_map else stored(truth).astype(kind)
        original = given.copy()
        changes: dict[str, Callable[[Array], Array]] = {"flip": task.flip, "zoom": lambda x: task.zoom(x, 1.5)}
        for name, change in changes.items():
            changed = change(given)
            found = f"{changed.dtype} {changed.shape}"
            same = changed.dtype == given.dtype and changed.shape == given.shape
            expect(same, f"{name} makes {found} of {given.dtype} {given.shape}; keep type and shape.")
            expect(np.array_equal(given, original, equal_nan=True), f"{name} changes the array it is given; copy it.")
            kept = np.array_equal(changed[hole], original[hole], equal_nan=True)
            expect(kept, f"{name} changes pixels without label; leave invalid_value={task.invalid_value} as it is.")
        twice = task.flip(task.flip(given))
        expect(np.array_equal(twice, original, equal_nan=True), "flipped twice is not what it was.")


LEARNING = (
    check_attributes,
    check_valid,
    check_self_label_space,
    check_losses_of_self_labels,
    check_own_label_costs_nothing,
    check_labels_carry_no_gradient,
    check_gradient,
    check_without_labels,
    check_loss_is_a_mean,
    check_confidence_and_entropy,
    check_geometry,
)
