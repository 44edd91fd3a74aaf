"""Every contract of a task finds the fault that it is there for."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
import pytest
import torch

from symerge_dense.tasks.depth import Depth
from symerge_dense.tasks.metric import Metric
from symerge_dense.tasks.probability import Probability
from symerge_dense.tasks.regression import Regression
from symerge_dense.tasks.segmentation import Segmentation
from symerge_dense.tasks.vector import Vector
from symerge_dense.testing import metrics, predictions, tasks
from symerge_dense.testing.contract import promise, run_checks
from symerge_dense.testing.predictions import TASK_CHECKS


class Share(Probability):
    name, channels = "share", 1


class Value(Regression):
    name, channels = "value", 1


class Flow(Vector):
    name, channels = "flow", 2


# -- faults that users make -------------------------------------------------------------------------------------------
class UnknownHeadline(Value):
    headline = "rmse"


class ForgottenValid(Value):
    """The marker was changed, `valid` was not."""

    invalid_value = 7.0


class LogitLabel(Value):
    """A sigmoid in `decide`, a raw logit as label."""

    def decide(self, output):
        return output.sigmoid()


class ProbabilityOverOne(Share):
    def self_label(self, expert_output, soft=True):
        return expert_output.detach().exp() if soft else self.decide(expert_output.detach())


class ChannelLosses(Flow):
    """The loss keeps its channels."""

    def pixel_loss(self, output, target):
        return (output - target.nan_to_num()).abs()


class Nanometres(Value):
    """Values that float16 cannot hold."""

    def decide(self, output):
        return output * 1e6

    def self_label(self, expert_output, soft=True):
        return self.decide(expert_output.detach())

    def pixel_loss(self, output, target):
        return super().pixel_loss(self.decide(output.float()), target)


class PlainCrossEntropy(Share):
    """The label's own entropy was not subtracted."""

    def pixel_loss(self, output, target):
        return torch.nn.functional.binary_cross_entropy_with_logits(
            output.float(), target.float().clamp(0, 1), reduction="none"
        ).mean(1)


class NotDetached(Value):
    def self_label(self, expert_output, soft=True):
        return expert_output


class Unmasked(Value):
    def loss(self, output, target, valid=None):
        self.check(output, target)
        return self.pixel_loss(output, target).mean()


class NanLoss(Flow):
    """Invalid targets were not replaced."""

    def pixel_loss(self, output, target):
        return (output.float() - target.float()).abs().mean(1)

    def loss(self, output, target, valid=None):
        mask = self.valid(target) if valid is None else valid
        return (self.pixel_loss(output, target) * mask).sum() / mask.sum().clamp(min=1)


class SummedLoss(Value):
    def loss(self, output, target, valid=None):
        return 2 * super().loss(output, target, valid)


class HalfAnEntropy(Share):
    def confidence(self, output):
        return None


class OtherOrder(Depth):
    def summarize(self, total):
        return dict(reversed(super().summarize(total).items()))


class MeansAsStatistics(Value):
    """Rows of means instead of sums."""

    def statistics(self, output, target):
        rows = super().statistics(output, target)
        return rows / rows[:, :1]


class LossAsMetric(Share):
    """The metric measures the raw output."""

    def statistics(self, output, target):
        rows = super().statistics(output, target)
        rows[:, 1] = self.valid(target).float().mul((output - target).abs().mean(1)).sum((1, 2))
        return rows


class WrongDirection(Value):
    metrics: ClassVar = {"accuracy": True}
    headline = "accuracy"


class ConstantMetric(Value):
    metrics: ClassVar = {"abs": False, "constant": False}

    def summarize(self, total):
        absolute = float(total[1] / total[0])
        return {"abs": Metric(absolute, False), "constant": Metric(0.0 * absolute, False)}


class FlipInPlace(Flow):
    def flip(self, target):
        target[..., 0] *= -1
        return target


class ProbabilityAverage(Share):
    """The mean of the probabilities, not its logit."""

    def average(self, outputs, weights=None):
        return predictions_of(outputs), torch.zeros(3, 6, 8)


def predictions_of(outputs):
    return torch.stack([output.sigmoid() for output in outputs]).mean(0)


class FirstView(Value):
    def average(self, outputs, weights=None):
        return outputs[0], torch.stack(list(outputs)).var(0).sum(1)


class ForgottenMirror(Flow):
    """Pixels turned back, values not."""

    def mirror_output(self, output):
        return output.flip(-1)


class Enlarged(Flow):
    """Displacements of an enlarged image, taken as those of the plain one."""

    in_pixels = True

    def rescale_output(self, output, scale, plain):
        return output


class CoarseFile(Value):
    @property
    def storage(self):
        return dataclasses.replace(super().storage, scale=1.0, offset=5.0)


class BlackClass(Segmentation):
    def colorize(self, prediction, limits=None):
        picture = super().colorize(prediction, limits)
        picture[prediction.numpy() == 0] = 0
        return picture


class BlackNegatives(Depth):
    def colorize_prediction(self, prediction, limits=None):
        return self.colorize(prediction, limits)


class BlackInLegend(Share):
    def legend(self, limits=None):
        return dataclasses.replace(super().legend(limits), colors=((0, 0, 0), (255, 255, 255)))


FAULTS = [
    (tasks.check_attributes, UnknownHeadline, "headline 'rmse'"),
    (tasks.check_valid, ForgottenValid, "invalid_value=7.0 are valid"),
    (tasks.check_self_label_space, LogitLabel, r"return `self.decide\(expert_output.detach\(\)\)`"),
    (tasks.check_self_label_space, ProbabilityOverOne, "return probabilities, not logits"),
    (tasks.check_losses_of_self_labels, ChannelLosses, "mean over channels"),
    (tasks.check_losses_of_self_labels, Nanometres, "does not survive float16"),
    (tasks.check_own_label_costs_nothing, PlainCrossEntropy, "label's own entropy"),
    (tasks.check_labels_carry_no_gradient, NotDetached, r"expert_output.detach\(\)"),
    (tasks.check_gradient, Unmasked, "pixels without label have a gradient"),
    (tasks.check_without_labels, NanLoss, "replace them first"),
    (tasks.check_loss_is_a_mean, SummedLoss, "override `pixel_loss`"),
    (tasks.check_confidence_and_entropy, HalfAnEntropy, "only one of"),
    (metrics.check_summary, OtherOrder, "metrics are"),
    (metrics.check_statistics_add_up, MeansAsStatistics, "return sums, and divide in summarize"),
    (metrics.check_perfect_prediction, LossAsMetric, "abs of a perfect prediction is .*measure `self.decide"),
    (metrics.check_perfect_prediction, WrongDirection, "accuracy of a perfect prediction is 0"),
    (metrics.check_worse_prediction, WrongDirection, "check its formula, and its direction"),
    (metrics.check_worse_prediction, ConstantMetric, "constant is .* it measures nothing"),
    (tasks.check_geometry, FlipInPlace, "copy it"),
    (predictions.check_average_of_equal_views, ProbabilityAverage, "return a RAW output"),
    (predictions.check_average_of_other_views, FirstView, "a view of weight 0 has an effect"),
    (predictions.check_mirror, ForgottenMirror, "mirror_output and flip disagree"),
    (predictions.check_rescale, Enlarged, "does not undo what zoom does"),
    (predictions.check_storage, CoarseFile, "override it with a range"),
    (predictions.check_pictures_of_targets, BlackClass, "pixels with a label are black"),
    (predictions.check_pictures_of_predictions, BlackNegatives, "keep_black"),
    (predictions.check_legend, BlackInLegend, "black, which means 'no label'"),
]


@pytest.mark.parametrize(("check", "faulty", "told"), FAULTS, ids=lambda value: getattr(value, "__name__", None))
def test_a_planted_fault_is_found_and_its_remedy_told(check, faulty, told):
    with pytest.raises(AssertionError, match=told):
        check(faulty())


def test_every_contract_has_a_planted_fault_and_a_promise_of_its_own():
    assert {check for check, _, _ in FAULTS} == set(TASK_CHECKS)
    promises = [promise(check) for check in TASK_CHECKS]
    assert len(set(promises)) == len(promises) and all(30 < len(text) < 120 for text in promises)


@pytest.mark.parametrize("kind", [Share, Value, Flow])
def test_what_is_right_passes(kind):
    assert [outcome for outcome in run_checks(TASK_CHECKS, kind()) if outcome.kept is not True] == []


def test_an_error_of_a_plugin_is_told_with_its_line():
    class Broken(Value):
        def valid(self, target):
            return target.no_such_method()

    outcome = run_checks([tasks.check_valid], Broken())[0]
    assert outcome.kept is False and "AttributeError" in outcome.reason and f"({__file__}, line " in outcome.reason


def test_example_outputs_take_both_signs_where_the_task_does():
    assert bool((tasks.example_outputs(Share()) < 0).any()) and bool((tasks.example_outputs(Flow()) < 0).any())
    assert bool((tasks.example_outputs(Value()) > 0).all())
    hole = tasks.example_truths(Value(), tasks.example_outputs(Value()))[tasks.HOLE]
    assert np.all(hole.numpy() == -1)
