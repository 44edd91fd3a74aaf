"""The moving average of the student as its teacher (Tarvainen and Valpola 2017, arXiv 1703.01780), alone or mixed in.

An average over steps errs less than the student of any one step, and knows what the experts cannot tell: all tasks'
experts at once. It has nothing to teach before it has learned, so that the experts begin.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.func import functional_call

from symerge_dense.adaptation.averaging import WeightAverage
from symerge_dense.adaptation.teacher import Targets, Teacher, build_teacher
from symerge_dense.models.batchnorm import keeping_statistics
from symerge_dense.registry import TEACHERS
from symerge_dense.tasks.base import DenseTask

if TYPE_CHECKING:
    from symerge_dense.adaptation.options import SyMergeOptions
    from symerge_dense.adaptation.student import Student


@TEACHERS.register_module()
class Ema(Teacher):
    """The exponential moving average of all that learns: average <- d average + (1 - d) student, after every step.

    d = min(1 - 1/(i+1), ``decay``) in step i, as in UniMatch V2 (arXiv 2410.10777), so that the first steps are
    forgotten. The averaged model runs on every batch after the warm-up, one forward pass more, and BatchNorm normalises
    as in the student, without a trace in its running statistics. It takes the memory of the learned parameters once
    more: little, except where a method learns whole backbones.

    Args:
        decay: largest d, in [0,1); 0.99 forgets within about 100 steps, long runs take 0.996 to 0.999.
        warmup: share of the run, in [0,1], in which the experts teach.

    Raises:
        ValueError: a value is out of range.
    """

    name: ClassVar[str] = "ema"
    average: WeightAverage

    def __init__(self, decay: float = 0.99, warmup: float = 0.25) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay!r} must lie in [0, 1); 0.99 forgets within about 100 steps.")
        self.decay, self.warmup = decay, _share("warmup", warmup)

    def attach(self, student: Student) -> None:
        learned = {name: parameter for name, parameter in student.named_parameters() if parameter.requires_grad}
        self.average = WeightAverage(learned, self.decay)

    def after_step(self, student: Student, iteration: int) -> None:
        """Move the average.

        Args:
            student: the model that learns.
            iteration: number of the step, from 0.
        """
        self.average.update()

    def targets(self, student: Student, image: Tensor, labels: Mapping[str, Tensor]) -> Targets:
        if student.progress < self.warmup:
            return Targets(labels)
        with keeping_statistics(student.model):
            return Targets(functional_call(student, self.average.means, (image,)))


@TEACHERS.register_module()
class Mix(Teacher):
    """The average of two teachers by each task's own rule (``DenseTask.average``): probabilities, unit vectors, metres.

    Args:
        first: a teacher: its name, or ``dict(type=name, ...)``.
        second: another; by default the moving average of the student.
        share: of the second teacher, in [0,1].
        ramp: share of the run, in [0,1], over which the second teacher's share grows linearly from 0.

    Raises:
        ValueError: a value is out of range, or there is no such teacher.
    """

    name: ClassVar[str] = "mix"

    def __init__(
        self,
        first: str | Mapping[str, Any] = "experts",
        second: str | Mapping[str, Any] = {"type": "ema", "warmup": 0.0},
        share: float = 0.5,
        ramp: float = 0.25,
    ) -> None:
        super().__init__()
        self.first, self.second = build_teacher(first), build_teacher(second)
        self.share, self.ramp = _share("share", share), _share("ramp", ramp)

    def check(self, tasks: Mapping[str, DenseTask], options: SyMergeOptions) -> None:
        """Try every task's average, which a task may not have.

        Args:
            tasks: {task: its rules}.
            options: of the adaptation.

        Raises:
            ValueError: a task has no average, or a teacher refuses.
        """
        super().check(tasks, options)
        for task, rule in tasks.items():
            one = torch.ones(1, rule.channels, 1, 1)
            try:
                rule.average([one, one])
            except ValueError as error:
                raise ValueError(f"teacher 'mix': task {task} has no average of two outputs: {error}") from error

    def targets(self, student: Student, image: Tensor, labels: Mapping[str, Tensor]) -> Targets:
        share = self.share * min(1.0, student.progress / self.ramp if self.ramp else 1.0)
        if share == 0:
            return self.first.targets(student, image, labels)
        second = self.second.targets(student, image, labels)
        if share == 1:
            return second
        first, shares = self.first.targets(student, image, labels), (1 - share, share)
        outputs, weights = {}, {}
        for task in [task for task in first.outputs if task in second.outputs]:
            pair = [found.outputs[task].to(student.device, torch.float32) for found in (first, second)]
            outputs[task], _ = student.model.tasks[task].average(pair, shares)
            if task in first.weights or task in second.weights:
                one = torch.ones_like(pair[0][:, 0])
                own = (found.weights.get(task, one).to(one) for found in (first, second))
                weights[task] = sum((part * weight for part, weight in zip(shares, own, strict=True)), one * 0)
        return Targets(outputs, weights)


def _share(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value!r} must lie in [0, 1], a share of the whole.")
    return value
