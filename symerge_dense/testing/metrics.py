"""The contracts of a task's metrics. Each takes a ``DenseTask``."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch

from symerge_dense.tasks.base import DenseTask
from symerge_dense.tasks.metric import Metric
from symerge_dense.testing.contract import expect
from symerge_dense.testing.tasks import HOLE, IMAGES, SHARP, SIZE, example_outputs, example_truths, measured


def check_summary(task: DenseTask) -> None:
    """``summarize`` gives the declared metrics, in order, with their directions, finite where there are labels."""
    summary = measured(task, example_outputs(task), example_truths(task, example_outputs(task, seed=1)))
    expect(list(summary) == list(task.metrics), f"summarize gives {list(summary)}, metrics are {list(task.metrics)}.")
    for name, metric in summary.items():
        expect(isinstance(metric, Metric), f"{name} is {type(metric).__name__}; return `self.table(...)`.")
        expect(np.isfinite(metric.value), f"{name} is {metric.value} on ordinary predictions.")
        expect(metric.higher_is_better == task.metrics[name], f"{name} has the other direction than in `metrics`.")


def check_statistics_add_up(task: DenseTask) -> None:
    """Statistics are one float64 row of sums per image, whatever the batch, and see valid pixels alone."""
    output, truth = example_outputs(task), example_truths(task, example_outputs(task, seed=1))
    rows = task.statistics(output, truth)
    expect(
        rows.dtype == torch.float64 and rows.ndim == 2 and len(rows) == IMAGES,
        f"statistics gives {rows.dtype} {tuple(rows.shape)} for {IMAGES} images; give float64 (N, K).",
    )
    singles = torch.cat([task.statistics(output[i : i + 1], truth[i : i + 1]) for i in range(IMAGES)])
    expect(torch.allclose(rows, singles, rtol=1e-6, atol=1e-9), "an image's row depends on the rest of its batch.")
    wide = task.statistics(torch.cat(list(output), dim=-1)[None], torch.cat(list(truth), dim=-1)[None])[0]
    expect(
        torch.allclose(rows.sum(0), wide, rtol=1e-6, atol=1e-7),
        "rows are no sums over pixels: images side by side give another total; return sums, and divide in summarize.",
    )
    other = output.clone()
    other[HOLE] = example_outputs(task, seed=2)[HOLE]
    expect(torch.equal(rows, task.statistics(other, truth)), "pixels without label change the statistics; mask them.")


def check_perfect_prediction(task: DenseTask) -> None:
    """A perfect prediction has a perfect metric: errors are next to nothing, and no other prediction is better."""
    output = example_outputs(task) * (1.0 if task.entropy(example_outputs(task)) is None else SHARP)
    truth = example_truths(task, output)
    best = measured(task, output, truth)
    others = [-output, output + 1, *(example_outputs(task, seed=seed) - 0.3 for seed in range(1, 4))]
    if truth.shape == output.shape:
        others.append(truth.where(task.valid(truth)[:, None], output))  # a metric of the raw output would like it
    results = [measured(task, other, truth) for other in others]
    for name, metric in best.items():
        values = [other[name].value for other in results if np.isfinite(other[name].value)]
        better = [value for value in values if (value - metric.value) * (1 if metric.higher_is_better else -1) > 1e-6]
        remedy = "measure `self.decide(output)` against the target, not the raw output or the loss."
        expect(
            not better,
            f"{name} of a perfect prediction is {metric.value:.4g}, of another one {(better or [0])[0]:.4g}; {remedy}",
        )
        small = metric.higher_is_better or not values or abs(metric.value) <= 0.05 * max(values) + 1e-6
        expect(small, f"{name} of a perfect prediction is {metric.value:.4g} instead of 0; {remedy}")


def check_worse_prediction(task: DenseTask) -> None:
    """A worse prediction has a worse metric: each one falls as more pixels are wrong, and as they are more wrong."""
    output = example_outputs(task)
    truth = example_truths(task, output, hole=False)
    perfect = measured(task, output, truth)[task.headline].value
    candidates = [-output, output + 1, output.roll(1, dims=1)]
    wrong = max(candidates, key=lambda other: abs(measured(task, other, truth)[task.headline].value - perfect))
    order = torch.rand(IMAGES, 1, *SIZE, generator=torch.Generator().manual_seed(0))
    more = [wrong.where(order < share, output) for share in (0, 0.1, 0.3, 0.6, 1)]
    farther = [output + share * (wrong - output) for share in (0, 0.25, 0.75, 1)]
    for path, what in ((more, "more pixels are wrong"), (farther, "pixels are more wrong")):
        series = [measured(task, prediction, truth) for prediction in path]
        for name, higher in task.metrics.items():
            values = [point[name].value for point in series if not np.isnan(point[name].value)]
            falling = values if higher else [-value for value in values]
            told = ", ".join(f"{value:.4g}" for value in values)
            expect(
                all(after <= before + 1e-6 * (1 + abs(before)) for before, after in pairwise(falling)),
                f"{name} goes {told} while {what}; check its formula, and its direction in `metrics`.",
            )
            expect(
                len(falling) > 1 and falling[-1] < falling[0],
                f"{name} is {told} whether all pixels are right or wrong; it measures nothing.",
            )


MEASURING = (check_summary, check_statistics_add_up, check_perfect_prediction, check_worse_prediction)
