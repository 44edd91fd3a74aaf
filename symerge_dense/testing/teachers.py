"""The contracts of a teacher. Each takes its spec, ``{'type': class, **options}``, and lets it teach a tiny student."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from symerge_dense.adaptation.options import make_options
from symerge_dense.adaptation.symerge_model import SyMergeModel
from symerge_dense.adaptation.teacher import Targets
from symerge_dense.models.backbone import TimmBackbone
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.testing import tiny
from symerge_dense.testing.contract import expect

Spec = Mapping[str, Any]
STEPS = 4


@functools.cache
def _family() -> tuple[TimmBackbone, dict[str, MultiTaskModel]]:
    """Base and experts, which students copy."""
    base, experts, _ = tiny.family()
    return base, experts


def taught(spec: Spec) -> tuple[SyMergeModel, Tensor, dict[str, Tensor]]:
    """A tiny student with a teacher, an image, and the experts' labels of it.

    Args:
        spec: of the teacher.
    """
    base, experts = _family()
    student = SyMergeModel(base, experts, make_options(teacher=dict(spec), augment=None))
    student.teacher.attach(student)
    student.attach(experts)
    image = torch.rand(2, 3, *tiny.SIZE, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad():
        labels = {task: expert(image, mode="tensor")[task].half() for task, expert in experts.items()}
    return student.train(), image, labels


def lesson(student: SyMergeModel, image: Tensor, labels: Mapping[str, Tensor], progress: float) -> Targets:
    """What the teacher says at a point of the run.

    Args:
        student: as ``taught`` gives it.
        image: (N,3,H,W).
        labels: {task: (N,C,h,w)}.
        progress: share of the run that is over.
    """
    student.progress = progress
    with torch.no_grad():
        return student.teacher.targets(student, image, labels)


def _walk(student: SyMergeModel) -> None:
    """Some steps with moving weights."""
    generator = torch.Generator().manual_seed(1)
    for step in range(STEPS):
        with torch.no_grad():
            for parameter in student.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn(parameter.shape, generator=generator) * 1e-2)
        student.teacher.after_step(student, step)


def _same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def check_description(spec: Spec) -> None:
    """Its class has a docstring, and it has no parameters: what it remembers are buffers."""
    student, *_ = taught(spec)
    expect(type(student.teacher).__doc__ and inspect.getdoc(type(student.teacher)), "its class has no docstring.")
    found = [name for name, _ in student.teacher.named_parameters()]
    expect(not found, f"it has the parameters {found}, which no optimizer moves; use register_buffer, or a list.")


def check_targets(spec: Spec) -> None:
    """Targets have the labels' shapes, are finite and without gradient, from the first step to the last."""
    student, image, labels = taught(spec)
    _walk(student)
    for progress in (0.0, 0.99):
        outputs, weights = lesson(student, image, labels, progress)
        missing = [task for task in student.active if task not in outputs]
        expect(not missing, f"it has no target of {missing}; give labels[task] where it has nothing to say.")
        for task in student.active:
            shape, wanted = tuple(outputs[task].shape), tuple(labels[task].shape)
            expect(shape == wanted, f"the target of {task} has the shape {shape}, the label {wanted}.")
            expect(bool(outputs[task].isfinite().all()), f"the target of {task} has numbers that are not finite.")
            expect(not outputs[task].requires_grad, f"the target of {task} has a gradient.")
        for task, weight in weights.items():
            wanted = (*labels[task].shape[:1], *labels[task].shape[2:])
            expect(tuple(weight.shape) == wanted, f"weights of {task} have the shape {tuple(weight.shape)}.")
            expect(bool((weight >= 0).all()), f"weights of {task} are negative or not a number.")
        losses = student.distances(image, {f"label_{task}": label for task, label in labels.items()})
        expect(all(bool(loss.isfinite()) for loss in losses.values()), f"losses are {losses}.")


def check_one_task(spec: Spec) -> None:
    """A step of one task, as schedule='per_task' makes them, gets the target that it gets in a step of all tasks."""
    student, image, labels = taught(spec)
    _walk(student)
    together = lesson(student, image, labels, 0.99)
    for task in student.model.tasks:
        student.active = [task]
        alone = lesson(student, image, labels, 0.99)
        expect(torch.equal(alone.outputs[task], together.outputs[task]), f"the target of {task} alone is another.")


def check_nothing_changes(spec: Spec) -> None:
    """Teaching changes neither student nor labels, and saying it twice is saying it once."""
    student, image, labels = taught(spec)
    _walk(student)
    before, given = copy.deepcopy(student.model.state_dict()), {task: label.clone() for task, label in labels.items()}
    first, second = (lesson(student, image, labels, 0.99) for _ in range(2))
    expect(_same(before, student.model.state_dict()), "the student's weights or BatchNorm statistics are changed.")
    expect(_same(given, labels), "the labels are changed; write into a copy.")
    same = _same(first.outputs, second.outputs) and _same(first.weights, second.weights)
    expect(same, "the same batch gets other targets; draw random numbers from nothing that moves on.")


def check_resumed(spec: Spec) -> None:
    """A run that is resumed from a checkpoint gets the targets of an unbroken one."""
    student, image, labels = taught(spec)
    _walk(student)
    lesson(student, image, labels, 0.5)  # what is found on the first batch is remembered, too
    saved = copy.deepcopy(student.trainable_state_dict())
    resumed, *_ = taught(spec)
    found = nn.Module.load_state_dict(resumed, saved, strict=False)
    expect(not found.unexpected_keys, f"attach registers no buffer for {found.unexpected_keys}.")
    _walk(student)
    _walk(resumed)
    expected, after = (lesson(model, image, labels, 0.99) for model in (student, resumed))
    expect(_same(expected.outputs, after.outputs), "the targets differ; register in attach what it remembers.")


TEACHER_CHECKS = (check_description, check_targets, check_one_task, check_nothing_changes, check_resumed)
"""The contracts of a teacher."""
